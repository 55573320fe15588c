// SPDX-License-Identifier: MPL-2.0

//! The inputs of tests/data/cases, published in real time and at once.

use std::path::Path;
use std::time::{Duration, Instant};

use gstrtmp2server::{StreamEvent, StreamStatus};

use support::PATIENCE;
use support::flv::{self, AUDIO, Tag, VIDEO, read_file};
use support::raw::{RawClient, send};
use support::recorder::Recorder;

fn case(name: &str) -> Vec<Tag> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cases");
    read_file(&folder.join(name))
}

/// The pace at which tags are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    AtOnce,
    /// By timestamps that count from the track's first one, four times as fast as in real time.
    Live,
}

const PACES: [Pace; 2] = [Pace::AtOnce, Pace::Live];
const SPEED: u32 = 4;

fn publish(client: &mut RawClient, tags: &[Tag], pace: Pace) {
    let start = Instant::now();
    let first = |kind| {
        let mut coded = tags.iter().filter(|tag| tag.kind == kind && tag.is_coded());
        coded.next().map_or(0, |tag| tag.timestamp)
    };
    let origins = [(AUDIO, first(AUDIO)), (VIDEO, first(VIDEO))];
    for tag in tags {
        if pace == Pace::Live && tag.is_coded() {
            let (_, origin) = origins.iter().find(|(kind, _)| *kind == tag.kind).unwrap();
            let due = Duration::from_millis(u64::from(tag.timestamp - origin)) / SPEED;
            // The pace of a live publisher is under test. No result depends on its precision.
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
        send(client, std::slice::from_ref(tag));
    }
}

fn events(recorder: &Recorder, wanted: StreamEvent) -> Vec<gst::Structure> {
    let all = recorder.messages("rtmp2-stream-event", 0);
    let of_kind = all.iter().filter(|s| s.get("event") == Ok(wanted));
    of_kind.map(|s| s.get("details").unwrap()).collect()
}

fn coded(tags: &[Tag], kind: u8) -> Vec<Tag> {
    let of_kind = tags.iter().filter(|tag| tag.kind == kind && tag.is_coded());
    of_kind.cloned().collect()
}

/// Returns true if a tag of H.264 has an IDR slice.
fn has_idr(tag: &Tag) -> bool {
    let mut rest = &tag.body[5..];
    while let [a, b, c, d, first, ..] = *rest {
        if first & 0x1F == 5 {
            return true;
        }
        rest = &rest[4 + u32::from_be_bytes([a, b, c, d]) as usize..];
    }
    false
}

#[test]
fn keyframes_flagged_as_inter_start_the_stream() {
    let tags = case("01-keyframes-flagged-inter.flv");
    for pace in PACES {
        for properties in [
            "",
            "max-lateness=60000",
            "leaky-type=downstream max-time=60000000000",
        ] {
            let recorder = Recorder::start(properties);
            let mut client = RawClient::publish(recorder.port(), "live", "key");
            publish(&mut client, &tags, pace);
            drop(client);
            let output = recorder.finish();
            for kind in [AUDIO, VIDEO] {
                let (sent, left) = (coded(&tags, kind), coded(&output, kind));
                assert_eq!(left.len(), sent.len(), "{pace:?}, {properties}, {kind}");
                assert!(left.iter().zip(&sent).all(|(a, b)| a.body == b.body));
            }
            let starts: Vec<bool> = recorder
                .buffers()
                .iter()
                .filter(|buffer| buffer.map_readable().unwrap()[0] == VIDEO)
                .filter(|buffer| !buffer.flags().contains(gst::BufferFlags::HEADER))
                .map(|buffer| !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT))
                .collect();
            let idrs: Vec<bool> = coded(&output, VIDEO).iter().map(has_idr).collect();
            assert!(starts[0] && starts.iter().filter(|start| **start).count() > 1);
            assert_eq!(starts, idrs);
        }
    }
}

