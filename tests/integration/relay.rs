// SPDX-License-Identifier: MPL-2.0

//! The example `relay` from its publishers to its segments, in a process of its own.
//!
//! A stream is complete when its publisher has ended it and the program says that it is gone: then all
//! that was sent is in segments, however long the machine took for it. So most of these publishers send as
//! fast as they can.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use m3u8_rs::MediaPlaylist;
use rustix::process::Signal;

use crate::support::PATIENCE;
use crate::support::clients::FFMPEG;
use crate::support::flv::{self, AUDIO, Tag, VIDEO};
use crate::support::launch::plugin_folder;
use crate::support::media::made_by;
use crate::support::program::Program;
use crate::support::raw::{RawClient, send, unpublish};
use crate::support::synthetic;

const PICTURE: &str = "-f lavfi -i testsrc=size=160x120";
const NOISE: &str = "-f lavfi -i anoisesrc=amplitude=0.1:sample_rate";

struct Relay {
    program: Program,
    /// Of its HTTP server, with a slash at its end.
    page: String,
    port: u16,
    directory: PathBuf,
}

impl Relay {
    fn start(directory: &Path, options: &[&str]) -> Self {
        let mut command = command(directory);
        command.args(options).stdout(Stdio::piped());
        // What it complains of is seen with the output of the test.
        let mut program = Program::start(command.stderr(Stdio::inherit()));
        let page = program.behind("page on ");
        let address = program.behind("listening on ");
        let port = address.trim_end_matches('/').rsplit(':').next();
        Relay {
            program,
            page,
            port: port.unwrap().parse().unwrap(),
            directory: directory.to_owned(),
        }
    }

    /// Goes on to a line with this, and gives all lines up to there.
    #[track_caller]
    fn wait_for(&mut self, text: &str) -> String {
        self.program.wait_for(text)
    }

    fn publish(&self, user: &str) -> RawClient {
        RawClient::publish(self.port, &format!("live/{user}"), "cam")
    }

    /// A whole stream, as fast as it goes.
    #[track_caller]
    fn take(&mut self, user: &str, tags: &[Tag]) -> String {
        let mut client = self.publish(user);
        send(&mut client, tags);
        unpublish(client);
        self.wait_for(&format!("gone live/{user}/cam"))
    }

    fn stream(&self, user: &str) -> PathBuf {
        self.directory.join("live").join(user).join("cam")
    }

    fn playlist(&self, user: &str) -> MediaPlaylist {
        playlist(&self.stream(user))
    }

    fn segments(&self, user: &str) -> Vec<Segment> {
        segments(&self.stream(user))
    }

    fn signal(&self) {
        self.program.signal(Signal::TERM);
    }

    fn terminate(mut self) {
        self.signal();
        assert!(self.program.wait().success());
    }

    /// Status and text of /health.
    fn health(&self) -> (u16, String) {
        let agent = ureq::Agent::config_builder().http_status_as_error(false);
        let agent = ureq::Agent::new_with_config(agent.build());
        let mut response = agent.get(format!("{}health", self.page)).call().unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        (response.status().as_u16(), text)
    }

