// SPDX-License-Identifier: MPL-2.0

//! The publisher's thread delivers while the pipeline keeps up, and hands over to the streaming thread.

mod harness;
mod random;

use std::net::Shutdown;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstrtmp2server::internal::amf0::Value;
use gstrtmp2server::internal::rtmp::command::Command;
use gstrtmp2server::internal::rtmp::control::Control;
use gstrtmp2server::internal::rtmp::message::type_id;

use support::PATIENCE;
use support::flv::{self, Tag};
use support::isolated::is_isolated;
use support::raw::{RawClient, send, try_send, unpublish};
use support::recorder::{Recorder, epoch_of};
use support::resources::resources;
use support::signals::Signals;
use support::synthetic::{audio, delta_frame, keyframe, stream, video_header};
use support::wire::Wire;

use crate::multi::multi_recorder::MultiRecorder;
use harness::{
    CUSTOM, Delivery, Entry, Runner, bodies, coded, custom_event, synchronise, wait_for_removal,
    wait_until,
};

/// Name of the publishers' threads.
const PUBLISHER_THREAD: &str = "rtmp-client";

/// A duration in which a thread that could go on would have.
const MOMENT: Duration = Duration::from_millis(30);

#[test]
fn publishers_thread_pushes_paced_tags_and_the_streaming_thread_all_else() {
    let mut test = Delivery::start("");
    test.deliver_directly();
    for _ in 0..20 {
        test.pass_frame();
    }
    // Other headers start an epoch.
    let mut header = video_header(test.time);
    header.body[6] = 0x4D;
    test.send(&[header]);
    test.start_group();
    test.deliver_directly();
    let log = test.log();
    let direct = log.iter().filter(|entry| entry.runner == Runner::Publisher);
    assert!(direct.clone().count() > 1);
    assert!(direct.clone().all(Entry::is_output), "{log:?}");
    assert_begins_in_order(&log);
    // The status of the new epoch comes before its first buffer, and after the last one before it.
    let buffers = test.recorder.buffers();
    let before = buffers.iter().filter(|buffer| epoch_of(buffer) == 1);
    let mut count = 0;
    let second = log.iter().position(|entry| {
        count += entry.buffers;
        count > before.clone().count()
    });
    let statuses: Vec<usize> = positions(&log, "rtmp2-stream-status");
    let changed = statuses[statuses.len() - 2];
    assert!(changed < second.unwrap() && log[changed].runner == Runner::Streaming);
    assert!(log[..changed].iter().map(|e| e.buffers).sum::<usize>() >= before.count());
    test.finish();
}

/// However many tags arrive together, the status is ACTIVE right after the first frame of an epoch.
#[test]
fn status_follows_the_first_frame_of_a_burst() {
    let mut test = Delivery::start("");
    let mut header = video_header(test.time);
    header.body[6] = 0x4D;
    test.start_group();
    let mut burst = vec![header];
    burst.extend((0..300).map(|_| test.next_frame()));
    test.send(&burst);
    test.wait_for_all();
    wait_until("the status of the burst", || {
        positions(&test.log(), "rtmp2-stream-status").len() >= 4
    });
    let log = test.log();
    let statuses = positions(&log, "rtmp2-stream-status");
    let [.., reconfiguring, active] = statuses[..] else {
        panic!("{log:?}");
    };
    let between = log[reconfiguring..active].iter().map(|entry| entry.buffers);
    // The header and the keyframe.
    assert_eq!(between.sum::<usize>(), 2, "{log:?}");
    test.finish();
}

/// Asserts that nothing comes before the events that announce it.
#[track_caller]
fn assert_begins_in_order(log: &[Entry]) {
    let names = log.iter().map(|entry| entry.name.as_str());
    // Sent at the start, perhaps before the log.
    let names: Vec<&str> = names.filter(|name| *name != "stream-start").collect();
    assert_eq!(names[..3], ["caps", "segment", "buffer"], "{names:?}");
}

fn positions(log: &[Entry], name: &str) -> Vec<usize> {
    let named = log
        .iter()
        .enumerate()
        .filter(|(_, entry)| entry.name == name);
    named.map(|(index, _)| index).collect()
}

fn level(recorder: &Recorder) -> u64 {
    recorder.element.property("current-level-bytes")
}

