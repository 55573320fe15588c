// SPDX-License-Identifier: MPL-2.0

//! Pauses of a pipeline while a publisher sends: they lose nothing, and the stream goes on after
//! them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use gst::prelude::*;

use support::PATIENCE;
use support::flv::{self, Tag};
use support::raw::{RawClient, send, unpublish};
use support::recorder::Recorder;
use support::synthetic::{audio, audio_header, delta_frame, keyframe, stream, video_header};

use crate::bin::receiver::Receiver;
use crate::multi::multi_recorder::{self, MultiRecorder};

const TOGGLES: usize = 20;
const PAUSES: usize = 400;

/// Pauses and plays, as gst-launch-1.0 and gst-play-1.0 do when the clock is lost.
fn toggle(pipeline: &gst::Pipeline, time_between: Duration) {
    pipeline.set_state(gst::State::Paused).unwrap();
    if !time_between.is_zero() {
        thread::sleep(time_between);
    }
    pipeline.set_state(gst::State::Playing).unwrap();
}

/// Toggles often with 0, 1 and 2 ms between, and calls `check` after each time.
fn toggle_often(pipeline: &gst::Pipeline, mut check: impl FnMut(u32)) {
    let mut count = 0;
    for millis in 0..=2 {
        for _ in 0..TOGGLES {
            toggle(pipeline, Duration::from_millis(millis));
            count += 1;
            check(count);
        }
    }
}

#[test]
fn the_source_streams_after_quick_pauses() {
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &[video_header(0), keyframe(0, 100)]);
    let mut expected = 3;
    recorder.wait_until("the first keyframe", |buffers| buffers.len() >= expected);
    toggle_often(&recorder.pipeline, |count| {
        send(&mut client, &[delta_frame(40 * count, 100)]);
        expected += 1;
        recorder.wait_until("a frame", |buffers| buffers.len() >= expected);
    });
}

#[test]
fn the_multi_source_streams_after_quick_pauses() {
    let recorder = MultiRecorder::start("");
    let mut client = multi_recorder::publisher(recorder.port(), "key");
    let mut expected = 4 + 2 * 4;
    recorder.wait_for_buffers("src_0", expected);
    toggle_often(&recorder.pipeline, |count| {
        send(&mut client, &[delta_frame(200 + 40 * count, 100)]);
        expected += 1;
        recorder.wait_for_buffers("src_0", expected);
    });
}

#[test]
fn the_bin_streams_after_quick_pauses() {
    let receiver = Receiver::start("");
    let mut client = RawClient::publish(receiver.port(), "live", "key");
    send(&mut client, &stream(0, 4));
    receiver.wait_for_packets("video_0", 4);
    let mut expected = 4;
    toggle_often(&receiver.pipeline, |count| {
        send(&mut client, &[delta_frame(200 + 40 * count, 100)]);
        expected += 1;
        receiver.wait_for_packets("video_0", expected);
    });
}

/// Sends until `stop` is set, and returns all tags that were sent.
fn send_until(mut client: RawClient, stop: &AtomicBool) -> Vec<Tag> {
    let mut sent = vec![video_header(0), audio_header(0)];
    send(&mut client, &sent);
    let mut time = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut tags = Vec::new();
        for _ in 0..5 {
            tags.push(match time % 500 {
                0 => keyframe(time, 300),
                _ => delta_frame(time, 100),
            });
            tags.push(audio(time, 50));
            time += 10;
        }
        send(&mut client, &tags);
        sent.extend(tags);
        // The pace of the encoder.
        thread::sleep(Duration::from_millis(1));
    }
    unpublish(client);
    sent
}

fn bodies(tags: &[Tag]) -> Vec<Vec<u8>> {
    tags.iter().map(|tag| tag.body.clone()).collect()
}

#[test]
fn pauses_of_the_source_lose_no_tag() {
    let recorder = Recorder::start("");
    let client = RawClient::publish(recorder.port(), "live", "key");
    let stop = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let sender = scope.spawn(|| send_until(client, &stop));
        for count in 0..PAUSES {
            toggle(&recorder.pipeline, Duration::from_millis(count as u64 % 3));
        }
        stop.store(true, Ordering::Relaxed);
        sender.join().unwrap()
    });
    let got = recorder.finish();
    assert!(bodies(&flv::media(&got)) == bodies(&sent), "not all tags");
    assert_eq!(recorder.stats().get("dropped-in-pause"), Ok(0u64));
}

#[test]
fn pauses_of_the_multi_source_lose_no_tag() {
    let recorder = MultiRecorder::start("");
    let client = RawClient::publish(recorder.port(), "live", "key");
    let stop = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let sender = scope.spawn(|| send_until(client, &stop));
        for count in 0..PAUSES {
            toggle(&recorder.pipeline, Duration::from_millis(count as u64 % 3));
        }
        stop.store(true, Ordering::Relaxed);
        sender.join().unwrap()
    });
    recorder.wait_for("-src_0");
    let got = recorder.tags("src_0");
    assert!(bodies(&flv::media(&got)) == bodies(&sent), "not all tags");
}

#[test]
fn pauses_of_the_bin_lose_no_frame() {
    let receiver = Receiver::start("");
    let client = RawClient::publish(receiver.port(), "live", "key");
    let stop = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let sender = scope.spawn(|| send_until(client, &stop));
        for count in 0..PAUSES {
            toggle(&receiver.pipeline, Duration::from_millis(count as u64 % 3));
        }
        stop.store(true, Ordering::Relaxed);
        sender.join().unwrap()
    });
    let frames = sent.iter().filter(|tag| tag.kind == flv::VIDEO).count() - 1;
    receiver.finish();
    let got = receiver.inspect(|seen| seen.packets("video_0"));
    assert_eq!(got, frames);
}

/// A bin sets the state of its children again whenever its own is set.
#[test]
fn playing_again_keeps_buffer_lists() {
    let recorder = Recorder::start("");
    for _ in 0..3 {
        recorder.element.set_state(gst::State::Playing).unwrap();
    }
    let (sender, receiver) = mpsc::channel();
    let pad = recorder.element.static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER_LIST, move |_, _| {
        let _ = sender.send(());
        gst::PadProbeReturn::Ok
    });
    let client = RawClient::publish(recorder.port(), "live", "key");
    let stop = Arc::new(AtomicBool::new(false));
    let stop_sending = stop.clone();
    let sender = thread::spawn(move || send_until(client, &stop_sending));
    let list = receiver.recv_timeout(PATIENCE);
    stop.store(true, Ordering::Relaxed);
    sender.join().unwrap();
    list.expect("tags leave as lists");
}
