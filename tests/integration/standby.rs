// SPDX-License-Identifier: MPL-2.0

//! Standby: what leaves while no media of a publisher comes.

mod downstream;
mod silence;
mod soak;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstrtmp2server::internal::flv::FILE_HEADER;
use gstrtmp2server::{StreamEvent, StreamStatus};

use support::flv::{self, AUDIO, Tag, VIDEO};
use support::media::small;
use support::raw::{RawClient, unpublish};
use support::recorder::{Recorder, epoch_of};
use support::wire::Wire;

/// Nanoseconds of a frame of the test's media, and the longest step that is no hole.
const FRAME: u64 = 33_333_333;
const HOLE: u64 = FRAME * 11 / 10;

fn bytes(tags: &[Tag]) -> Vec<u8> {
    let tags = tags.iter().filter(|tag| tag.kind != flv::SCRIPT);
    let chunks = tags.flat_map(|tag| Wire::of(tag).absolute(tag).concat());
    chunks.collect()
}

/// The first frames of the file that tests publish, which starts with a keyframe, and of whose
/// configuration the files for standby are too.
fn media(frames: usize) -> Vec<Tag> {
    let mut left = frames;
    let tags = flv::read_file(&small(1)).into_iter();
    let is_in = |tag: &Tag| {
        left -= usize::from(tag.is_frame() && left > 0);
        left > 0
    };
    tags.take_while(is_in).collect()
}

/// The properties of standby that plays the test's own media.
fn of_file(after: u32) -> String {
    let file = small(2);
    format!(
        "keep-listening=true standby=file standby-after={after} standby-location={}",
        file.display()
    )
}

/// The properties of standby that plays video of another size and audio of another rate.
fn of_other_file(after: u32) -> String {
    let file = support::media::made_by(
        support::clients::FFMPEG,
        "standby-other.flv",
        "-f lavfi -i testsrc=size=160x120:rate=30 -f lavfi -i sine=frequency=300:sample_rate=44100 \
         -t 2 -c:v libx264 -preset ultrafast -g 30 -c:a aac -ac 2 -f flv",
    );
    format!(
        "keep-listening=true standby=file standby-after={after} standby-location={}",
        file.display()
    )
}

fn publish(recorder: &Recorder, tags: &[Tag]) -> RawClient {
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    client.send(&bytes(tags));
    client
}

/// Waits for the n-th event of a kind, and returns its details.
#[track_caller]
fn event(recorder: &Recorder, kind: StreamEvent, count: usize) -> gst::Structure {
    let of_kind = |all: Vec<gst::Structure>| -> Vec<gst::Structure> {
        let of_kind = all.into_iter().filter(|e| e.get("event") == Ok(kind));
        of_kind.collect()
    };
    let mut known = count;
    loop {
        let found = of_kind(recorder.messages("rtmp2-stream-event", known));
        if found.len() >= count {
            return found[count - 1].get("details").unwrap();
        }
        known = recorder.messages("rtmp2-stream-event", known).len() + 1;
    }
}

fn started(recorder: &Recorder, count: usize) -> gst::Structure {
    event(recorder, StreamEvent::StandbyStarted, count)
}

fn ended(recorder: &Recorder, count: usize) -> gst::Structure {
    event(recorder, StreamEvent::StandbyEnded, count)
}

/// Returns the decoding times of video that has left.
fn video_times(recorder: &Recorder) -> Vec<u64> {
    let buffers = recorder.buffers();
    let video = buffers.iter().filter(|buffer| {
        let map = buffer.map_readable().unwrap();
        map[0] == VIDEO && !buffer.flags().contains(gst::BufferFlags::HEADER)
    });
    video.map(|b| b.dts().unwrap().nseconds()).collect()
}

#[track_caller]
fn assert_no_hole(times: &[u64], hole: u64) {
    for pair in times.windows(2) {
        let step = pair[1].checked_sub(pair[0]);
        assert!(step.is_some_and(|step| step <= hole), "{pair:?}");
    }
}

/// Waits until media has left up to a time in nanoseconds after the first.
fn wait_for_time(recorder: &Recorder, time: u64) {
    recorder.wait_until("media at that time", |buffers| {
        let last = buffers.last().and_then(|buffer| buffer.dts());
        last.is_some_and(|last| last.nseconds() >= time)
    });
}

