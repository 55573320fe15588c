// SPDX-License-Identifier: MPL-2.0

//! Connection state, stream status and epoch, and their course across the loss of a publisher.

use std::time::{Duration, Instant};

use gst::prelude::*;
use gstrtmp2server::ConnectionState::{
    self, Authenticating, Disconnected, Negotiating, Recovering, SocketConnected, Streaming,
};
use gstrtmp2server::StreamEvent;
use gstrtmp2server::StreamStatus::{self, Active, Paused, Reconfiguring, Stopped};
use gstrtmp2server::internal::amf0::Value;

use support::clients::{FFMPEG, publish};
use support::flv::{self, Tag};
use support::media::small;
use support::raw::{RawClient, send, unpublish};
use support::recorder::{Recorder, epoch_of};
use support::synthetic::{audio, audio_header, delta_frame, keyframe, stream, video_header};
use support::wire::Wire;

const STATUS: &str = "rtmp2-stream-status";
const EVENT: &str = "rtmp2-stream-event";

/// Largest delay after the stall timeout until a stall is posted.
const MAX_DELAY: Duration = Duration::from_millis(200);

/// Connection state, stream status and epoch.
type State = (ConnectionState, StreamStatus, u64);

/// Returns the connection state, stream status and epoch of a status.
fn state_of(status: &gst::StructureRef) -> State {
    assert_eq!(status.get("version"), Ok(1u32));
    let connection: ConnectionState = status.get("connection-state").unwrap();
    let stream: StreamStatus = status.get("stream-status").unwrap();
    (connection, stream, status.get("epoch").unwrap())
}

/// Waits for this number of statuses, without those of clients that do not publish yet.
#[track_caller]
fn statuses(recorder: &Recorder, count: usize) -> Vec<State> {
    let publishing = |all: Vec<gst::Structure>| -> Vec<State> {
        let all = all.iter().map(|status| state_of(status));
        all.filter(|(connection, ..)| !matches!(connection, SocketConnected | Authenticating))
            .collect()
    };
    let mut wanted = count;
    loop {
        let got = publishing(recorder.messages(STATUS, wanted));
        if got.len() >= count {
            return got;
        }
        wanted += 1;
    }
}

fn events(recorder: &Recorder, count: usize) -> Vec<(StreamEvent, gst::Structure)> {
    let all = recorder.messages(EVENT, count);
    let event = |s: &gst::Structure| (s.get("event").unwrap(), s.get("details").unwrap());
    all.iter().map(event).collect()
}

#[test]
fn each_status_change_is_posted_once_and_in_order() {
    let recorder = Recorder::start("keep-listening=true application=live stream-key={camera}");
    for round in 1..=3 {
        publish(FFMPEG, &small(1), false, &recorder.url("live/one")).succeed();
        let got = statuses(&recorder, 3 * round);
        let epoch = round as u64;
        let expected = [
            (Negotiating, Reconfiguring, epoch),
            (Streaming, Active, epoch),
            (Disconnected, Stopped, epoch),
        ];
        assert_eq!(got[3 * (round - 1)..], expected);
    }
    let last = recorder.messages(STATUS, 1).pop().unwrap();
    assert_eq!(last.get("application"), Ok("live"));
    assert_eq!(last.get("stream-key"), Ok("one"));
    let variables: gst::Structure = last.get("variables").unwrap();
    assert_eq!(variables.get("camera"), Ok("one"));
    // The properties have the same values, and so has the sticky event for branches that are linked
    // late.
    let element = &recorder.element;
    assert_eq!(element.property::<u64>("epoch"), 3);
    let status: StreamStatus = element.property("stream-status");
    let connection: ConnectionState = element.property("connection-state");
    assert_eq!((connection, status), (Disconnected, Stopped));
    // It follows its message.
    let is_last = |event: &gst::Event| match event.view() {
        gst::EventView::CustomDownstreamSticky(status) => {
            state_of(status.structure().unwrap()) == (Disconnected, Stopped, 3)
        }
        _ => false,
    };
    recorder.wait_until("the last status", |_| recorder.events().iter().any(is_last));
    let pad = element.static_pad("src").unwrap();
    let kept = std::iter::successors(Some(0), |index| Some(index + 1))
        .map_while(|index| pad.sticky_event::<gst::event::CustomDownstreamSticky<_>>(index));
    let kept: Vec<_> = kept.collect();
    assert_eq!(kept.len(), 1, "the last status replaces the earlier ones");
    assert_eq!(
        state_of(kept[0].structure().unwrap()),
        (Disconnected, Stopped, 3)
    );
}