#[test]
fn push_that_blocks_does_not_stop_reading() {
    const MAX_BYTES: u64 = 100_000;
    let mut test = Delivery::start(&format!("max-bytes={MAX_BYTES}"));
    let signals = Signals::watch(&test.recorder.element);
    test.deliver_directly();
    let push = test.block_push();
    for _ in 0..10 {
        test.send_frame();
    }
    wait_until("the queue fills", || level(&test.recorder) > 1000);
    // Commands and pings are answered.
    synchronise(&mut test.client);
    test.client.control(Control::PingRequest(4711));
    loop {
        let message = test.client.next_message().unwrap();
        let control = Control::read(message.type_id, message.payload.body());
        if control == Some(Control::PingResponse(4711)) {
            break;
        }
    }
    for _ in 0..400 {
        test.send_frame();
    }
    let full = MAX_BYTES - 5000;
    wait_until("the queue is full", || level(&test.recorder) > full);
    assert!(level(&test.recorder) <= MAX_BYTES);
    assert!(
        signals
            .wait_for(0)
            .iter()
            .all(|s| s.name != "publisher-removed")
    );
    drop(push);
    test.finish();
}

#[test]
fn disconnection_is_noticed_while_a_push_blocks() {
    let mut test = Delivery::start("");
    let signals = Signals::watch(&test.recorder.element);
    test.deliver_directly();
    let push = test.block_push();
    for _ in 0..5 {
        test.send_frame();
    }
    test.client.socket.shutdown(Shutdown::Both).unwrap();
    assert_eq!(wait_for_removal(&signals), "closed");
    drop(push);
    test.recorder.finish();
    test.assert_complete();
}

#[test]
fn silent_publisher_times_out_while_a_push_blocks() {
    let mut test = Delivery::start("timeout=1");
    let signals = Signals::watch(&test.recorder.element);
    test.deliver_directly();
    let push = test.block_push();
    test.client.expect_ping();
    assert_eq!(wait_for_removal(&signals), "timeout");
    drop(push);
    test.recorder.finish();
    test.assert_complete();
}

#[test]
fn queue_leaks_while_a_push_blocks() {
    for leaky_type in ["upstream", "downstream"] {
        let mut test = Delivery::start(&format!("leaky-type={leaky_type} max-bytes=30000"));
        test.deliver_directly();
        let push = test.block_push();
        for _ in 0..300 {
            test.send_frame();
        }
        synchronise(&mut test.client);
        let dropped: u64 = test.recorder.stats().get("dropped-queue-full").unwrap();
        assert!(dropped > 0);
        drop(push);
        let got = coded(&test.end());
        let dropped: u64 = test.recorder.stats().get("dropped-queue-full").unwrap();
        let sent = coded(&test.sent);
        assert_eq!(got.len() as u64 + dropped, sent.len() as u64);
        harness::assert_in_order(&sent, &got);
    }
}

#[test]
fn one_thread_more_exists_while_a_push_blocks() {
    if !is_isolated("direct_delivery::one_thread_more_exists_while_a_push_blocks") {
        return;
    }
    // New threads of other names have this one for a moment.
    let threads = || resources().0.get(PUBLISHER_THREAD).copied().unwrap_or(0);
    let mut test = Delivery::start("");
    for _ in 0..3 {
        test.deliver_directly();
        wait_until("one thread reads", || threads() == 1);
        let push = test.block_push();
        test.send_frame();
        wait_until("the queue fills", || level(&test.recorder) > 0);
        wait_until("another thread reads", || threads() == 2);
        // It reads for as long as the push takes, and no other one starts.
        for _ in 0..3 {
            test.send_frame();
            synchronise(&mut test.client);
            wait_until("two threads exist", || threads() == 2);
        }
        drop(push);
        wait_until("the blocked thread ends", || threads() == 1);
    }
    test.end();
    test.assert_complete();
    let Delivery {
        recorder, client, ..
    } = test;
    drop((recorder, client));
    wait_until("all threads end", || threads() == 0);
}

#[test]
fn streaming_thread_takes_over_from_slow_pushes_until_they_have_recovered() {
    let mut test = Delivery::start("");
    test.deliver_directly();
    test.on_push(|| thread::sleep(Duration::from_millis(20)));
    while test.is_push_expected() {
        test.pass_frame();
    }
    let slow = Instant::now();
    let before = test.log().len();
    for _ in 0..10 {
        test.pass_frame();
    }
    if slow.elapsed() < Duration::from_millis(700) {
        let log = test.log();
        let after = &log[before..];
        assert!(
            after.iter().all(|entry| entry.runner == Runner::Streaming),
            "{after:?}"
        );
    }
    test.deliver_directly();
    assert!(slow.elapsed() > Duration::from_millis(700));
    test.finish();
}