#[test]
fn file_plays_before_the_first_publisher_and_between_publishers() {
    let recorder = Recorder::start(&of_file(100));
    wait_for_time(&recorder, 3_000_000_000);
    let status = recorder.element.property::<StreamStatus>("stream-status");
    assert_eq!(status, StreamStatus::Paused);
    assert_eq!(recorder.element.property::<u64>("epoch"), 1);
    let reason = started(&recorder, 1).get::<String>("reason");
    assert_eq!(reason.as_deref(), Ok("no-publisher"));
    for round in 1..=3 {
        let client = publish(&recorder, &media(10));
        let end = ended(&recorder, round);
        assert_eq!(end.get("reconfigures"), Ok(false));
        assert!(end.get::<u64>("time").unwrap() > 0);
        drop(client);
        started(&recorder, round + 1);
    }
    // The configurations are equal.
    assert_eq!(recorder.element.property::<u64>("epoch"), 1);
    assert!(recorder.buffers().iter().all(|b| epoch_of(b) == 1));
    assert_no_hole(&video_times(&recorder), HOLE);
    let events = recorder.events();
    let count = |kind| events.iter().filter(|e| e.type_() == kind).count();
    assert_eq!(count(gst::EventType::Segment), 1);
    assert_eq!(count(gst::EventType::Gap), 0);
    assert_eq!(count(gst::EventType::FlushStart), 0);
}

#[test]
fn frozen_picture_plays_while_a_publisher_is_silent() {
    let recorder = Recorder::start("keep-listening=true standby=freeze standby-after=100");
    let client = publish(&recorder, &media(10));
    assert_eq!(
        started(&recorder, 1).get::<String>("reason").as_deref(),
        Ok("no-media")
    );
    wait_for_time(&recorder, 3_500_000_000);
    let tags = recorder.tags();
    let keyframes = tags
        .iter()
        .filter(|tag| tag.is_frame() && tag.body[0] == 0x17);
    let bodies: Vec<&[u8]> = keyframes.map(|tag| &tag.body[..]).collect();
    assert!(bodies.len() >= 4 && bodies.iter().all(|body| *body == bodies[0]));
    let silence = tags
        .iter()
        .filter(|tag| tag.body[..] == [0xAF, 1, 0, 0, 0, 7]);
    assert!(silence.count() > 100);
    let status = recorder.element.property::<StreamStatus>("stream-status");
    assert_eq!(status, StreamStatus::Paused);
    drop(client);
    // Also once it is gone.
    wait_for_time(&recorder, 5_500_000_000);
    unpublish(publish(&recorder, &media(10)));
    assert_eq!(ended(&recorder, 1).get("reconfigures"), Ok(false));
    let stopped = recorder.element.send_event(gst::event::Eos::new());
    assert!(stopped);
    recorder.wait_for(gst::MessageType::Eos);
}

#[test]
fn frozen_picture_follows_after_media_that_can_not_be_continued() {
    let properties = "keep-listening=true standby=freeze standby-after=100 stall-timeout=0";
    let recorder = Recorder::start(properties);
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    // FLAC alone can't be continued.
    let head = [&b"\x90fLaCfLaC\x80\0\0\x22"[..], &[0; 34]].concat();
    let frame = |time| Tag::new(AUDIO, time, &b"\x91fLaC123"[..]);
    client.send(&bytes(&[Tag::new(AUDIO, 0, head), frame(0), frame(20)]));
    wait_for_time(&recorder, 20_000_000);
    let bus = recorder.pipeline.bus().unwrap();
    let error = bus.timed_pop_filtered(
        gst::ClockTime::from_mseconds(400),
        &[gst::MessageType::Error],
    );
    assert!(error.is_none(), "{error:?}");
    let events = recorder.messages("rtmp2-stream-event", 1);
    let is_standby = |e: &gst::Structure| e.get("event") == Ok(StreamEvent::StandbyStarted);
    assert!(!events.iter().any(is_standby), "{events:?}");
    // The publisher's thread delivers its video, while the streaming thread has nothing to wait for.
    let mut video = media(20);
    video.retain(|tag| tag.kind == VIDEO);
    client.send(&bytes(&video));
    started(&recorder, 1);
}

#[test]
fn latency_has_the_time_after_which_standby_begins() {
    support::init();
    for (properties, expected) in [
        ("latency=50 standby-after=700", 50),
        ("latency=50 standby-after=700 standby=freeze", 750),
        ("latency=50 standby-after=0 standby=freeze", 50),
        ("latency=50 standby=freeze delivery-interval=100", 1150),
    ] {
        for element in ["rtmp2serversrc", "rtmp2multiserversrc"] {
            let text = format!("{element} port=0 {properties}");
            let element = gst::parse::launch(&text).unwrap();
            element.set_state(gst::State::Playing).unwrap();
            let mut query = gst::query::Latency::new();
            assert!(element.query(&mut query), "{text}");
            let (is_live, latency, _) = query.result();
            let expected = gst::ClockTime::from_mseconds(expected);
            assert_eq!((is_live, latency), (true, expected), "{text}");
            element.set_state(gst::State::Null).unwrap();
        }
    }
}

