// SPDX-License-Identifier: MPL-2.0

//! Media that is dropped is in the statistics and on the bus, for whatever reason it was dropped.

use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstrtmp2server::StreamEvent;
use gstrtmp2server::internal::amf0::Value;
use gstrtmp2server::internal::rtmp::message::type_id;

use support::PATIENCE;
use support::flv::{self, Tag};
use support::raw::{RawClient, send, try_send, unpublish};
use support::recorder::Recorder;
use support::synthetic::{audio, delta_frame, keyframe, metadata, stream, video_header};
use support::wire::Wire;

use crate::multi::multi_recorder::{MultiRecorder, publisher};

const EVENT: &str = "rtmp2-stream-event";

/// Length of an FLV file header, with the back pointer after it.
const FILE_HEADER_LENGTH: usize = 13;

/// Returns the sum of the tags in all events about this reason.
fn reported(events: &[gst::Structure], reason: &str) -> u64 {
    let details = events
        .iter()
        .filter(|event| event.get("event") == Ok(StreamEvent::Dropped))
        .map(|event| event.get::<gst::Structure>("details").unwrap());
    let about = details.filter(|details| details.get("reason") == Ok(reason));
    about.map(|d| d.get::<u64>("tags").unwrap()).sum()
}

/// Asserts that the statistics and the bus agree on how many tags were dropped for a reason.
#[track_caller]
fn assert_dropped(recorder: &Recorder, field: &str, reason: &str) -> u64 {
    let dropped: u64 = recorder.stats().get(field).unwrap();
    assert!(dropped > 0, "{field} is 0");
    let events = recorder.messages(EVENT, 0);
    assert_eq!(reported(&events, reason), dropped, "{events:?}");
    let process: gst::Structure = recorder.stats().get("process").unwrap();
    assert!(process.get::<u64>("dropped").unwrap() >= dropped);
    dropped
}

#[test]
fn frames_before_the_first_keyframe_are_reported() {
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &[video_header(0)]);
    for time in [0, 40, 80] {
        send(&mut client, &[delta_frame(time, 100)]);
    }
    send(&mut client, &[keyframe(120, 100)]);
    unpublish(client);
    recorder.finish();
    let dropped = assert_dropped(&recorder, "dropped-before-keyframe", "before-keyframe");
    assert_eq!(dropped, 3);
}

/// Waits until the bus has reported so many tags for a reason.
#[track_caller]
fn wait_for_report(events: impl Fn() -> Vec<gst::Structure>, reason: &str, tags: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reported = reported(&events(), reason);
        if reported == tags {
            return;
        }
        assert!(reported < tags && Instant::now() < deadline, "{reported}");
        std::thread::yield_now();
    }
}

/// Waits until all that the client has sent is queued. Where it has to wait for space, the first
/// answer comes before that.
fn synchronize(client: &mut RawClient) {
    for transaction in [9.0, 10.0] {
        client.command(0, "createStream", transaction, &[Value::Null]);
        client.expect_command("_result");
    }
}

/// Properties with which nothing happens by the clock while a publisher is silent.
const NO_TIMEOUTS: &str = "stall-timeout=0 timeout=0 keyframe-timeout=0 imbalance-timeout=0";

#[test]
fn drops_before_a_silence_are_reported_within_it() {
    let recorder = Recorder::start(NO_TIMEOUTS);
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    let events = || recorder.messages(EVENT, 0);
    send(&mut client, &[video_header(0)]);
    for frames in 1..=3 {
        // Soon after the report of the one before.
        send(&mut client, &[delta_frame(40 * frames, 100)]);
        wait_for_report(events, "before-keyframe", frames.into());
    }
    for messages in 1..=2 {
        send(&mut client, &[Tag::new(flv::VIDEO, 0, Vec::<u8>::new())]);
        wait_for_report(events, "unusable", messages);
    }
}

#[test]
fn drops_of_one_of_several_streams_before_a_silence_are_reported_within_it() {
    let recorder = MultiRecorder::start(NO_TIMEOUTS);
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    let events = || {
        recorder.inspect(|seen| {
            let events = seen.element_messages(EVENT).into_iter();
            events.map(|(_, event)| event).collect()
        })
    };
    send(&mut client, &[video_header(0)]);
    for frames in 1..=3 {
        send(&mut client, &[delta_frame(40 * frames, 100)]);
        wait_for_report(events, "before-keyframe", frames.into());
    }
}