#[test]
fn pauses_lose_nothing() {
    let mut test = Delivery::start("");
    test.deliver_directly();
    for _ in 0..20 {
        test.recorder
            .pipeline
            .set_state(gst::State::Paused)
            .unwrap();
        let before = test.recorder.buffers().len();
        for _ in 0..5 {
            test.send_frame();
        }
        synchronise(&mut test.client);
        assert_eq!(test.recorder.buffers().len(), before);
        test.recorder
            .pipeline
            .set_state(gst::State::Playing)
            .unwrap();
        test.wait_for_all();
        test.pass_frame();
    }
    assert_eq!(test.recorder.stats().get("dropped-in-pause"), Ok(0u64));
    test.finish();
}

fn flush(element: &gst::Element) {
    assert!(element.send_event(gst::event::FlushStart::new()));
    assert!(element.send_event(gst::event::FlushStop::new(true)));
}

/// Asserts that the last flush is followed by a segment before the next buffer.
#[track_caller]
fn assert_segment_after_flush(test: &Delivery) {
    let log = test.log();
    let flushed = *positions(&log, "flush-stop").last().unwrap();
    let after = &log[flushed + 1..];
    let segment = after
        .iter()
        .position(|entry| entry.name == "segment")
        .unwrap();
    assert!(
        after[..segment].iter().all(|entry| !entry.is_output()),
        "{after:?}"
    );
}

#[test]
fn segment_follows_a_flush_before_any_buffer() {
    let mut test = Delivery::start("");
    for _ in 0..10 {
        test.deliver_directly();
        flush(&test.recorder.element);
        // Nothing was in a push.
        test.pass_frame();
        test.pass_frame();
        assert_segment_after_flush(&test);
    }
    test.finish();
}

#[test]
fn flushes_while_a_publisher_sends_leave_no_buffer_without_a_segment() {
    let mut test = Delivery::start("");
    test.deliver_directly();
    let element = test.recorder.element.clone();
    let flusher = thread::spawn(move || {
        for index in 0..200 {
            flush(&element);
            thread::sleep(Duration::from_micros(200 * (index % 11)));
        }
    });
    while !flusher.is_finished() {
        test.send_frame();
        thread::sleep(Duration::from_micros(300));
    }
    flusher.join().unwrap();
    test.end();
    let mut has_segment = false;
    for entry in test.log() {
        match entry.name.as_str() {
            "segment" => has_segment = true,
            "flush-stop" => has_segment = false,
            _ if entry.is_output() => assert!(has_segment),
            _ => {}
        }
    }
    harness::assert_in_order(&coded(&test.sent), &coded(&test.recorder.tags()));
}

/// A blocking probe is unblocked by the flush.
#[test]
fn flush_ends_a_push_that_blocks() {
    let mut test = Delivery::start("");
    test.deliver_directly();
    let probe = test.block_pad();
    test.send_frame();
    wait_until("the push blocks", || test.pad().is_blocking());
    test.send_frame();
    assert!(
        test.recorder
            .element
            .send_event(gst::event::FlushStart::new())
    );
    test.pad().remove_probe(probe);
    assert!(
        test.recorder
            .element
            .send_event(gst::event::FlushStop::new(true))
    );
    test.send_frame();
    let last = test.sent.last().cloned().unwrap();
    let got = test.end();
    assert_eq!(got.last().map(|tag| &tag.body), Some(&last.body));
    assert_segment_after_flush(&test);
    harness::assert_in_order(&coded(&test.sent), &coded(&got));
}

#[test]
fn flush_from_within_a_push_does_not_deadlock() {
    let mut test = Delivery::start("");
    for _ in 0..3 {
        test.deliver_directly();
        let element = test.recorder.element.clone();
        let (entered, has_entered) = mpsc::channel();
        test.on_push(move || {
            // Another client is rejected, for which the streaming thread wakes.
            entered.send(()).unwrap();
            thread::sleep(MOMENT);
            assert!(element.send_event(gst::event::FlushStart::new()));
            assert!(element.send_event(gst::event::FlushStop::new(true)));
            assert!(element.send_event(gst::event::FlushStart::new()));
            assert!(element.send_event(gst::event::FlushStop::new(true)));
        });
        test.drop_push_after_hook();
        let port = test.recorder.port();
        let contender = thread::spawn(move || {
            has_entered.recv_timeout(PATIENCE).unwrap();
            let refused = RawClient::connect(port).try_publish("live", "other");
            assert!(refused.is_none());
        });
        while test.is_push_expected() {
            test.send_frame();
            synchronise(&mut test.client);
        }
        contender.join().unwrap();
        test.send_frame();
        let frames = test.sent.clone();
        test.recorder.wait_until("the last frame", |buffers| {
            let last = buffers.last().unwrap().map_readable().unwrap();
            let body = &frames.last().unwrap().body;
            last.windows(body.len()).any(|window| window == body)
        });
    }
    test.end();
    harness::assert_in_order(&coded(&test.sent), &coded(&test.recorder.tags()));
}