#[test]
fn a_client_that_leaves_before_publish_leaves_no_trace() {
    let recorder = Recorder::start("");
    let mut client = RawClient::connect(recorder.port());
    client.handshake().connect_application("live");
    client.expect_command("_result");
    client.command(0, "FCPublish", 2.0, &[Value::Null, "key".into()]);
    client.expect_command("onFCPublish");
    drop(client);
    let all = recorder.messages(STATUS, 3);
    let got: Vec<_> = all.iter().map(|status| state_of(status)).collect();
    assert_eq!(
        got,
        [
            (SocketConnected, Stopped, 0),
            (Authenticating, Stopped, 0),
            (Disconnected, Stopped, 0)
        ]
    );
}

#[test]
fn active_status_starts_with_the_first_keyframe() {
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(
        &mut client,
        &[
            video_header(0),
            audio_header(0),
            audio(0, 50),
            delta_frame(10, 50),
        ],
    );
    assert_eq!(statuses(&recorder, 1), [(Negotiating, Reconfiguring, 1)]);
    assert_eq!(recorder.buffers().len(), 0);
    send(&mut client, &[keyframe(50, 500)]);
    assert_eq!(
        statuses(&recorder, 2),
        [(Negotiating, Reconfiguring, 1), (Streaming, Active, 1)]
    );
    // The keyframe was pushed before the status, and carries the epoch as every buffer does.
    let buffers = recorder.buffers();
    assert!(buffers.iter().any(|buffer| buffer.size() > 500));
    assert!(buffers.iter().all(|buffer| epoch_of(buffer) == 1));
}

#[test]
fn a_changed_sequence_header_starts_an_epoch_and_a_repeated_one_does_not() {
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    for time in [0, 100, 200] {
        send(
            &mut client,
            &[
                video_header(time),
                keyframe(time, 200),
                delta_frame(time + 40, 90),
            ],
        );
    }
    let mut other = video_header(300);
    *other.body.last_mut().unwrap() ^= 1;
    send(
        &mut client,
        &[other, delta_frame(310, 70), keyframe(340, 200)],
    );
    unpublish(client);
    let expected = [
        (Negotiating, Reconfiguring, 1),
        (Streaming, Active, 1),
        (ConnectionState::Reconfiguring, Reconfiguring, 2),
        (Streaming, Active, 2),
        (Disconnected, Stopped, 2),
    ];
    assert_eq!(statuses(&recorder, 5), expected);
    recorder.finish();
    // The last status also goes downstream before EOS.
    let is_status = |event: &&gst::Event| event.type_() == gst::EventType::CustomDownstreamSticky;
    let all = recorder.events();
    let last = all.iter().rev().find(is_status).unwrap();
    assert_eq!(
        state_of(last.structure().unwrap()),
        (Disconnected, Stopped, 2)
    );
    assert_eq!(all.last().unwrap().type_(), gst::EventType::Eos);
    let epochs: Vec<u64> = recorder.buffers().iter().map(|b| epoch_of(b)).collect();
    // The file header and three times three tags; then three tags with another configuration.
    assert_eq!(epochs, [vec![1; 10], vec![2; 3]].concat());
    let got = events(&recorder, 6);
    let got: Vec<_> = got.iter().map(|(event, _)| *event).collect();
    use StreamEvent::*;
    let expected = [
        ReconfigurationStarted,
        PublisherConnected,
        ReconfigurationDone,
        ReconfigurationStarted,
        ReconfigurationDone,
        PublisherGone,
    ];
    assert_eq!(got[..6], expected);
}