    /// Asks until it is as it should be.
    #[track_caller]
    fn wait_for_health(&self, is_right: impl Fn(u16, &str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, text) = self.health();
            if is_right(status, &text) {
                return;
            }
            assert!(Instant::now() < deadline, "{status} {text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The program, on any free ports.
fn command(directory: &Path) -> Command {
    let program = plugin_folder().join("examples/relay");
    assert!(program.exists(), "{} is not built", program.display());
    let mut command = Command::new(program);
    command
        .args(["--rtmp", "127.0.0.1:0", "--http", "127.0.0.1:0"])
        .arg("--directory")
        .arg(directory)
        .stdin(Stdio::null());
    command
}

fn playlist(stream: &Path) -> MediaPlaylist {
    let text = std::fs::read(stream.join("index.m3u8")).unwrap();
    m3u8_rs::parse_media_playlist_res(&text).unwrap()
}

/// What ffprobe says of one file. Times are ticks of 90 kHz.
#[derive(Debug, Default)]
struct Segment {
    path: PathBuf,
    video: Vec<Packet>,
    audio: Vec<Packet>,
    /// Codec, profile, and rate and channels of sound.
    streams: Vec<String>,
}

#[derive(Debug)]
struct Packet {
    time: i64,
    duration: i64,
    is_key: bool,
}

/// Of all files that are there, in their order.
fn segments(stream: &Path) -> Vec<Segment> {
    let entries = std::fs::read_dir(stream).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "ts"));
    paths.sort();
    paths.into_iter().map(probe).collect()
}

fn probe(path: PathBuf) -> Segment {
    let show =
        "stream=codec_name,profile,sample_rate,channels:packet=codec_type,pts,duration,flags";
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-of", "compact=p=1", "-show_entries", show])
        .arg(&path)
        .output();
    let output = output.unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    let mut segment = Segment {
        path,
        ..Segment::default()
    };
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let value = |key: &str| {
            let mut fields = line.split('|').filter_map(|field| field.split_once('='));
            fields
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value)
        };
        if line.starts_with("stream|") {
            let values = ["codec_name", "profile", "sample_rate", "channels"];
            let values: Vec<_> = values.into_iter().filter_map(value).collect();
            let stream = values.join(" ");
            // ffprobe shows those of programs once more.
            if !segment.streams.contains(&stream) {
                segment.streams.push(stream);
            }
        } else if line.starts_with("packet|") {
            let number = |key| value(key).unwrap().parse().unwrap_or(0);
            let packet = Packet {
                time: number("pts"),
                duration: number("duration"),
                is_key: value("flags").unwrap().starts_with('K'),
            };
            match value("codec_type") {
                Some("video") => segment.video.push(packet),
                _ => segment.audio.push(packet),
            }
        }
    }
    segment
}

const FRAME: i64 = 3000;

/// What the relay promises of each segment with both tracks.
#[track_caller]
fn assert_clean(segments: &[Segment]) {
    for segment in segments {
        assert_pictures(segment);
        let [video, audio] = [&segment.video, &segment.audio];
        // No more than what a listener hears: sound is in frames of 21 ms.
        let skew = (audio[0].time - video[0].time).abs();
        assert!(skew <= 2 * FRAME, "{skew} in {}", segment.path.display());
        let ends = [video, audio].map(|packets| packets.last().unwrap().time);
        assert!(
            (ends[0] - ends[1]).abs() <= 3 * FRAME,
            "{ends:?} in {}",
            segment.path.display()
        );
        for pair in audio.windows(2) {
            assert!((pair[1].time - pair[0].time - 1920).abs() <= 1, "{pair:?}");
        }
        assert!(segment.streams.contains(&"aac LC 48000 2".to_owned()));
    }
}

#[track_caller]
fn assert_pictures(segment: &Segment) {
    let video = &segment.video;
    assert_eq!(video.len(), 60, "{}", segment.path.display());
    assert_eq!(video.iter().filter(|packet| packet.is_key).count(), 1);
    assert!(video[0].is_key, "it starts with its IDR picture");
    for pair in video.windows(2) {
        assert_eq!(pair[1].time - pair[0].time, FRAME, "{pair:?}");
        assert_eq!(pair[0].duration, FRAME);
    }
    let profile = "h264 Constrained Baseline";
    assert!(
        segment.streams.iter().any(|stream| stream == profile),
        "{:?}",
        segment.streams
    );
}

/// Each segment goes on where the one before ended.
#[track_caller]
fn assert_goes_on(segments: &[Segment]) {
    for pair in segments.windows(2) {
        let [before, after] = [&pair[0].video, &pair[1].video];
        assert_eq!(after[0].time - before.last().unwrap().time, FRAME);
    }
}