/// No later tag shows the gap.
#[test]
fn tags_that_a_full_queue_drops_before_a_silence_are_reported_within_it() {
    for leaky_type in ["upstream", "downstream"] {
        let limits = format!("leaky-type={leaky_type} max-bytes=20000");
        let recorder = Recorder::start(&format!("{limits} {NO_TIMEOUTS}"));
        let mut client = RawClient::publish(recorder.port(), "live", "key");
        send(&mut client, &stream(0, 1));
        recorder.wait_until("the first frame", |buffers| buffers.len() >= 5);
        recorder.pipeline.set_state(gst::State::Paused).unwrap();
        send(&mut client, &stream(40, 100));
        synchronize(&mut client);
        let dropped: u64 = recorder.stats().get("dropped-queue-full").unwrap();
        assert!(dropped > 0);
        recorder.pipeline.set_state(gst::State::Playing).unwrap();
        let events = || recorder.messages(EVENT, 0);
        wait_for_report(events, "queue-full", dropped);
    }
}

#[test]
fn descriptions_of_a_publisher_without_media_are_reported() {
    let script = || Tag::new(flv::SCRIPT, 0, *b"\x02\x00\x06onText\x05");
    let tags = [metadata(0), video_header(0), script(), script()];
    let recorder = Recorder::start("keep-listening=true");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &tags);
    unpublish(client);
    wait_for_report(|| recorder.messages(EVENT, 0), "end", 4);
    assert_eq!(assert_dropped(&recorder, "dropped-at-end", "end"), 4);

    let recorder = MultiRecorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &tags);
    unpublish(client);
    let events = || {
        recorder.inspect(|seen| {
            let events = seen.element_messages(EVENT).into_iter();
            events.map(|(_, event)| event).collect()
        })
    };
    wait_for_report(events, "end", 4);
    assert_eq!(recorder.stats().get("dropped-at-end"), Ok(4u64));
}

/// Everything that was received has left the element, or is reported.
#[test]
fn tags_left_when_the_source_is_stopped_are_reported() {
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &stream(0, 1));
    recorder.wait_until("the first frame", |buffers| buffers.len() >= 6);
    recorder.pipeline.set_state(gst::State::Paused).unwrap();
    let rest: Vec<Tag> = (1..100).map(|n| delta_frame(40 * n, 100)).collect();
    send(&mut client, &rest);
    synchronize(&mut client);
    let process = || {
        let process: gst::Structure = recorder.stats().get("process").unwrap();
        process.get::<u64>("dropped").unwrap()
    };
    let before = process();
    recorder.pipeline.set_state(gst::State::Null).unwrap();
    let events = recorder.messages(EVENT, 0);
    assert_eq!(reported(&events, "end"), rest.len() as u64, "{events:?}");
    assert!(process() >= before + rest.len() as u64);
}