#[test]
fn end_of_stream_event_follows_all_that_was_received() {
    for is_blocked in [false, true] {
        let mut test = Delivery::start("keep-listening=true");
        test.deliver_directly();
        let push = is_blocked.then(|| test.block_push());
        for _ in 0..10 {
            test.send_frame();
        }
        synchronise(&mut test.client);
        assert!(test.recorder.element.send_event(gst::event::Eos::new()));
        drop(push);
        test.recorder.finish();
        test.assert_complete();
        assert_eq!(test.log().last().unwrap().name, "eos");
    }
}

#[test]
fn end_of_the_publisher_follows_its_media() {
    for is_blocked in [false, true] {
        let mut test = Delivery::start("");
        test.deliver_directly();
        let push = is_blocked.then(|| test.block_push());
        for _ in 0..10 {
            test.send_frame();
        }
        synchronise(&mut test.client);
        drop(push);
        test.finish();
    }
}

/// A client may leave, or be replaced, as soon as it has its answer.
#[test]
fn an_answer_follows_the_media_before_it_into_the_queue() {
    // So many tags take a while.
    const TAGS: usize = 3000;
    let mut test = Delivery::start("max-bytes=0");
    let probe = test.block_pad();
    test.send_frame();
    wait_until("the push blocks", || test.pad().is_blocking());
    let create_stream = Command::new("createStream", 9.0, vec![Value::Null]);
    let create_stream = Tag::new(type_id::COMMAND_AMF0, 0, create_stream.write());
    let request = Wire::on(3).absolute(&create_stream).concat();
    for _ in 0..50 {
        let tags = vec![audio(test.time, 1); TAGS];
        let tags = tags.iter().flat_map(|tag| Wire::of(tag).absolute(tag));
        let read = [tags.flatten().collect(), request.clone()].concat();
        test.client.send(&read);
        test.client.expect_command("_result");
        let queued = level(&test.recorder);
        thread::sleep(MOMENT);
        assert_eq!(queued, level(&test.recorder));
    }
    test.pad().remove_probe(probe);
}

#[test]
fn replacement_keeps_the_order() {
    for is_blocked in [false, true] {
        let mut test = Delivery::start("keep-listening=true publisher-policy=replace");
        test.deliver_directly();
        let push = is_blocked.then(|| test.block_push());
        for _ in 0..10 {
            test.send_frame();
        }
        synchronise(&mut test.client);
        let mut second = RawClient::publish(test.recorder.port(), "live", "key");
        let sent = stream(0, 10);
        send(&mut second, &sent);
        test.sent.extend(sent);
        synchronise(&mut second);
        drop(push);
        assert!(test.recorder.element.send_event(gst::event::Eos::new()));
        let got = test.recorder.finish();
        assert!(bodies(&coded(&got)) == bodies(&coded(&test.sent)));
    }
}

#[test]
fn drain_ends_the_stream_after_its_media() {
    let mut test = Delivery::start("keep-listening=true drain-timeout=1");
    let signals = Signals::watch(&test.recorder.element);
    test.deliver_directly();
    let push = test.block_push();
    for _ in 0..10 {
        test.send_frame();
    }
    synchronise(&mut test.client);
    test.recorder.element.set_property("drain", true);
    assert_eq!(wait_for_removal(&signals), "drained");
    drop(push);
    test.recorder.finish();
    test.assert_complete();
}