/// Everything that is in the list, as a player reads it, and nothing is wrong with it.
#[track_caller]
fn assert_plays(stream: &Path) {
    let output = Command::new(FFMPEG)
        .args(["-nostdin", "-v", "error", "-xerror", "-i"])
        .arg(stream.join("index.m3u8"))
        .args(["-f", "null", "-"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
}

/// 12 frames a second, mono sound of 44.1 kHz, keyframes at these frames.
fn dirty_media(seconds: u32, name: &str, keyframes: &str) -> Vec<Tag> {
    let arguments = format!(
        "{PICTURE}:rate=12 {NOISE}=44100 -t {seconds} -c:v libx264 -preset ultrafast -bf 0 \
         -g 1000 -keyint_min 1 -sc_threshold 0 -force_key_frames {keyframes} \
         -c:a aac -ac 1 -b:a 48k -f flv"
    );
    flv::read_file(&made_by(FFMPEG, name, &arguments))
}

/// What is clean as it is.
fn clean_media(seconds: u32) -> Vec<Tag> {
    let arguments = format!(
        "{PICTURE}:rate=30 {NOISE}=48000 -t {seconds} -c:v libx264 -preset ultrafast \
         -profile:v baseline -g 60 -keyint_min 60 -sc_threshold 0 -pix_fmt yuv420p \
         -c:a aac -ac 2 -b:a 64k -f flv"
    );
    let name = format!("relay-clean-{seconds}.flv");
    flv::read_file(&made_by(FFMPEG, &name, &arguments))
}

fn without(kind: u8, tags: &[Tag]) -> Vec<Tag> {
    tags.iter()
        .filter(|tag| tag.kind != kind)
        .cloned()
        .collect()
}

/// A tag, when it is made and sent, and what it is stamped with, in milliseconds.
struct Timed {
    tag: Tag,
    made: u32,
}

/// 9 to 15 frames a second, groups of 0.07 to 5 s, a clock that is set ahead, and back twice.
fn very_dirty(seconds: u32) -> Vec<Timed> {
    // The first group is a frame, the longest one 60 frames.
    let keyframes = "0,0.083,0.25,1,1.1,1.5,2,2.5,7.4,7.5,8,9,10,12,15,19,19.1,20";
    let media = dirty_media(seconds, &format!("relay-dirty-{seconds}.flv"), keyframes);
    // Between frames: on average what they had.
    let steps = [66, 112, 71, 109, 83, 67, 75].iter().cycle();
    let mut times = steps.scan(0, |time, step| {
        let now = *time;
        *time += step;
        Some(now)
    });
    let mut timed: Vec<Timed> = media
        .into_iter()
        .map(|tag| {
            let made = match tag.is_frame() {
                true => times.next().unwrap(),
                false => tag.timestamp,
            };
            Timed { tag, made }
        })
        .collect();
    timed.sort_by_key(|timed| timed.made);
    let jumps = [(8_000, 3_600_000), (12_300, -50_000), (16_000, -3_550_000)];
    for timed in &mut timed {
        let due = jumps.iter().filter(|(at, _)| *at <= timed.made);
        let by: i64 = due.map(|(_, by)| by).sum();
        timed.tag.timestamp = (i64::from(timed.made) + by) as u32;
    }
    timed
}

/// Waits for a moment of a publisher that is live: its pace is what this is about.
fn pace(start: Instant, made: u32) {
    let due = start + Duration::from_millis(made.into());
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}

#[test]
fn a_dirty_publisher_gives_clean_segments_and_is_ready_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), &[]);
    let media = very_dirty(21);
    let (first, rest): (Vec<_>, Vec<_>) = media.into_iter().partition(|timed| timed.made < 6000);
    let mut client = relay.publish("ann");
    let (ready, is_ready) = mpsc::channel();
    let publisher = std::thread::spawn(move || {
        let mut start = Instant::now();
        for timed in first {
            pace(start, timed.made);
            send(&mut client, &[timed.tag]);
        }
        // Six seconds of media from the first keyframe on have to be enough. How long the machine takes
        // for them is not what is measured.
        is_ready.recv_timeout(PATIENCE).unwrap();
        start = start.max(Instant::now() - Duration::from_secs(6));
        for timed in rest {
            pace(start, timed.made);
            send(&mut client, &[timed.tag]);
        }
        unpublish(client);
    });
    let line = relay.wait_for("ready live/ann/cam http://127.0.0.1:");
    assert!(
        line.trim().ends_with("/hls/live/ann/cam/index.m3u8"),
        "{line}"
    );
    ready.send(()).unwrap();
    relay.wait_for("gone live/ann/cam");
    publisher.join().unwrap();
    let segments = relay.segments("ann");
    assert_clean(&segments);
    assert_goes_on(&segments);
    // 20 to 21 s, and the last segment is filled up. What a busy machine made of the pace is on top.
    assert!((10..=14).contains(&segments.len()), "{}", segments.len());
    let list = relay.playlist("ann");
    assert_eq!((list.target_duration, list.segments.len()), (2, 5));
    assert!(list.independent_segments && list.end_list);
    for segment in &list.segments {
        assert_eq!(segment.duration, 2.0);
        assert!(!segment.discontinuity);
    }
    assert_plays(&relay.stream("ann"));
}