#[test]
fn media_that_is_collected_starts_no_standby() {
    let text = of_file(50);
    let recorder = Recorder::start(&format!("{text} delivery-interval=400"));
    started(&recorder, 1);
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    let begun = Instant::now();
    for tag in &media(80) {
        let due = Duration::from_millis(tag.timestamp.into());
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        client.send(&bytes(std::slice::from_ref(tag)));
    }
    unpublish(client);
    started(&recorder, 2);
    // One time before the publisher, and one time after it.
    let events = recorder.messages("rtmp2-stream-event", 1);
    let of_kind = |kind| events.iter().filter(|e| e.get("event") == Ok(kind)).count();
    assert_eq!(of_kind(StreamEvent::StandbyEnded), 1);
}

#[test]
fn stream_ends_with_its_publisher_unless_the_element_keeps_listening() {
    let text = of_file(100).replace("keep-listening=true", "keep-listening=false");
    let recorder = Recorder::start(&text);
    started(&recorder, 1);
    unpublish(publish(&recorder, &media(10)));
    recorder.wait_for(gst::MessageType::Eos);
    let status = recorder.element.property::<StreamStatus>("stream-status");
    assert_eq!(status, StreamStatus::Stopped);
}

#[test]
fn late_media_of_a_stalled_publisher_is_skipped_and_counted() {
    let recorder = Recorder::start(&of_file(200));
    let tags = flv::read_file(&small(4));
    let keyframe = |from: u32| {
        let mut frames = tags.iter();
        frames.position(|t| t.is_frame() && t.body[0] == 0x17 && t.timestamp >= from)
    };
    let (second, third) = (keyframe(900).unwrap(), keyframe(1900).unwrap());
    let mut client = publish(&recorder, &tags[..second]);
    // The first one was of nobody, the second one is of this publisher.
    started(&recorder, 2);
    wait_for_time(&recorder, 4_000_000_000);
    client.send(&bytes(&tags[second..third + 20]));
    ended(&recorder, 2);
    let stats = recorder.stats();
    let late: u64 = stats.get("dropped-late").unwrap();
    assert!(late >= 30, "{stats}");
    let dropped = event(&recorder, StreamEvent::Dropped, 1);
    assert_eq!(dropped.get::<String>("reason").as_deref(), Ok("late"));
    assert_no_hole(&video_times(&recorder), HOLE);
}

#[test]
fn file_in_another_codec_is_told_once_and_counts_epochs() {
    let file = support::media::made_by(
        support::clients::FFMPEG,
        "standby-flv1.flv",
        "-f lavfi -i testsrc=size=160x120:rate=30 -t 1 -c:v flv -g 10 -f flv",
    );
    let text = format!(
        "keep-listening=true standby=file standby-after=100 standby-location={}",
        file.display()
    );
    let recorder = Recorder::start(&text);
    for round in 1..=3 {
        started(&recorder, round);
        drop(publish(&recorder, &media(10)));
        assert_eq!(ended(&recorder, round).get("reconfigures"), Ok(true));
    }
    started(&recorder, 4);
    assert_eq!(recorder.element.property::<u64>("epoch"), 7);
    let bus = recorder.pipeline.bus().unwrap();
    let mut warnings = Vec::new();
    while let Some(message) = bus.pop_filtered(&[gst::MessageType::Warning]) {
        if let gst::MessageView::Warning(warning) = message.view() {
            warnings.push(warning.error().to_string());
        }
    }
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("flv1") && warnings[0].contains("avc1"));
    assert!(warnings[1].contains("has no audio"), "{warnings:?}");
}

#[test]
fn unusable_files_are_errors_at_the_start_that_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let with = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        format!("standby=file standby-location={}", path.display())
    };
    let frame = Tag::new(VIDEO, 0, [0x27, 1, 0, 0, 0, 9]).to_bytes();
    let keyframe = Tag::new(VIDEO, 0, [0x17, 1, 0, 0, 0, 9]).to_bytes();
    let cases = [
        ("standby=file".to_owned(), "set standby-location"),
        (
            "standby-location=/nowhere.flv".to_owned(),
            "standby is none",
        ),
        (
            "standby=freeze standby-location=/nowhere.flv".to_owned(),
            "standby is freeze",
        ),
        (
            "standby=file standby-location=/nowhere.flv".to_owned(),
            "No such file",
        ),
        (
            "standby=file standby-location=/tmp".to_owned(),
            "not a file",
        ),
        (with("text.flv", b"no video"), "it is no FLV file"),
        (with("empty.flv", b""), "it is no FLV file"),
        (with("header.flv", &FILE_HEADER), "neither audio nor video"),
        (
            with("headless.flv", &[&FILE_HEADER[..], &keyframe].concat()),
            "has no sequence header",
        ),
        (
            with("frames.flv", &[&FILE_HEADER[..], &frame].concat()),
            "no keyframe",
        ),
    ];
    for (properties, reason) in cases {
        let (_, text) = Recorder::refusal(&properties);
        assert!(text.contains(reason), "{properties}: {text}");
        support::init();
        let text = format!("rtmp2multiserversrc port=0 {properties}");
        let element = gst::parse::launch(&text).unwrap();
        assert!(element.set_state(gst::State::Playing).is_err(), "{text}");
        element.set_state(gst::State::Null).unwrap();
    }
}