#[test]
fn a_stall_and_its_end_are_posted_in_time() {
    let stall = Duration::from_millis(500);
    let recorder = Recorder::start("stall-timeout=500");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &[video_header(0), keyframe(0, 200)]);
    let silent = Instant::now();
    statuses(&recorder, 3);
    let delay = silent.elapsed();
    assert!((stall..stall + MAX_DELAY).contains(&delay), "{delay:?}");
    let (event, details) = events(&recorder, 4).pop().unwrap();
    assert_eq!(event, StreamEvent::Stalled);
    let since = Duration::from_nanos(details.get("since-last-byte").unwrap());
    assert!((stall..stall + MAX_DELAY).contains(&since), "{since:?}");
    // A command is no media: it does not end the stall.
    client.command(0, "ping", 0.0, &[Value::Null]);
    send(&mut client, &[delta_frame(2000, 90)]);
    let expected = [
        (Negotiating, Reconfiguring, 1),
        (Streaming, Active, 1),
        (Recovering, Paused, 1),
        (Streaming, Active, 1),
    ];
    assert_eq!(statuses(&recorder, 4), expected);
    let (event, _) = events(&recorder, 5).pop().unwrap();
    assert_eq!(event, StreamEvent::Resumed);
}

/// A large frame on a slow network is no stall.
#[test]
fn a_keyframe_after_a_stall_makes_the_stream_active() {
    let recorder = Recorder::start("stall-timeout=300");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &[video_header(0)]);
    statuses(&recorder, 2);
    send(&mut client, &[keyframe(0, 100), delta_frame(40, 100)]);
    drop(client);
    recorder.finish();
    let expected = [
        (Negotiating, Reconfiguring, 1),
        (Recovering, Paused, 1),
        (Negotiating, Reconfiguring, 1),
        (Streaming, Active, 1),
        (Disconnected, Stopped, 1),
    ];
    assert_eq!(statuses(&recorder, 5), expected);
}

#[test]
fn a_header_that_changes_during_a_stall_is_posted_after_it() {
    let recorder = Recorder::start("stall-timeout=300");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &[video_header(0), keyframe(0, 100)]);
    statuses(&recorder, 3);
    let mut changed = video_header(40);
    changed.body[6] += 1;
    send(&mut client, &[changed, keyframe(40, 100)]);
    drop(client);
    recorder.finish();
    let expected = [
        (Negotiating, Reconfiguring, 1),
        (Streaming, Active, 1),
        (Recovering, Paused, 1),
        (Streaming, Active, 1),
        (ConnectionState::Reconfiguring, Reconfiguring, 2),
        (Streaming, Active, 2),
        (Disconnected, Stopped, 2),
    ];
    assert_eq!(statuses(&recorder, 7), expected);
}

#[test]
fn a_frame_that_arrives_slowly_is_no_stall() {
    let recorder = Recorder::start("stall-timeout=300");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &[video_header(0), keyframe(0, 100)]);
    let large = keyframe(40, 20_000);
    let bytes = Wire::of(&large).absolute(&large).concat();
    for piece in bytes.chunks(bytes.len() / 10) {
        client.send(piece);
        // The pace of the network: longer in total than the timeout.
        std::thread::sleep(Duration::from_millis(100));
    }
    unpublish(client);
    assert_eq!(
        statuses(&recorder, 3),
        [
            (Negotiating, Reconfiguring, 1),
            (Streaming, Active, 1),
            (Disconnected, Stopped, 1)
        ]
    );
}

/// Publishes tags and loses the connection.
fn publish_and_disconnect(recorder: &Recorder, tags: &[Tag]) {
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, tags);
}