#[test]
fn audio_leaves_where_announced_video_never_comes() {
    let tags = case("02-video-header-then-audio-only.flv");
    for pace in PACES {
        let recorder = Recorder::start("imbalance-timeout=500");
        let mut client = RawClient::publish(recorder.port(), "live", "key");
        let start = Instant::now();
        publish(&mut client, &tags, pace);
        let count = coded(&tags, AUDIO).len();
        // The connection stays open, so that only time can end the wait.
        recorder.wait_until("audio", |buffers| buffers.len() >= 4 + count);
        assert!(start.elapsed() < PATIENCE / 2);
        // Asked twice, started, and then active.
        let status = recorder.messages("rtmp2-stream-status", 4).remove(3);
        assert_eq!(status.get("stream-status"), Ok(StreamStatus::Active));
        assert_eq!(coded(&recorder.tags(), AUDIO).len(), count);
        assert!(events(&recorder, StreamEvent::NoKeyframe).is_empty());
        // Video joins from a keyframe.
        let video: Vec<Tag> = case("07-audio-video-in-step.flv")
            .into_iter()
            .filter(|tag| tag.kind == VIDEO && tag.is_coded())
            .map(|tag| Tag::new(VIDEO, tag.timestamp + 7000, tag.body))
            .collect();
        send(&mut client, &video[1..]);
        drop(client);
        let left = coded(&recorder.finish(), VIDEO);
        let keyframe = video[1..]
            .iter()
            .position(|tag| tag.body[0] == 0x17)
            .unwrap();
        assert_eq!(left.len(), video.len() - 1 - keyframe, "{pace:?}");
        assert_eq!(left[0].body, video[1 + keyframe].body);
    }
}

#[test]
fn media_without_any_keyframe_leaves_after_the_timeout() {
    let recorder = Recorder::start("keyframe-timeout=500");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    let is_start = |tag: &Tag| tag.kind == VIDEO && tag.body[0] == 0x17 && tag.is_coded();
    let tags: Vec<Tag> = case("07-audio-video-in-step.flv")
        .into_iter()
        .filter(|tag| !is_start(tag))
        .collect();
    publish(&mut client, &tags, Pace::Live);
    drop(client);
    let output = recorder.finish();
    assert_eq!(coded(&output, AUDIO).len(), coded(&tags, AUDIO).len());
    let dropped: u64 = recorder.stats().get("dropped-before-keyframe").unwrap();
    let left = coded(&output, VIDEO).len();
    assert!(left > 0 && dropped > 0, "{left}, {dropped}");
    assert_eq!(left as u64 + dropped, coded(&tags, VIDEO).len() as u64);
    let [details] = &events(&recorder, StreamEvent::NoKeyframe)[..] else {
        panic!("not one event");
    };
    assert!(details.get::<u64>("waited").unwrap() >= 500_000_000);
    // Asked twice, started, and then active.
    let status = recorder.messages("rtmp2-stream-status", 4).remove(3);
    assert_eq!(status.get("stream-status"), Ok(StreamStatus::Active));
    assert_eq!(flv::parse(&recorder.bytes()).unwrap().len(), output.len());
}

#[test]
fn tracks_with_other_origins_are_brought_together() {
    let in_step = case("07-audio-video-in-step.flv");
    assert_eq!(in_step.len(), case("08-video-5h-ahead-of-audio.flv").len());
    let cases = [
        (VIDEO, 1000, Pace::Live),
        (VIDEO, 18_000_000, Pace::Live),
        (VIDEO, 18_000_000, Pace::AtOnce),
        (AUDIO, 1000, Pace::AtOnce),
        (AUDIO, 300_000_000, Pace::Live),
    ];
    for (ahead, offset, pace) in cases {
        let tags: Vec<Tag> = in_step
            .iter()
            .map(|tag| {
                let is_ahead = tag.kind == ahead && tag.is_coded();
                let timestamp = tag.timestamp + if is_ahead { offset } else { 0 };
                Tag::new(tag.kind, timestamp, tag.body.clone())
            })
            .collect();
        let recorder = Recorder::start("");
        let mut client = RawClient::publish(recorder.port(), "live", "key");
        publish(&mut client, &tags, pace);
        drop(client);
        let output = recorder.finish();
        // Distances between the times that left and the times in step.
        let distances = |kind| -> Vec<i64> {
            let (sent, left) = (coded(&in_step, kind), coded(&output, kind));
            assert_eq!(left.len(), sent.len(), "{kind} {offset} {pace:?}");
            let times = left.iter().zip(&sent);
            times
                .map(|(a, b)| i64::from(a.timestamp) - i64::from(b.timestamp))
                .collect()
        };
        let (audio, video) = (distances(AUDIO), distances(VIDEO));
        assert!(
            audio.iter().all(|distance| *distance == audio[0]),
            "{audio:?}"
        );
        assert!(
            video.iter().all(|distance| *distance == video[0]),
            "{video:?}"
        );
        let skew = (audio[0] - video[0]).abs();
        assert!(
            skew <= 200,
            "{kind} ahead by {offset}, {pace:?}: {skew}",
            kind = ahead
        );
        assert_eq!(events(&recorder, StreamEvent::TimestampJump).len(), 1);
        assert_eq!(recorder.stats().get("timestamp-jumps"), Ok(1u64));
    }
}