/// Returns the times of buffers at a pad of the pipeline.
fn times_at(pipeline: &gst::Pipeline, element: &str, pad: &str) -> Arc<Mutex<Vec<u64>>> {
    let times: Arc<Mutex<Vec<u64>>> = Arc::default();
    let kept = times.clone();
    let pad = pipeline.by_name(element).unwrap().static_pad(pad).unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &info.data {
            let time = buffer.pts().unwrap().nseconds();
            kept.lock().unwrap().push(time);
        }
        gst::PadProbeReturn::Ok
    });
    times
}

#[test]
fn streams_of_many_go_on_while_their_publishers_are_silent() {
    support::init();
    let text = format!(
        "rtmp2multiserversrc name=src port=0 resume-timeout=600000 {}",
        of_file(100).replace("keep-listening=true", "")
    );
    let pipeline = gst::Pipeline::new();
    let element = gst::parse::launch(&text).unwrap();
    pipeline.add(&element).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    element.connect_pad_added(move |element, pad| {
        let bin = element.parent().and_downcast::<gst::Pipeline>().unwrap();
        let sink = gst::ElementFactory::make("fakesink").property("sync", false);
        let sink = sink.property("async", false).build().unwrap();
        bin.add(&sink).unwrap();
        sink.sync_state_with_parent().unwrap();
        let sender = sender.clone();
        let sink_pad = sink.static_pad("sink").unwrap();
        sink_pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(gst::PadProbeData::Buffer(buffer)) = &info.data {
                let _ = sender.send(buffer.dts().unwrap().nseconds());
            }
            gst::PadProbeReturn::Ok
        });
        pad.link(&sink_pad).unwrap();
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let port = element.property::<u32>("current-port") as u16;
    let mut client = RawClient::publish(port, "live", "key");
    client.send(&bytes(&media(10)));
    // It has sent a third of a second, and the stream goes on, also without a connection.
    let wait_for = |time: u64| {
        let mut all = std::iter::from_fn(|| receiver.recv_timeout(support::PATIENCE).ok());
        assert!(all.any(|dts| dts >= time));
    };
    wait_for(1_500_000_000);
    drop(client);
    wait_for(3_000_000_000);
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn bin_decodes_a_file_before_the_first_publisher() {
    support::init();
    let text = format!(
        "rtmp2serverbin name=s port=0 {} s.video_0 ! queue ! h264parse ! avdec_h264 ! \
         fakesink name=video s.audio_0 ! queue ! aacparse ! avdec_aac ! fakesink name=audio",
        of_file(100)
    );
    let pipeline = gst::parse::launch(&text).unwrap();
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    let times = times_at(&pipeline, "video", "sink");
    pipeline.set_state(gst::State::Playing).unwrap();
    // Both sinks have something to show.
    let patience = gst::ClockTime::try_from(support::PATIENCE).unwrap();
    let bus = pipeline.bus().unwrap();
    let kinds = [gst::MessageType::AsyncDone, gst::MessageType::Error];
    let message = bus.timed_pop_filtered(patience, &kinds).unwrap();
    assert_eq!(message.type_(), gst::MessageType::AsyncDone, "{message:?}");
    assert!(!times.lock().unwrap().is_empty());
    pipeline.set_state(gst::State::Null).unwrap();
}

/// Asserts that a file decodes without errors.
#[track_caller]
fn assert_decodes(file: &Path) {
    let output = std::process::Command::new("ffprobe")
        .args("-v error -count_frames -show_entries stream=nb_read_frames -of csv=p=0".split(' '))
        .arg(file)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    let counts = text
        .split_whitespace()
        .filter_map(|line| line.trim_matches(',').parse().ok());
    let counts: Vec<u64> = counts.collect();
    assert!(
        counts.len() >= 2 && counts.iter().all(|count| *count > 60),
        "{text}"
    );
}