#[test]
fn a_publisher_that_comes_back_goes_on_behind_a_discontinuity() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), &[]);
    let media = dirty_media(5, "relay-five.flv", "0,2,3");
    let mut client = relay.publish("ann");
    send(&mut client, &media);
    relay.wait_for("ready live/ann/cam");
    // Cut off, and here again: the same stream, of which nobody hears that it is gone.
    drop(client);
    let seen = relay.take("ann", &media);
    assert_eq!(seen.matches("ready").count(), 0, "{seen}");
    let first = relay.playlist("ann");
    assert!(first.end_list);
    // Three segments each, the last of which is filled up.
    let marks = |list: &MediaPlaylist| -> Vec<(u64, bool)> {
        let numbers = list.media_sequence..;
        let marks = list.segments.iter().map(|segment| segment.discontinuity);
        numbers.zip(marks).collect()
    };
    let start = first.media_sequence - 1;
    assert_eq!(
        marks(&first),
        [1, 2, 3, 4, 5].map(|index| (start + index, index == 3))
    );
    assert_goes_on(&relay.segments("ann"));
    // It has ended its stream, and comes again: another one, in the same list.
    let seen = relay.take("ann", &media);
    assert_eq!(seen.matches("ready").count(), 1, "{seen}");
    let second = relay.playlist("ann");
    assert_eq!(
        marks(&second),
        [4, 5, 6, 7, 8].map(|index| (start + index, index == 6))
    );
    assert_eq!(second.discontinuity_sequence, 1);
    let segments = relay.segments("ann");
    assert_eq!(segments.len(), 9);
    assert_clean(&segments);
    assert_plays(&relay.stream("ann"));
}

#[test]
fn old_segments_are_deleted_and_another_process_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), &[]);
    let media = dirty_media(10, "relay-ten.flv", "0,4,8");
    for session in 1..=4 {
        relay.take("ann", &media);
        let files = relay.segments("ann").len();
        assert_eq!(files, usize::min(session * 5, 15));
    }
    // One that is there when the program ends is not over.
    let mut client = relay.publish("ann");
    send(&mut client, &media);
    relay.wait_for("ready live/ann/cam");
    relay.terminate();
    let before = playlist(&folder.path().join("live/ann/cam"));
    assert!(!before.end_list);
    let mut relay = Relay::start(folder.path(), &[]);
    relay.take("ann", &dirty_media(5, "relay-five.flv", "0,2,3"));
    let after = relay.playlist("ann");
    assert_eq!(after.media_sequence, before.media_sequence + 3);
    assert_eq!(after.segments[..2], before.segments[3..]);
    assert!(after.segments[2].discontinuity);
    assert_eq!(relay.segments("ann").len(), 15);
}