/// The output that is refused is counted, and what waits after it.
#[test]
fn tags_left_when_downstream_ends_the_source_are_reported() {
    let (reached, is_reached) = mpsc::channel();
    let (end, may_end) = mpsc::channel::<()>();
    let may_end = Mutex::new(may_end);
    let recorder = Recorder::start_into("", "fakesink name=sink sync=false async=false");
    let sink = recorder.pipeline.by_name("sink").unwrap();
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    let pad = sink.static_pad("sink").unwrap();
    pad.add_probe(kinds, move |_, info| {
        let size = info.buffer().map(|buffer| buffer.size());
        if size != Some(FILE_HEADER_LENGTH) {
            reached.send(()).unwrap();
            may_end.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            info.flow_res = Err(gst::FlowError::Eos);
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    let tags = stream(0, 50);
    send(&mut client, &tags[..5]);
    is_reached.recv_timeout(PATIENCE).unwrap();
    send(&mut client, &tags[5..]);
    synchronize(&mut client);
    end.send(()).unwrap();
    recorder.wait_for(gst::MessageType::Eos);
    recorder.pipeline.set_state(gst::State::Null).unwrap();
    let events = recorder.messages(EVENT, 0);
    assert_eq!(reported(&events, "end"), tags.len() as u64, "{events:?}");
}

#[test]
fn descriptions_without_media_are_reported() {
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    let text = [b'x'; 60_000];
    let long_string = [&[12][..], &(text.len() as u32).to_be_bytes(), &text].concat();
    let body = [&b"\x02\x00\x06onText"[..], &long_string].concat();
    send(&mut client, &vec![Tag::new(flv::SCRIPT, 0, body); 30]);
    unpublish(client);
    recorder.wait_for(gst::MessageType::Eos);
    assert_dropped(&recorder, "dropped-descriptions", "descriptions");
}

/// Also where nothing follows that would show the gap.
#[test]
fn tags_that_a_full_queue_drops_are_reported() {
    for leaky_type in ["upstream", "downstream"] {
        let recorder = Recorder::start(&format!("leaky-type={leaky_type} max-bytes=20000"));
        let mut client = RawClient::publish(recorder.port(), "live", "key");
        send(&mut client, &stream(0, 1));
        recorder.wait_until("the first frame", |buffers| buffers.len() >= 5);
        recorder.pipeline.set_state(gst::State::Paused).unwrap();
        send(&mut client, &stream(40, 100));
        unpublish(client);
        recorder.pipeline.set_state(gst::State::Playing).unwrap();
        recorder.finish();
        assert_dropped(&recorder, "dropped-queue-full", "queue-full");
    }
}

#[test]
fn a_backlog_that_ends_with_its_publisher_is_reported() {
    let recorder = Recorder::start("max-lateness=1000");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    // Eight seconds at once, and no keyframe after them.
    let mut backlog = vec![video_header(0), keyframe(0, 100)];
    backlog.extend((1..200).map(|index| delta_frame(40 * index, 100)));
    send(&mut client, &backlog);
    unpublish(client);
    recorder.finish();
    assert_dropped(&recorder, "dropped-late", "late");
}

#[test]
fn refused_codecs_are_reported() {
    let recorder = Recorder::start("accepted-codecs=mp4a");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &stream(0, 10));
    unpublish(client);
    recorder.finish();
    let dropped: u64 = recorder.stats().get("dropped-codec-refused").unwrap();
    assert_eq!(dropped, 1 + 10);
    let events = recorder.messages(EVENT, 0);
    let is_refusal = |s: &&gst::Structure| s.get("event") == Ok(StreamEvent::CodecRefused);
    assert_eq!(events.iter().filter(is_refusal).count(), 1);
}

#[test]
fn messages_that_no_decoder_can_use_are_reported() {
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &[video_header(0), keyframe(0, 100)]);
    let empty = Tag::new(flv::VIDEO, 40, Vec::<u8>::new());
    send(&mut client, &[empty.clone(), empty, delta_frame(40, 100)]);
    unpublish(client);
    recorder.finish();
    assert_dropped(&recorder, "total-skipped", "unusable");
}

#[test]
fn parts_of_an_aggregate_that_is_cut_short_are_reported() {
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &[video_header(0), keyframe(0, 100)]);
    let parts = [delta_frame(40, 100), delta_frame(80, 100)];
    let mut body: Vec<u8> = parts.iter().flat_map(Tag::to_bytes).collect();
    body.truncate(body.len() - 20);
    let aggregate = Tag::new(type_id::AGGREGATE, 40, body);
    client.send(&Wire::on(6).absolute(&aggregate).concat());
    unpublish(client);
    assert_eq!(flv::media(&recorder.finish()).len(), 3);
    assert_eq!(assert_dropped(&recorder, "total-skipped", "unusable"), 1);
}

/// The client aborts one message, and starts another one within the next.
#[test]
fn messages_that_a_client_leaves_incomplete_are_reported() {
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &[video_header(0), keyframe(0, 1000)]);
    let start = |tag: &Tag| Wire::on(6).absolute(tag)[0].clone();
    client.send(&start(&delta_frame(40, 1000)));
    client.message(2, type_id::ABORT, 0, &6u32.to_be_bytes());
    client.send(&start(&delta_frame(40, 1000)));
    send(&mut client, &[delta_frame(80, 900)]);
    unpublish(client);
    assert_eq!(flv::media(&recorder.finish()).len(), 3);
    assert_eq!(assert_dropped(&recorder, "total-skipped", "unusable"), 2);
}

/// All of it is dropped, once it is too much to hold.
#[test]
fn media_before_publish_that_is_too_much_to_hold_is_reported() {
    let recorder = Recorder::start("");
    let mut client = RawClient::connect(recorder.port());
    client.handshake().connect_application("live");
    client.expect_command("_result");
    client.command(0, "createStream", 2.0, &[Value::Null]);
    client.expect_command("_result");
    let early: Vec<Tag> = (0..150).map(|n| audio(20 * n, 20_000)).collect();
    send(&mut client, &early);
    client.command(1, "publish", 3.0, &[Value::Null, "key".into()]);
    client.expect_command("onStatus");
    send(&mut client, &stream(4000, 1));
    unpublish(client);
    assert_eq!(flv::media(&recorder.finish()).len(), 4);
    let dropped = assert_dropped(&recorder, "total-skipped", "unusable");
    assert_eq!(dropped, early.len() as u64);
}