#[test]
fn element_can_be_used_from_within_a_push() {
    let mut test = Delivery::start("keep-listening=true");
    test.deliver_directly();
    let element = test.recorder.element.clone();
    test.on_push(move || {
        let stats: gst::Structure = element.property("stats");
        assert!(stats.has_field("total-bytes") || stats.n_fields() > 0);
        element.set_property("max-bytes", 1_000_000u64);
        element.set_property("timeout", 30_000u32);
        let _: gstrtmp2server::StreamStatus = element.property("stream-status");
        assert!(element.query_position::<gst::ClockTime>().is_some());
        assert!(element.send_event(custom_event(0)));
        let request = gst_video::UpstreamForceKeyUnitEvent::builder().build();
        element.static_pad("src").unwrap().send_event(request);
    });
    while test.is_push_expected() {
        test.pass_frame();
    }
    test.deliver_directly();
    assert_eq!(positions(&test.log(), CUSTOM).len(), 1);
    assert!(test.recorder.element.send_event(gst::event::Eos::new()));
    test.recorder.finish();
    test.assert_complete();
}

#[test]
fn publisher_disconnected_from_within_a_push_ends_after_its_media() {
    let mut test = Delivery::start("");
    let signals = Signals::watch(&test.recorder.element);
    test.deliver_directly();
    let element = test.recorder.element.clone();
    test.on_push(move || element.emit_by_name::<()>("disconnect-publisher", &[]));
    while test.is_push_expected() {
        let frame = test.next_frame();
        if try_send(&mut test.client, std::slice::from_ref(&frame)).is_err() {
            break;
        }
        test.sent.push(frame);
        thread::yield_now();
    }
    let got = test.recorder.finish();
    assert_eq!(wait_for_removal(&signals), "disconnected");
    let got = bodies(&coded(&got));
    assert!(bodies(&coded(&test.sent)).starts_with(&got));
}

#[test]
fn end_of_stream_event_from_within_a_push_ends_the_stream() {
    let mut test = Delivery::start("keep-listening=true");
    test.deliver_directly();
    let element = test.recorder.element.clone();
    test.on_push(move || assert!(element.send_event(gst::event::Eos::new())));
    while test.is_push_expected() {
        let frame = test.next_frame();
        if try_send(&mut test.client, std::slice::from_ref(&frame)).is_err() {
            break;
        }
        test.sent.push(frame);
        thread::yield_now();
    }
    let got = bodies(&coded(&test.recorder.finish()));
    assert!(bodies(&coded(&test.sent)).starts_with(&got));
}

#[test]
fn serialized_event_leaves_before_a_later_tag() {
    let mut test = Delivery::start("");
    for number in 0..50 {
        test.deliver_directly();
        let before = test.log().len();
        assert!(test.recorder.element.send_event(custom_event(number)));
        test.pass_frame();
        let log = test.log();
        assert_eq!(log[before].name, CUSTOM, "{:?}", &log[before..]);
    }
    test.finish();
}

#[test]
fn num_buffers_are_exact() {
    const COUNT: usize = 20;
    let mut test = Delivery::start(&format!("num-buffers={COUNT}"));
    while test.recorder.buffers().len() < COUNT {
        test.pass_frame();
    }
    for _ in 0..3 {
        test.send_frame();
    }
    test.recorder.wait_for(gst::MessageType::Eos);
    let log = test.log();
    assert!(log.iter().all(|entry| entry.runner == Runner::Streaming));
    assert_eq!(log.iter().map(|entry| entry.buffers).sum::<usize>(), COUNT);
    assert_eq!(log.last().unwrap().name, "eos");
}

/// The end of a stream whose push has failed: the error on the bus, and if there is an EOS event.
fn end_by(error: gst::FlowError, is_direct: bool) -> (Option<String>, bool) {
    // The streaming thread pushes where buffers are counted.
    let properties = if is_direct { "" } else { "num-buffers=100000" };
    let mut test = Delivery::start(properties);
    match is_direct {
        true => test.deliver_directly(),
        false => (0..5).for_each(|_| test.pass_frame()),
    }
    let runner = if is_direct {
        Runner::Publisher
    } else {
        Runner::Streaming
    };
    let failed = test.fail_push(runner, error);
    while failed.try_recv().is_err() {
        test.send_frame();
        thread::yield_now();
    }
    let message = match error {
        gst::FlowError::NotLinked | gst::FlowError::Error => {
            let message = test.recorder.wait_for(gst::MessageType::Error);
            let gst::MessageView::Error(error) = message.view() else {
                unreachable!()
            };
            Some(format!("{} {:?}", error.error(), error.details()))
        }
        gst::FlowError::Eos => {
            test.recorder.wait_for(gst::MessageType::Eos);
            None
        }
        _ => {
            wait_until("the task pauses", || {
                test.pad().task_state() == gst::TaskState::Paused
            });
            None
        }
    };
    let ended = || test.log().iter().any(|entry| entry.name == "eos");
    if error != gst::FlowError::Flushing {
        wait_until("the end", ended);
    }
    (message, ended())
}