#[test]
fn sound_or_pictures_alone_are_enough() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), &[]);
    let media = dirty_media(10, "relay-ten.flv", "0,4,8");
    let seen = relay.take("ann", &without(AUDIO, &media));
    assert!(seen.contains("ready live/ann/cam"), "{seen}");
    let segments = relay.segments("ann");
    assert_eq!(segments.len(), 5);
    for segment in &segments {
        assert_pictures(segment);
        assert!(segment.audio.is_empty());
    }
    assert_goes_on(&segments);
    let seen = relay.take("bob", &without(VIDEO, &media));
    assert!(seen.contains("ready live/bob/cam"), "{seen}");
    let segments = relay.segments("bob");
    assert!((5..=6).contains(&segments.len()), "{segments:?}");
    for segment in &segments {
        assert_eq!(segment.streams, ["aac LC 48000 2"]);
    }
    let durations: Vec<f32> = relay
        .playlist("bob")
        .segments
        .iter()
        .map(|s| s.duration)
        .collect();
    assert!(
        durations[..4]
            .iter()
            .all(|duration| (duration - 2.0).abs() < 0.03),
        "{durations:?}"
    );
    for user in ["ann", "bob"] {
        assert_plays(&relay.stream(user));
    }
}

/// When something is seen and heard, of what flashes and beeps together, in seconds.
fn seen_and_heard(file: &Path) -> [Vec<f64>; 2] {
    let output = Command::new(FFMPEG)
        .args(["-nostdin", "-hide_banner", "-i"])
        .arg(file)
        .args(["-vf", "blackdetect=d=0.3:pix_th=0.5"])
        .args(["-af", "silencedetect=noise=-25dB:d=0.3", "-f", "null", "-"])
        .output();
    let text = String::from_utf8(output.unwrap().stderr).unwrap();
    ["black_end:", "silence_end: "].map(|mark| {
        let ends = text.split(mark).skip(1);
        let number = |text: &str| text.split_whitespace().next()?.parse().ok();
        let mut ends: Vec<f64> = ends.filter_map(number).collect();
        ends.sort_by(f64::total_cmp);
        ends
    })
}

#[test]
fn what_is_heard_is_heard_when_it_is_seen() {
    let arguments = "-f lavfi -i color=black:size=160x120:rate=15,drawbox=color=white:t=fill:enable='lt(mod(t\\,2)\\,0.2)' \
         -f lavfi -i aevalsrc='if(lt(mod(t\\,2)\\,0.2)\\,sin(2*PI*1000*t)\\,0)':s=44100 \
         -t 11 -c:v libx264 -preset ultrafast -g 20 -pix_fmt yuv420p -c:a aac -ac 1 -f flv";
    let sent = made_by(FFMPEG, "relay-flashes.flv", &arguments.replace('\'', ""));
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), &[]);
    relay.take("ann", &flv::read_file(&sent));
    let segments = relay.segments("ann");
    let all = folder.path().join("all.ts");
    let bytes = segments
        .iter()
        .flat_map(|segment| std::fs::read(&segment.path).unwrap());
    std::fs::write(&all, bytes.collect::<Vec<u8>>()).unwrap();
    let [seen, heard] = seen_and_heard(&all);
    assert!(seen.len() >= 5, "{seen:?} {heard:?}");
    for (seen, heard) in seen.iter().zip(&heard) {
        // A frame and what a frame of sound is long.
        assert!((seen - heard).abs() < 0.055, "{seen} {heard}");
    }
}