#[test]
fn tags_of_a_replaced_publisher_are_reported() {
    let recorder = Recorder::start("keep-listening=true publisher-policy=replace");
    let deadline = Instant::now() + PATIENCE;
    // A publisher may be replaced between two of its tags.
    while recorder.stats().get::<u64>("dropped-cut-off") == Ok(0) {
        assert!(Instant::now() < deadline, "nothing was cut off");
        let mut first = RawClient::publish(recorder.port(), "live", "key");
        let sender = std::thread::spawn(move || {
            let mut time = 0;
            while try_send(&mut first, &[audio(time, 2000)]).is_ok() {
                time += 20;
            }
        });
        let second = RawClient::publish(recorder.port(), "live", "key");
        sender.join().unwrap();
        drop(second);
    }
    let expected: u64 = recorder.stats().get("dropped-cut-off").unwrap();
    while reported(&recorder.messages(EVENT, 0), "cut-off") < expected {
        assert!(Instant::now() < deadline, "not all of {expected} reported");
        let mut client = RawClient::publish(recorder.port(), "live", "key");
        send(&mut client, &[audio(0, 20)]);
        unpublish(client);
    }
}

#[test]
fn tags_at_an_unlinked_pad_are_reported() {
    let recorder = MultiRecorder::start_with("", |_, _| {});
    let mut client = publisher(recorder.port(), "key");
    recorder.wait_for("+src_0");
    let pad = recorder.element.static_pad("src_0").unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut time = 200;
    loop {
        let stats: gst::Structure = pad.property("stats");
        let dropped: u64 = stats.get("dropped-not-linked").unwrap();
        let reported = recorder.inspect(|seen| {
            let events = seen.element_messages(EVENT).into_iter();
            let of_pad = events.filter(|(_, event)| event.get("pad") == Ok("src_0"));
            let events: Vec<gst::Structure> = of_pad.map(|(_, event)| event).collect();
            reported(&events, "not-linked")
        });
        if dropped > 0 && reported > 0 {
            assert!(reported <= dropped);
            break;
        }
        assert!(Instant::now() < deadline, "{reported} of {dropped} tags");
        send(&mut client, &[delta_frame(time, 100)]);
        time += 40;
        // The pace of the encoder.
        std::thread::sleep(Duration::from_millis(5));
    }
    let total: u64 = recorder.stats().get("dropped-not-linked").unwrap();
    assert!(total > 0);
}

/// Every tag is in the queue, or in the output that is refused, when downstream ends the stream.
#[test]
fn tags_left_when_downstream_ends_the_stream_are_reported() {
    let (reached, is_reached) = mpsc::channel();
    let (end, may_end) = mpsc::channel::<()>();
    let may_end = Mutex::new(may_end);
    let sink = gst::Pad::builder(gst::PadDirection::Sink)
        .chain_function(move |_, _, buffer| {
            if buffer.size() == FILE_HEADER_LENGTH {
                return Ok(gst::FlowSuccess::Ok);
            }
            reached.send(()).unwrap();
            may_end.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            Err(gst::FlowError::Eos)
        })
        .build();
    sink.set_active(true).unwrap();
    let recorder = MultiRecorder::start_with("", move |_, pad| {
        pad.link(&sink).unwrap();
    });
    let mut client = publisher(recorder.port(), "key");
    is_reached.recv_timeout(PATIENCE).unwrap();
    let rest: Vec<Tag> = (0..100).map(|n| delta_frame(200 + 40 * n, 100)).collect();
    send(&mut client, &rest);
    // The answer comes after all of it was read.
    client.command(0, "createStream", 9.0, &[Value::Null]);
    client.expect_command("_result");
    end.send(()).unwrap();
    recorder.wait_for("-src_0");
    let count = |name: &str| recorder.stats().get::<u64>(name).unwrap();
    assert_eq!(count("dropped-at-end"), count("total-tags"));
    assert!(count("dropped-at-end") > 100);
    let expected = count("dropped-at-end");
    recorder.inspect(|seen| {
        let events = seen.element_messages(EVENT).into_iter();
        let events: Vec<gst::Structure> = events.map(|(_, event)| event).collect();
        assert_eq!(reported(&events, "end"), expected, "{events:?}");
    });
    let process: gst::Structure = recorder.stats().get("process").unwrap();
    assert!(process.get::<u64>("dropped").unwrap() >= expected);
}