#[test]
fn failed_pushes_end_the_stream_as_those_of_the_streaming_thread_do() {
    for error in [
        gst::FlowError::NotLinked,
        gst::FlowError::Error,
        gst::FlowError::Eos,
        gst::FlowError::Flushing,
    ] {
        assert_eq!(end_by(error, true), end_by(error, false), "{error:?}");
    }
}

#[test]
fn position_advances() {
    let mut test = Delivery::start("");
    test.deliver_directly();
    let position = |test: &Delivery| test.pad().query_position::<gst::ClockTime>().unwrap();
    let first = position(&test);
    test.time += 1000;
    test.deliver_directly();
    assert!(position(&test) >= first + gst::ClockTime::from_seconds(1));
    test.finish();
}

#[test]
fn element_stops_while_a_push_blocks() {
    let mut test = Delivery::start("");
    test.deliver_directly();
    test.block_pad();
    test.send_frame();
    wait_until("the push blocks", || test.pad().is_blocking());
    for _ in 0..5 {
        test.send_frame();
    }
    test.recorder.pipeline.set_state(gst::State::Null).unwrap();
    while let Ok(Some(_)) = test.client.read_message() {}
    harness::assert_in_order(&coded(&test.sent), &coded(&test.recorder.tags()));
}

/// Also where another thread reads for the publisher meanwhile.
#[test]
fn element_stopped_from_within_a_push_stops() {
    for delay in [Duration::ZERO, Duration::from_millis(300)] {
        let mut test = Delivery::start("");
        test.deliver_directly();
        let (element, pipeline) = (
            test.recorder.element.clone(),
            test.recorder.pipeline.clone(),
        );
        let (stopped, has_stopped) = mpsc::channel();
        test.on_push(move || {
            thread::sleep(delay);
            element.set_locked_state(true);
            stopped.send(element.set_state(gst::State::Null)).unwrap();
            drop((element, pipeline));
        });
        test.send_frame();
        while test.is_push_expected() {
            let frame = test.next_frame();
            let _ = try_send(&mut test.client, &[frame]);
            thread::yield_now();
        }
        assert!(has_stopped.recv_timeout(PATIENCE).unwrap().is_ok());
        while let Ok(Some(_)) = test.client.read_message() {}
    }
}

#[test]
fn pad_of_the_multi_source_that_is_unlinked_drops_and_counts() {
    let recorder = MultiRecorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    let first = stream(0, 4);
    send(&mut client, &first);
    recorder.wait_for_buffers("src_0", 1 + first.len());
    let mut time = 200;
    let mut pass = |client: &mut RawClient, tag: fn(u32) -> Tag| {
        let before = recorder.inspect(|seen| seen.buffers("src_0"));
        let tag = tag(time);
        send(client, std::slice::from_ref(&tag));
        time += 40;
        recorder.wait_for_buffers("src_0", before + 1);
        tag
    };
    let delta: fn(u32) -> Tag = |time| delta_frame(time, 100);
    let mut sent = first.clone();
    sent.extend((0..20).map(|_| pass(&mut client, delta)));
    let pad = recorder.element.static_pad("src_0").unwrap();
    let peer = pad.peer().unwrap();
    // The pad is seen to have a frame just before it is pushed on.
    let bin = peer.parent_element().unwrap().downcast::<gst::Bin>();
    let sink = bin.unwrap().children().remove(0);
    let rendered = || -> u64 {
        let stats: gst::Structure = sink.property("stats");
        stats.get("rendered").unwrap()
    };
    let passed = 1 + sent.len() as u64;
    wait_until("the sink has all frames", || rendered() == passed);
    pad.unlink(&peer).unwrap();
    sent.extend((0..20).map(|_| pass(&mut client, delta)));
    let dropped = || -> u64 {
        let stats: gst::Structure = pad.property("stats");
        stats.get("dropped-not-linked").unwrap()
    };
    wait_until("the drops are counted", || dropped() == 20);
    pad.link(&peer).unwrap();
    sent.push(pass(&mut client, |time| keyframe(time, 300)));
    sent.push(pass(&mut client, |time| audio(time, 30)));
    unpublish(client);
    recorder.wait_for("-src_0");
    assert!(bodies(&flv::media(&recorder.tags("src_0"))) == bodies(&flv::media(&sent)));
}
