// SPDX-License-Identifier: MPL-2.0

//! Pauses of a pipeline while a publisher sends: they lose nothing, and the stream goes on after
//! them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use gst::prelude::*;

use gstrtmp2server::internal::amf0::Value;
use support::PATIENCE;
use support::flv::{self, Tag};
use support::manual_clock::ManualClock;
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

/// Starts the source at a running time of one second, by a clock that stands still.
fn recorder_at_one_second(properties: &str) -> (Recorder, ManualClock) {
    let recorder = Recorder::start(properties);
    let clock = ManualClock::at(gst::ClockTime::from_seconds(100));
    recorder.pipeline.set_state(gst::State::Ready).unwrap();
    recorder.pipeline.use_clock(Some(&clock));
    recorder.pipeline.set_state(gst::State::Playing).unwrap();
    let (state, ..) = recorder.pipeline.state(gst::ClockTime::NONE);
    state.unwrap();
    clock.advance_to(gst::ClockTime::from_seconds(101));
    (recorder, clock)
}

/// Returns the running time of a time in the output.
fn running_time(recorder: &Recorder, time: gst::ClockTime) -> gst::ClockTime {
    let events = recorder.events();
    let mut segments = events.iter().filter_map(|event| match event.view() {
        gst::EventView::Segment(event) => event.segment().downcast_ref::<gst::ClockTime>().cloned(),
        _ => None,
    });
    let segment = segments.next_back().unwrap();
    segment.to_running_time(time).unwrap()
}

/// Returns the latest running time of coded frames and gaps.
fn latest(recorder: &Recorder) -> gst::ClockTime {
    let buffers = recorder.buffers();
    let coded = buffers.iter().filter(|buffer| {
        let is_header = buffer.flags().contains(gst::BufferFlags::HEADER);
        !is_header && buffer.pts().is_some()
    });
    let coded = coded.map(|buffer| buffer.pts().unwrap());
    let events = recorder.events();
    let gaps = events.iter().filter_map(|event| match event.view() {
        gst::EventView::Gap(gap) => {
            let (start, duration) = gap.get();
            Some(start + duration.unwrap_or_default())
        }
        _ => None,
    });
    running_time(recorder, coded.chain(gaps).max().unwrap())
}

/// The running time stands still in a pause. When a publisher starts in it, its first frame is due when
/// the pipeline plays again: not as much later as the pause was long, and not earlier.
#[test]
fn a_publisher_that_starts_in_a_pause_has_the_running_time_of_the_pause() {
    for is_known in [false, true] {
        let (recorder, clock) = recorder_at_one_second("keep-listening=true");
        if is_known {
            // This one is in the pipeline when the pause begins, and is replaced in the pause.
            let mut client = RawClient::publish(recorder.port(), "live", "key");
            send(&mut client, &[video_header(0), keyframe(0, 100)]);
            recorder.wait_until("the first keyframe", |buffers| buffers.len() >= 3);
            clock.advance_to(gst::ClockTime::from_seconds(102));
            recorder.pipeline.set_state(gst::State::Paused).unwrap();
            send(&mut client, &[delta_frame(40, 100)]);
            unpublish(client);
        } else {
            clock.advance_to(gst::ClockTime::from_seconds(102));
            recorder.pipeline.set_state(gst::State::Paused).unwrap();
        }
        let before = recorder.buffers().len();
        clock.advance_to(gst::ClockTime::from_seconds(120));
        let mut client = RawClient::publish(recorder.port(), "live", "key");
        send(&mut client, &[video_header(0), keyframe(0, 200)]);
        // The answer says that all of it has arrived.
        client.command(1, "createStream", 9.0, &[Value::Null]);
        client.expect_command("_result");
        // The length of the pause by the system's clock.
        thread::sleep(Duration::from_millis(300));
        assert_eq!(recorder.buffers().len(), before);
        recorder.pipeline.set_state(gst::State::Playing).unwrap();
        recorder.wait_until("the second keyframe", |buffers| {
            buffers.iter().any(|buffer| buffer.size() > 200)
        });
        let latest = latest(&recorder);
        let buffers = recorder.buffers();
        let frame = buffers.iter().find(|buffer| buffer.size() > 200).unwrap();
        let expected = gst::ClockTime::from_seconds(2);
        assert!(
            latest <= expected + gst::ClockTime::from_mseconds(100),
            "{latest}"
        );
        let time = running_time(&recorder, frame.pts().unwrap());
        let early = expected.saturating_sub(time);
        assert!(early < gst::ClockTime::from_mseconds(100), "{early}");
    }
}

/// Its source starts within the pause too.
#[test]
fn a_publisher_of_many_that_comes_in_a_pause_has_the_running_time_of_the_pause() {
    let recorder = MultiRecorder::new("", multi_recorder::link_to_fakesink);
    let clock = ManualClock::at(gst::ClockTime::from_seconds(100));
    recorder.pipeline.use_clock(Some(&clock));
    recorder.play();
    let (state, ..) = recorder.pipeline.state(gst::ClockTime::NONE);
    state.unwrap();
    clock.advance_to(gst::ClockTime::from_seconds(102));
    recorder.pipeline.set_state(gst::State::Paused).unwrap();
    let _client = multi_recorder::publisher(recorder.port(), "key");
    recorder.wait_for("added src_0");
    // The length of the pause by the system's clock.
    thread::sleep(Duration::from_millis(300));
    recorder.pipeline.set_state(gst::State::Playing).unwrap();
    recorder.wait_for_buffers("src_0", 4 + 2 * 4);
    let pad = recorder.element.static_pad("src_0").unwrap();
    let event = pad.sticky_event::<gst::event::Segment>(0).unwrap();
    let segment = event.segment().downcast_ref::<gst::ClockTime>().unwrap();
    let base = segment.base().unwrap();
    let early = gst::ClockTime::from_seconds(2).saturating_sub(base);
    assert!(early < gst::ClockTime::from_mseconds(100), "{base}");
    assert!(base <= gst::ClockTime::from_mseconds(2100), "{base}");
}

/// A pause is no time for which the picture has to be frozen, nor a gap.
#[test]
fn nothing_is_due_in_a_pause() {
    let (recorder, clock) =
        recorder_at_one_second("keep-listening=true standby=freeze standby-after=100");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &[video_header(0), keyframe(0, 100)]);
    recorder.wait_until("the first keyframe", |buffers| buffers.len() >= 3);
    recorder.pipeline.set_state(gst::State::Paused).unwrap();
    clock.advance_to(gst::ClockTime::from_seconds(120));
    unpublish(client);
    // The length of the pause by the system's clock.
    thread::sleep(Duration::from_millis(300));
    recorder.pipeline.set_state(gst::State::Playing).unwrap();
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &[video_header(0), keyframe(0, 200)]);
    recorder.wait_until("the second keyframe", |buffers| {
        buffers.iter().any(|buffer| buffer.size() > 200)
    });
    let latest = latest(&recorder);
    assert!(latest < gst::ClockTime::from_seconds(2), "{latest}");
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