/// NAL units of slices.
fn sent_slices(tags: &[Tag]) -> Vec<Vec<u8>> {
    let mut slices = Vec::new();
    for tag in tags.iter().filter(|tag| tag.is_frame()) {
        let mut rest = &tag.body[5..];
        while let Some((length, after)) = rest.split_first_chunk() {
            let (nal, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            slices.push(nal.to_vec());
            rest = after;
        }
    }
    slices.retain(|nal| matches!(nal[0] & 0x1F, 1..=5));
    slices
}

/// The same of segments, as ffmpeg takes them out.
fn listed_slices(segments: &[Segment]) -> Vec<Vec<u8>> {
    let mut slices = Vec::new();
    for segment in segments {
        let output = Command::new(FFMPEG)
            .args(["-nostdin", "-v", "error", "-i"])
            .arg(&segment.path)
            .args(["-map", "0:v", "-c", "copy", "-f", "h264", "-"])
            .output();
        let bytes = output.unwrap().stdout;
        let is_start = |at: &usize| bytes[*at..].starts_with(&[0, 0, 1]);
        let starts: Vec<usize> = (0..bytes.len()).filter(is_start).collect();
        for (index, start) in starts.iter().enumerate() {
            let end = starts.get(index + 1).copied().unwrap_or(bytes.len());
            let nal = &bytes[start + 3..end];
            // The next start code may have one more zero, which no NAL unit ends with.
            let length = nal.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            slices.push(nal[..length].to_vec());
        }
    }
    slices.retain(|nal| matches!(nal[0] & 0x1F, 1..=5));
    slices
}

#[test]
fn what_is_clean_is_passed_on_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), &["--passthrough"]);
    let media = clean_media(10);
    let seen = relay.take("ann", &media);
    assert!(!seen.contains("cleaned"), "{seen}");
    let segments = relay.segments("ann");
    assert_eq!(segments.len(), 5);
    for segment in &segments {
        assert_eq!(segment.video.len(), 60);
        assert!(segment.video[0].is_key);
        for stream in ["h264 Constrained Baseline", "aac LC 48000 2"] {
            assert!(segment.streams.iter().any(|s| s == stream));
        }
    }
    let (sent, listed) = (sent_slices(&media), listed_slices(&segments));
    assert_eq!(sent.len(), listed.len());
    assert!(sent == listed, "a slice is not as it was sent");
    assert_plays(&relay.stream("ann"));
}

#[test]
fn who_ceases_to_be_clean_is_cleaned_from_there_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), &["--passthrough"]);
    // After four seconds frames come too late, from within a group on.
    let mut media = clean_media(10);
    for tag in &mut media {
        if tag.timestamp > 5000 {
            tag.timestamp += 300;
        }
    }
    let seen = relay.take("ann", &media);
    assert!(seen.contains("and is cleaned"), "{seen}");
    let segments = relay.segments("ann");
    // 10.3 s: of the last segment most is filled up.
    assert_eq!(segments.len(), 6);
    assert!(segments.iter().all(|segment| segment.video.len() == 60));
    assert_clean(&segments[2..]);
    assert_eq!(listed_slices(&segments[..2]), sent_slices(&media)[..120]);
    let list = relay.playlist("ann");
    let marks: Vec<bool> = list.segments.iter().map(|s| s.discontinuity).collect();
    assert_eq!(marks, [false, true, false, false, false]);
    assert_plays(&relay.stream("ann"));
}

#[test]
fn codecs_and_formats_of_all_kinds_are_cleaned() {
    let interlaced = format!(
        "{PICTURE}:rate=50 {NOISE}=22050 -t 4 -vf interlace=scan=tff -flags +ildct+ilme -c:v libx264 \
         -x264opts tff=1 -preset ultrafast -g 25 -c:a libmp3lame -f flv"
    );
    // Of odd width and height.
    let sorenson = "-f lavfi -i testsrc=size=161x121:rate=25 -f lavfi -i sine=sample_rate=44100 -t 4 \
         -c:v flv1 -c:a aac -ac 6 -f flv";
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), &["--passthrough"]);
    for (user, arguments) in [("ann", &interlaced[..]), ("bob", sorenson)] {
        let media = made_by(FFMPEG, &format!("relay-{user}.flv"), arguments);
        let seen = relay.take(user, &flv::read_file(&media));
        assert!(seen.contains("and is cleaned"), "{seen}");
        let segments = relay.segments(user);
        assert!((2..=3).contains(&segments.len()), "{segments:?}");
        assert_clean(&segments);
        assert_plays(&relay.stream(user));
    }
}