#[test]
fn a_returning_publisher_continues_the_stream() {
    let recorder = Recorder::start("resume-timeout=60000");
    let first = stream(0, 10);
    publish_and_disconnect(&recorder, &first);
    assert_eq!(
        statuses(&recorder, 3),
        [
            (Negotiating, Reconfiguring, 1),
            (Streaming, Active, 1),
            (Recovering, Paused, 1)
        ]
    );
    // While the publisher is away, GAP events tell downstream that no media comes.
    let is_gap = |event: &gst::Event| event.type_() == gst::EventType::Gap;
    let deadline = Instant::now() + support::PATIENCE;
    while recorder.events().iter().filter(|e| is_gap(e)).count() < 3 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &first);
    unpublish(client);
    let expected = [
        (Negotiating, Reconfiguring, 1),
        (Streaming, Active, 1),
        (Recovering, Paused, 1),
        (Negotiating, Reconfiguring, 2),
        (Streaming, Active, 2),
        (Disconnected, Stopped, 2),
    ];
    assert_eq!(statuses(&recorder, 6), expected);
    let tags = recorder.finish();
    // All media arrives twice, headers included, and time never goes back.
    let sent = flv::media(&first);
    let got = flv::media(&tags);
    let bodies = |tags: &[Tag]| tags.iter().map(|t| t.body.clone()).collect::<Vec<_>>();
    assert_eq!(bodies(&got), bodies(&[&sent[..], &sent].concat()));
    for kind in [flv::AUDIO, flv::VIDEO] {
        let times: Vec<u32> = got
            .iter()
            .filter(|t| t.kind == kind)
            .map(|t| t.timestamp)
            .collect();
        assert!(times.is_sorted(), "{times:?}");
    }
    // Both tracks have one offset: the distance between audio and video is unchanged.
    let (before, after) = got.split_at(sent.len());
    let offset = |tags: &[Tag]| {
        let time = |kind| {
            tags.iter()
                .filter(|t| t.is_coded())
                .find(|t| t.kind == kind)
        };
        time(flv::AUDIO).unwrap().timestamp - time(flv::VIDEO).unwrap().timestamp
    };
    assert_eq!(offset(before), offset(after));
    let segments = recorder.events();
    let count = |kind| segments.iter().filter(|e| e.type_() == kind).count();
    // One segment and one CAPS event for both publishers, and no flush.
    assert_eq!(count(gst::EventType::Segment), 1);
    assert_eq!(count(gst::EventType::Caps), 1);
    assert_eq!(count(gst::EventType::FlushStart), 0);
    // GAP events cover the time between, in order.
    let mut position = gst::ClockTime::ZERO;
    for event in segments.iter().filter(|e| is_gap(e)) {
        let gst::EventView::Gap(gap) = event.view() else {
            unreachable!()
        };
        let (start, duration) = gap.get();
        assert!(start >= position);
        position = start + duration.unwrap();
    }
    let resumed = got[sent.len()..].iter().find(|t| t.is_coded()).unwrap();
    assert!(u64::from(resumed.timestamp) >= position.mseconds());
    let discont = recorder
        .buffers()
        .iter()
        .filter(|b| b.flags().contains(gst::BufferFlags::DISCONT))
        .count();
    assert_eq!(discont, 2);
}

/// Audio that waits for a keyframe keeps its time, and so does the keyframe: the stream is not
/// delayed by the wait.
#[test]
fn audio_before_the_keyframe_of_a_returning_publisher_shifts_nothing() {
    let recorder = Recorder::start("resume-timeout=600000");
    publish_and_disconnect(&recorder, &stream(0, 3));
    let gaps = || {
        let events = recorder.events();
        let is_gap = |event: &&gst::Event| event.type_() == gst::EventType::Gap;
        events.iter().filter(is_gap).count()
    };
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(
        &mut client,
        &[video_header(0), audio_header(0), audio(0, 50)],
    );
    statuses(&recorder, 4);
    let before = gaps();
    // Enough time for many GAP events.
    for time in (20..2000).step_by(20) {
        send(&mut client, &[audio(time, 50)]);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(gaps() <= before + 2, "some may have been under way");
    send(&mut client, &[keyframe(1000, 100)]);
    unpublish(client);
    recorder.finish();
}

#[test]
fn a_publisher_that_does_not_return_is_gone() {
    let recorder = Recorder::start("resume-timeout=300");
    let start = Instant::now();
    publish_and_disconnect(&recorder, &stream(0, 3));
    recorder.finish();
    assert!(start.elapsed() >= Duration::from_millis(300));
    let expected = [
        (Negotiating, Reconfiguring, 1),
        (Streaming, Active, 1),
        (Recovering, Paused, 1),
        (Disconnected, Stopped, 1),
    ];
    assert_eq!(statuses(&recorder, 4), expected);
    let (event, details) = events(&recorder, 4).pop().unwrap();
    assert_eq!(event, StreamEvent::PublisherGone);
    assert_eq!(details.get("reason"), Ok("not-resumed"));
}

#[test]
fn an_unpublished_stream_is_not_awaited() {
    let recorder = Recorder::start("resume-timeout=600000");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &stream(0, 3));
    unpublish(client);
    assert_eq!(flv::media(&recorder.finish()).len(), 2 + 2 * 3);
}
