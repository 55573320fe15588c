// SPDX-License-Identifier: MPL-2.0

//! Segments of publishers that are not clean.

use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use m3u8_rs::MediaPlaylist;

use super::media::{NOISE, PICTURE, dirty_media, pace, very_dirty, without};
use super::program::Relay;
use super::segments::{assert_clean, assert_goes_on, assert_pictures, assert_plays, playlist};
use support::PATIENCE;
use support::clients::FFMPEG;
use support::flv::{self, AUDIO, Tag, VIDEO};
use support::media::made_by;
use support::raw::{send, unpublish};

#[test]
fn a_dirty_publisher_gets_clean_segments_and_is_ready_in_time() {
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
        // Six seconds of media from the first keyframe on must be enough. The time that the machine
        // takes for them is not what is measured.
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
    // 20 to 21 s, and the last segment is filled up. A busy machine may stretch the pace.
    assert!((10..=14).contains(&segments.len()), "{}", segments.len());
    let list = relay.playlist("ann");
    assert_eq!((list.target_duration, list.segments.len()), (2, 5));
    assert!(list.independent_segments && !list.end_list);
    for segment in &list.segments {
        assert_eq!(segment.duration, 2.0);
        assert!(!segment.discontinuity);
    }
    assert_plays(&relay.stream("ann"));
}

#[test]
fn a_returning_publisher_continues_after_a_discontinuity() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), &[]);
    let media = dirty_media(5, "relay-five.flv", "0,2,3");
    let mut client = relay.publish("ann");
    send(&mut client, &media);
    relay.wait_for("ready live/ann/cam");
    // Cut off and back: the same stream, without a gone notice.
    drop(client);
    let seen = relay.take("ann", &media);
    assert_eq!(seen.matches("ready").count(), 0, "{seen}");
    let first = relay.playlist("ann");
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
    // It has ended its stream, and comes again: another stream in the same list, which has not
    // ended.
    assert!(!first.end_list);
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
fn old_segments_are_deleted_and_the_next_process_continues() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), &[]);
    let media = dirty_media(10, "relay-ten.flv", "0,4,8");
    for session in 1..=4 {
        relay.take("ann", &media);
        let files = relay.segments("ann").len();
        assert_eq!(files, usize::min(session * 5, 15));
    }
    // A stream that is there when the program ends is not over.
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
fn sound_or_pictures_alone_make_segments() {
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

/// Returns the times in seconds at which flashes are seen and beeps are heard.
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

/// Returns a stream with a flash and a beep every two seconds.
fn flashes_and_beeps() -> Vec<Tag> {
    let arguments = "-f lavfi -i color=black:size=160x120:rate=15,drawbox=color=white:t=fill:enable='lt(mod(t\\,2)\\,0.2)' \
         -f lavfi -i aevalsrc='if(lt(mod(t\\,2)\\,0.2)\\,sin(2*PI*1000*t)\\,0)':s=44100 \
         -t 11 -c:v libx264 -preset ultrafast -g 20 -pix_fmt yuv420p -c:a aac -ac 1 -f flv";
    flv::read_file(&made_by(
        FFMPEG,
        "relay-flashes.flv",
        &arguments.replace('\'', ""),
    ))
}

/// Publishes a stream with flashes and beeps, and asserts that all of them come at the same time.
#[track_caller]
fn assert_in_sync(tags: &[Tag]) {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), &[]);
    relay.take("ann", tags);
    let segments = relay.segments("ann");
    let all = folder.path().join("all.ts");
    let bytes = segments
        .iter()
        .flat_map(|segment| std::fs::read(&segment.path).unwrap());
    std::fs::write(&all, bytes.collect::<Vec<u8>>()).unwrap();
    let [seen, heard] = seen_and_heard(&all);
    assert!(
        seen.len() >= 5 && heard.len() >= seen.len(),
        "{seen:?} {heard:?}"
    );
    for (seen, heard) in seen.iter().zip(&heard) {
        // One video frame and the length of one audio frame.
        assert!((seen - heard).abs() < 0.055, "{seen} {heard}");
    }
}

#[test]
fn sound_and_pictures_stay_in_sync() {
    assert_in_sync(&flashes_and_beeps());
}

/// Some encoders and networks delay one of the two more than the other.
#[test]
fn a_constantly_late_track_stays_in_sync() {
    for late in [AUDIO, VIDEO] {
        let mut tags = flashes_and_beeps();
        let arrival = |tag: &Tag| match tag.is_coded() && tag.kind == late {
            true => tag.timestamp + 1_400,
            false => tag.timestamp,
        };
        tags.sort_by_key(arrival);
        assert_in_sync(&tags);
    }
}

#[test]
fn codecs_and_formats_of_all_kinds_are_cleaned() {
    let interlaced = format!(
        "{PICTURE}:rate=50 {NOISE}=22050 -t 4 -vf interlace=scan=tff -flags +ildct+ilme -c:v libx264 \
         -x264opts tff=1 -preset ultrafast -g 25 -c:a libmp3lame -f flv"
    );
    // Odd width and height.
    let sorenson = "-f lavfi -i testsrc=size=161x121:rate=25 -f lavfi -i sine=sample_rate=44100 -t 4 \
         -c:v flv1 -c:a aac -ac 6 -f flv";
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), &["--passthrough"]);
    for (user, arguments) in [("ann", &interlaced[..]), ("bob", sorenson)] {
        let media = made_by(FFMPEG, &format!("relay-{user}.flv"), arguments);
        let seen = relay.take(user, &flv::read_file(&media));
        assert!(seen.contains("it is cleaned"), "{seen}");
        let segments = relay.segments(user);
        assert!((2..=3).contains(&segments.len()), "{segments:?}");
        assert_clean(&segments);
        assert_plays(&relay.stream(user));
    }
}
