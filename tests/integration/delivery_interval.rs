// SPDX-License-Identifier: MPL-2.0

//! Media that is collected for `delivery-interval`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gst::prelude::*;

use support::flv::{self, Tag};
use support::raw::{self, RawClient};
use support::recorder::Recorder;

const PACE: Duration = Duration::from_millis(10);
const FRAMES: u32 = 150;

fn header() -> Tag {
    video(0, &[0x17, 0, 0, 0, 0, 1, 0x42, 0xC0, 0x1E, 0xFF, 0xE0, 0])
}

fn video(timestamp: u32, body: &[u8]) -> Tag {
    Tag {
        kind: flv::VIDEO,
        timestamp,
        body: body.to_vec(),
    }
}

fn frame(index: u32) -> Tag {
    let start: &[u8] = if index == 0 {
        &[0x17, 1, 0, 0, 0]
    } else {
        &[0x27, 1, 0, 0, 0]
    };
    let body = [start, &index.to_be_bytes()].concat();
    video(index * PACE.as_millis() as u32, &body)
}

/// Counts the pushes of a source.
fn count_pushes(recorder: &Recorder) -> Arc<AtomicU64> {
    let pushes = Arc::new(AtomicU64::new(0));
    let counter = pushes.clone();
    let pad = recorder.element.static_pad("src").unwrap();
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    pad.add_probe(kinds, move |_, _| {
        counter.fetch_add(1, Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
    pushes
}

/// Sends frames at their pace, and returns the number of pushes for them. Everything arrives in order.
fn pushes_of(properties: &str) -> u64 {
    let recorder = Recorder::start(properties);
    let pushes = count_pushes(&recorder);
    let mut client = RawClient::publish(recorder.port(), "live", "camera1");
    raw::send(&mut client, &[header()]);
    for index in 0..FRAMES {
        raw::send(&mut client, &[frame(index)]);
        // The pace of the publisher.
        thread::sleep(PACE);
    }
    raw::unpublish(client);
    let tags = recorder.finish();
    let sent: Vec<Tag> = [header()]
        .into_iter()
        .chain((0..FRAMES).map(frame))
        .collect();
    let bodies =
        |tags: &[Tag]| -> Vec<Vec<u8>> { tags.iter().map(|tag| tag.body.clone()).collect() };
    assert_eq!(bodies(&tags), bodies(&sent));
    pushes.load(Ordering::Relaxed)
}

#[test]
fn many_frames_are_delivered_at_once() {
    let at_once = pushes_of("");
    let collected = pushes_of("delivery-interval=100");
    // 150 frames in at least 1.5 s: about 15 pushes, and some at the start.
    assert!(collected < 40, "{collected} pushes of {FRAMES} frames");
    assert!(at_once > 2 * collected, "{at_once} pushes without");
}

#[test]
fn a_publisher_that_sends_much_is_not_slowed_down() {
    const ROUNDS: u32 = 10;
    const FRAMES_A_ROUND: u32 = 200;
    // What does not fill the socket may be left for the end of the interval.
    const MAX_LEFT: usize = 50;
    let large = |index: u32| {
        let mut tag = frame(index);
        tag.body.resize(1000, 7);
        tag
    };
    let mut sent = vec![header(), frame(0)];
    let recorder = Recorder::start("delivery-interval=1000");
    let mut client = RawClient::publish(recorder.port(), "live", "camera1");
    raw::send(&mut client, &sent);
    let start = Instant::now();
    for round in 0..ROUNDS {
        let first = 1 + round * FRAMES_A_ROUND;
        let frames: Vec<Tag> = (first..first + FRAMES_A_ROUND).map(large).collect();
        raw::send(&mut client, &frames);
        sent.extend(frames);
        let expected = sent.len() - MAX_LEFT;
        recorder.wait_until("the frames", |buffers| buffers.len() >= expected);
    }
    // Each round takes milliseconds, and would take a second.
    assert!(start.elapsed() < ROUNDS * Duration::from_millis(500));
    raw::unpublish(client);
    assert_eq!(recorder.finish(), sent);
}

/// Publishes and leaves. Reads would wait for a second each, but for the keyframe and the end.
fn publish_one_keyframe() {
    let recorder = Recorder::start("delivery-interval=1000 resume-timeout=0");
    let mut client = RawClient::publish(recorder.port(), "live", "camera1");
    raw::send(&mut client, &[header(), frame(1), frame(0)]);
    recorder.wait_until("the keyframe", |buffers| {
        let mut flags = buffers.iter().map(|buffer| buffer.flags());
        flags
            .any(|flags| !flags.intersects(gst::BufferFlags::DELTA_UNIT | gst::BufferFlags::HEADER))
    });
    raw::send(&mut client, &[frame(30)]);
    drop(client);
    assert_eq!(recorder.finish().last(), Some(&frame(30)));
}

#[test]
fn first_keyframe_and_end_do_not_wait() {
    const ROUNDS: u32 = 10;
    let start = Instant::now();
    (0..ROUNDS).for_each(|_| publish_one_keyframe());
    // Each of them takes milliseconds, and would take a second or two.
    assert!(start.elapsed() < ROUNDS * Duration::from_secs(1));
}

#[test]
fn interval_is_part_of_the_latency() {
    let recorder = Recorder::start("latency=200 delivery-interval=150");
    let latency = || {
        let mut query = gst::query::Latency::new();
        assert!(recorder.element.query(&mut query));
        query.result().1.mseconds()
    };
    assert_eq!(latency(), 350);
    recorder.element.set_property("delivery-interval", 0u32);
    recorder.wait_for(gst::MessageType::Latency);
    assert_eq!(latency(), 200);
}