#[test]
fn what_is_wrong_with_one_stream_is_its_own_affair() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), &[]);
    let media = dirty_media(10, "relay-ten.flv", "0,4,8");
    let (start, end) = media.split_at(media.len() / 2);
    let mut good = relay.publish("ann");
    send(&mut good, start);
    // Noise where pictures should be; and a file where a directory should be.
    let mut noise = relay.publish("bob");
    send(&mut noise, &synthetic::stream(0, 100));
    std::fs::create_dir_all(folder.path().join("live")).unwrap();
    std::fs::write(folder.path().join("live/carl"), "").unwrap();
    let mut nowhere = relay.publish("carl");
    send(&mut nowhere, &media);
    unpublish(noise);
    unpublish(nowhere);
    let mut seen = relay.wait_for("gone live/");
    seen += &relay.wait_for("gone live/");
    assert!(
        !seen.contains("ready live/bob") && !seen.contains("gone live/ann"),
        "{seen}"
    );
    send(&mut good, end);
    unpublish(good);
    relay.wait_for("gone live/ann/cam");
    let segments = relay.segments("ann");
    assert_eq!(segments.len(), 5);
    assert_clean(&segments);
    assert_goes_on(&segments);
}

#[test]
fn a_stream_is_written_as_soon_as_it_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), &[]);
    assert_eq!(relay.health(), (200, r#"{"status":"ok"}"#.to_owned()));
    // A playlist of somebody else where the stream's should be.
    let theirs = relay.stream("ann").join("index.m3u8");
    std::fs::create_dir_all(relay.stream("ann")).unwrap();
    std::fs::write(&theirs, "theirs").unwrap();
    let mut client = relay.publish("ann");
    let media = clean_media(10);
    send(&mut client, &media);
    relay.wait_for_health(|status, text| {
        status == 503 && text.contains("/live/ann/cam: index.m3u8 is there already")
    });
    assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "theirs");
    std::fs::remove_file(&theirs).unwrap();
    relay.wait_for_health(|status, _| status == 200);
    // The same publisher goes on, and is served from here on.
    let later = media.into_iter().map(|tag| Tag {
        timestamp: tag.timestamp + 10_000,
        ..tag
    });
    send(&mut client, &later.collect::<Vec<_>>());
    unpublish(client);
    let seen = relay.wait_for("gone live/ann/cam");
    assert!(seen.contains("ready live/ann/cam"), "{seen}");
    assert_clean(&relay.segments("ann"));
}

#[test]
fn a_directory_that_can_not_be_written_to_is_named_at_the_start() {
    let output = command(Path::new("/proc")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.starts_with("--directory /proc: it can't be written to"),
        "{said}"
    );
}

/// A relay with a ready stream, of which nobody takes the notification.
fn ignored(folder: &Path, listener: &TcpListener) -> (Relay, RawClient, TcpStream) {
    let secret = folder.join("secret");
    std::fs::write(&secret, "0123456789abcdef").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let secret = secret.to_str().unwrap();
    let options = ["--notify", &url, "--notify-secret-file", secret];
    let mut relay = Relay::start(&folder.join("hls"), &options);
    let mut client = relay.publish("ann");
    send(&mut client, &dirty_media(10, "relay-ten.flv", "0,4,8"));
    relay.wait_for("ready live/ann/cam");
    let (asking, _) = listener.accept().unwrap();
    (relay, client, asking)
}

#[test]
fn the_end_does_not_wait_for_a_receiver_that_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (relay, _client, _asking) = ignored(folder.path(), &listener);
    let start = Instant::now();
    relay.terminate();
    // An attempt takes 10 s, which began shortly before.
    assert!(
        start.elapsed() < Duration::from_millis(9_500),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut relay, _client, _asking) = ignored(folder.path(), &listener);
    relay.signal();
    // The stream has ended, so the first one was heard.
    relay.wait_for("gone live/ann/cam");
    relay.signal();
    assert_eq!(relay.program.wait().code(), Some(1));
}

#[test]
fn names_that_are_no_directories_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::start(folder.path(), &[]);
    for (application, stream) in [("live", ".."), ("live/.ann", "cam"), ("live", "index.m3u8")] {
        let mut client = RawClient::connect(relay.port);
        assert!(
            client.try_publish(application, stream).is_none(),
            "{application}/{stream}"
        );
    }
    let mut client = RawClient::connect(relay.port);
    client.try_publish("live", "cam").unwrap();
    relay.terminate();
}
