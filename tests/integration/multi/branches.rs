// SPDX-License-Identifier: MPL-2.0

//! A branch affects only the stream of its own pad.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;

use gst::prelude::*;

use super::multi_recorder::{self, MultiRecorder, link_to, link_to_fakesink};
use support::PATIENCE;
use support::flv::{self, Tag};
use support::raw::{RawClient, code, send, unpublish};
use support::synthetic::{audio, delta_frame, keyframe, stream};

const FRAMES: u32 = 12;

fn media(start: u32) -> Vec<Tag> {
    stream(start, FRAMES)
}

/// Publishes `key`, sends some media and waits until it has left on this pad.
fn publisher(recorder: &MultiRecorder, key: &str, pad: &str) -> RawClient {
    let mut client = RawClient::publish(recorder.port(), "live", key);
    send(&mut client, &media(0));
    recorder.wait_for_buffers(pad, media(0).len() + 1);
    client
}

/// Asserts that the stream on `src_0` ends and its publisher gets the reason, while the one on
/// `src_1` continues to its own end.
#[track_caller]
fn assert_only_first_stream_ends(
    recorder: &MultiRecorder,
    mut ended: RawClient,
    mut other: RawClient,
) {
    recorder.wait_for("-src_0");
    let history = recorder.history("src_0", 5);
    assert_eq!(history.last().unwrap(), "-src_0");
    assert!(
        history.contains(&"removed src_0 disconnected".to_owned()),
        "{history:?}"
    );
    recorder.wait_for_gone("src_0", "disconnected");
    let status = ended.try_expect_command("onStatus").expect("a reason");
    assert_eq!(code(&status), "NetStream.Publish.Rejected");
    send(&mut other, &media(10_000));
    recorder.wait_for_buffers("src_1", 2 * media(0).len() - 2);
    unpublish(other);
    recorder.wait_for("-src_1");
    assert_eq!(recorder.element.num_src_pads(), 0);
    let errors = recorder.inspect(|seen| seen.of_kind(gst::MessageType::Error).len());
    assert_eq!(errors, 0);
}

/// The input of a branch that is linked late.
struct LateBranch(mpsc::Receiver<Vec<u8>>);

impl LateBranch {
    fn link(recorder: &MultiRecorder, pad: &gst::Pad) -> Self {
        let sink = gst::parse::bin_from_description("fakesink sync=false async=false", true);
        let sink = sink.unwrap();
        let entry = sink.static_pad("sink").unwrap();
        let (arrived, has_arrived) = mpsc::channel();
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        entry.add_probe(kinds, move |_, info| {
            let buffers: Vec<gst::Buffer> = match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => vec![buffer.clone()],
                Some(gst::PadProbeData::BufferList(list)) => list.iter_owned().collect(),
                _ => Vec::new(),
            };
            for buffer in buffers {
                let _ = arrived.send(buffer.map_readable().unwrap().to_vec());
            }
            gst::PadProbeReturn::Ok
        });
        recorder.pipeline.add(&sink).unwrap();
        sink.sync_state_with_parent().unwrap();
        pad.link(&entry).unwrap();
        LateBranch(has_arrived)
    }

    /// Returns all tags up to this one. Together they must make an FLV stream.
    #[track_caller]
    fn wait_for(&self, last: &Tag) -> Vec<Tag> {
        let mut bytes = Vec::new();
        loop {
            let tag = self.0.recv_timeout(PATIENCE).expect("media arrives");
            bytes.extend_from_slice(&tag);
            if tag.get(11..11 + last.body.len()) == Some(&last.body[..]) {
                return flv::parse(&bytes).expect("an FLV stream");
            }
        }
    }
}

#[test]
fn an_unlinked_pad_blocks_no_other_stream() {
    // More is sent than any queue would hold.
    let recorder = MultiRecorder::start_with("max-bytes=20000", |pipeline, pad| {
        if pad.name() != "src_0" {
            link_to_fakesink(pipeline, pad);
        }
    });
    let mut idle = publisher(&recorder, "idle", "src_0");
    let other = publisher(&recorder, "other", "src_1");
    for round in 1..=20 {
        send(&mut idle, &media(1000 * round));
    }
    recorder.wait_for_buffers("src_0", 20 * (media(0).len() - 3));
    // A branch linked later gets a stream that begins there.
    let pad = recorder.element.static_pad("src_0").unwrap();
    let late_branch = LateBranch::link(&recorder, &pad);
    send(&mut idle, &media(30_000));
    let last = media(30_000).pop().unwrap();
    let tags = late_branch.wait_for(&last);
    let first = tags.iter().position(Tag::is_coded).unwrap();
    let headers = tags[..first].iter();
    assert_eq!(headers.filter(|tag| tag.is_sequence_header()).count(), 2);
    assert_eq!(tags[first].kind, flv::VIDEO);
    assert_eq!(tags[first].body[0] >> 4, 1, "a keyframe");
    for client in [idle, other] {
        unpublish(client);
    }
    for pad in ["-src_0", "-src_1"] {
        recorder.wait_for(pad);
    }
    assert_eq!(
        recorder.inspect(|seen| seen.of_kind(gst::MessageType::Warning).len()),
        0
    );
}

#[test]
fn a_failing_branch_ends_only_its_own_stream() {
    let recorder = MultiRecorder::start_with("", |pipeline, pad| match &pad.name()[..] {
        "src_0" => link_to(
            pipeline,
            pad,
            "identity error-after=30 ! fakesink async=false",
        ),
        _ => link_to_fakesink(pipeline, pad),
    });
    let first = RawClient::publish(recorder.port(), "live", "first");
    recorder.wait_for("added src_0");
    let other = publisher(&recorder, "other", "src_1");
    let mut first = first;
    send(&mut first, &media(0));
    send(&mut first, &media(1000));
    recorder.wait_for("-src_0");
    // Only the failing element posts an error.
    let errors = recorder.inspect(|seen| {
        let errors = seen.of_kind(gst::MessageType::Error).into_iter();
        let names = errors.map(|message| message.src().unwrap().name().to_string());
        names.collect::<Vec<_>>()
    });
    assert!(
        errors.iter().all(|name| name.starts_with("identity")),
        "{errors:?}"
    );
    unpublish(other);
    recorder.wait_for("-src_1");
    let status = first.try_expect_command("onStatus").expect("a reason");
    assert_eq!(code(&status), "NetStream.Publish.Rejected");
}

#[test]
fn a_branch_at_eos_ends_only_its_own_stream() {
    let recorder = MultiRecorder::start_with("", |pipeline, pad| match &pad.name()[..] {
        "src_0" => link_to(
            pipeline,
            pad,
            "identity eos-after=20 ! fakesink async=false",
        ),
        _ => link_to_fakesink(pipeline, pad),
    });
    let first = RawClient::publish(recorder.port(), "live", "first");
    recorder.wait_for("added src_0");
    let other = publisher(&recorder, "other", "src_1");
    let mut first = first;
    send(&mut first, &media(0));
    send(&mut first, &media(1000));
    assert_only_first_stream_ends(&recorder, first, other);
}

/// The application stops the branch and leaves it linked.
#[test]
fn a_stopped_branch_ends_only_its_own_stream() {
    let recorder = MultiRecorder::start("");
    let mut first = publisher(&recorder, "first", "src_0");
    let other = publisher(&recorder, "other", "src_1");
    let sink = recorder.pipeline.by_name("sink_src_0").unwrap();
    sink.set_locked_state(true);
    sink.set_state(gst::State::Null).unwrap();
    send(&mut first, &media(1000));
    assert_only_first_stream_ends(&recorder, first, other);
}

/// No element downstream reports this, so the source posts a warning.
#[test]
fn a_branch_that_refuses_the_caps_ends_only_its_own_stream() {
    let recorder = MultiRecorder::start_with("", |pipeline, pad| match &pad.name()[..] {
        "src_0" => {
            link_to_fakesink(pipeline, pad);
            // The linked element refuses the caps.
            let peer = pad.peer().unwrap();
            peer.add_probe(
                gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST,
                |_, info| {
                    info.flow_res = Err(gst::FlowError::NotNegotiated);
                    info.data = None;
                    gst::PadProbeReturn::Handled
                },
            );
        }
        _ => link_to_fakesink(pipeline, pad),
    });
    let mut first = RawClient::publish(recorder.port(), "live", "first");
    recorder.wait_for("added src_0");
    let other = publisher(&recorder, "other", "src_1");
    send(&mut first, &media(0));
    assert_only_first_stream_ends(&recorder, first, other);
    let warnings = recorder.inspect(|seen| {
        let warnings = seen.of_kind(gst::MessageType::Warning).into_iter();
        let texts = warnings.map(|message| match message.view() {
            gst::MessageView::Warning(warning) => (
                message.src().unwrap().name().to_string(),
                warning.error().to_string(),
            ),
            _ => unreachable!(),
        });
        texts.collect::<Vec<_>>()
    });
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0].0, "src");
    assert!(
        warnings[0].1.starts_with("The stream on src_0 has ended"),
        "{warnings:?}"
    );
}

/// A branch that accepts nothing blocks only its own publisher.
#[test]
fn a_stuck_branch_blocks_no_other_stream() {
    let recorder = MultiRecorder::start_with("max-bytes=20000", |pipeline, pad| {
        link_to_fakesink(pipeline, pad);
        if pad.name() == "src_0" {
            pad.add_probe(gst::PadProbeType::BLOCK_DOWNSTREAM, |_, _| {
                gst::PadProbeReturn::Ok
            });
        }
    });
    let mut stuck = RawClient::publish(recorder.port(), "live", "stuck");
    recorder.wait_for("added src_0");
    send(&mut stuck, &media(0));
    // The end waits after the media before it, and other streams start and end meanwhile.
    unpublish(stuck);
    recorder.wait_for("removed src_0 unpublished");
    for number in 1..=5 {
        let client = publisher(&recorder, "other", &format!("src_{number}"));
        unpublish(client);
        recorder.wait_for(&format!("-src_{number}"));
    }
    assert!(!recorder.inspect(|seen| seen.has_happened("-src_0")));
}

/// In the running time of the pipeline, as for a single element.
#[test]
fn each_stream_starts_at_the_running_time_of_its_arrival() {
    let recorder = MultiRecorder::start("latency=150");
    let mut bases = Vec::new();
    let mut clients = Vec::new();
    for number in 0..2 {
        let pad = format!("src_{number}");
        let before = recorder.pipeline.current_running_time().unwrap();
        clients.push(publisher(&recorder, &pad, &pad));
        let after = recorder.pipeline.current_running_time().unwrap();
        let pad = recorder.element.static_pad(&pad).unwrap();
        let segment = pad.sticky_event::<gst::event::Segment>(0).unwrap();
        let segment = segment.segment().downcast_ref::<gst::ClockTime>().unwrap();
        let base = segment.to_running_time(segment.start()).unwrap();
        assert!(before <= base && base <= after, "{before} {base} {after}");
        bases.push(base);
        let mut latency = gst::query::Latency::new();
        assert!(pad.query(&mut latency));
        let expected = (
            true,
            gst::ClockTime::from_mseconds(150),
            gst::ClockTime::NONE,
        );
        assert_eq!(latency.result(), expected);
    }
    assert!(bases[0] < bases[1]);
    let mut latency = gst::query::Latency::new();
    assert!(recorder.element.query(&mut latency));
    assert_eq!(latency.result().1, gst::ClockTime::from_mseconds(150));
    // Changes reach existing streams.
    recorder.element.set_property("latency", 300u32);
    let pad = recorder.element.static_pad("src_1").unwrap();
    let mut latency = gst::query::Latency::new();
    assert!(pad.query(&mut latency));
    assert_eq!(latency.result().1, gst::ClockTime::from_mseconds(300));
    drop(clients);
    recorder.wait_for("-src_0");
}

/// Sinks wait for their first buffer by default, and the pipeline waits with them.
#[test]
fn a_silent_publisher_blocks_no_other_stream() {
    let recorder =
        MultiRecorder::start_with("", |pipeline, pad| link_to(pipeline, pad, "fakesink"));
    let mut silent = RawClient::publish(recorder.port(), "live", "silent");
    // Media that cannot be decoded does not count either.
    let frames = media(0).into_iter().filter(|tag| tag.kind == flv::VIDEO);
    let frames: Vec<Tag> = frames
        .filter(|tag| !tag.is_coded() || tag.body[0] >> 4 != 1)
        .collect();
    send(&mut silent, &frames);
    recorder.wait_for("added src_0");
    let other = publisher(&recorder, "other", "src_1");
    let sink = recorder.pipeline.by_name("sink_src_1").unwrap();
    let (state, current, _) = sink.state(gst::ClockTime::from_seconds(PATIENCE.as_secs()));
    assert_eq!((state.is_ok(), current), (true, gst::State::Playing));
    unpublish(other);
    recorder.wait_for("-src_1");
    unpublish(silent);
    recorder.wait_for("removed src_0 unpublished");
    assert!(!recorder.inspect(|seen| seen.has_happened("+src_0")));
}

#[test]
fn a_flush_from_downstream_stops_nothing() {
    let recorder = MultiRecorder::start("");
    let mut client = publisher(&recorder, "key", "src_0");
    let pad = recorder.element.static_pad("src_0").unwrap();
    let peer = pad.peer().unwrap();
    assert!(peer.push_event(gst::event::FlushStart::new()));
    assert!(peer.push_event(gst::event::FlushStop::new(true)));
    send(&mut client, &media(10_000));
    recorder.wait_for_buffers("src_0", 2 * media(0).len() - 2);
    unpublish(client);
    recorder.wait_for("-src_0");
}
/// The publisher was cut off and returns before its pad is removed: it gets a stream of its own, or
/// the reason why not.
#[test]
fn a_publisher_that_returns_while_its_branch_ends_is_accepted_or_rejected() {
    let (reached, is_reached) = mpsc::channel();
    let (fail, may_fail) = mpsc::channel::<()>();
    let (linking, is_linking) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_fail = Arc::new(Mutex::new(may_fail));
    let (reached, linking) = (Mutex::new(reached), Mutex::new(linking));
    let (reached, may_go_on) = (Arc::new(reached), Mutex::new(may_go_on));
    let recorder = MultiRecorder::start_with("resume-timeout=600000", move |pipeline, pad| {
        link_to_fakesink(pipeline, pad);
        if pad.name() == "src_1" {
            // Pads are added and removed on the thread that is blocked here.
            let _ = linking.lock().unwrap().send(());
            let _ = may_go_on.lock().unwrap().recv_timeout(PATIENCE);
        }
        if pad.name() == "src_0" {
            let (reached, may_fail) = (reached.clone(), may_fail.clone());
            let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
            let fail = move |_: &gst::Pad, info: &mut gst::PadProbeInfo| {
                let _ = reached.lock().unwrap().send(());
                let _ = may_fail.lock().unwrap().recv_timeout(PATIENCE);
                info.flow_res = Err(gst::FlowError::Error);
                info.data = None;
                gst::PadProbeReturn::Handled
            };
            pad.peer().unwrap().add_probe(kinds, fail);
        }
    });
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &media(0));
    is_reached.recv_timeout(PATIENCE).unwrap();
    drop(client);
    recorder.wait_for("removed src_0 closed");
    let _other = multi_recorder::publisher(recorder.port(), "other");
    is_linking.recv_timeout(PATIENCE).unwrap();
    drop(fail);
    recorder.wait_for("eos src_0");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    drop(go_on);
    let is_accepted = recorder.wait_until("the answer", |seen| {
        let is_removed = seen.has_happened("removed src_0 disconnected");
        assert!(
            !seen.has_happened("removed src_0 stopped"),
            "removed without a reason"
        );
        (seen.has_happened("added src_2") || is_removed).then_some(!is_removed)
    });
    if !is_accepted {
        let status = client.try_expect_command("onStatus").expect("a reason");
        assert_eq!(code(&status), "NetStream.Publish.Rejected");
    }
    recorder.wait_for("-src_0");
}

/// The end of the stream is queued after so many reconnects that no other one is possible.
#[test]
fn a_stuck_branch_does_not_block_the_next_stream_of_its_name() {
    const RESUMES: usize = 16;
    let (stuck, is_stuck) = mpsc::channel();
    let stuck = Arc::new(Mutex::new(stuck));
    let recorder = MultiRecorder::start_with("resume-timeout=600000", move |pipeline, pad| {
        link_to_fakesink(pipeline, pad);
        if pad.name() == "src_0" {
            let stuck = stuck.clone();
            // At the first buffer, so the first publisher has left the queue.
            let media = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
            pad.add_probe(gst::PadProbeType::BLOCK | media, move |_, _| {
                let _ = stuck.lock().unwrap().send(());
                gst::PadProbeReturn::Ok
            });
        }
    });
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &media(0));
    is_stuck.recv_timeout(PATIENCE).unwrap();
    for resume in 1..=RESUMES {
        drop(client);
        recorder.wait_until("the end of a connection", |seen| {
            let removed = seen.history.iter();
            let removed = removed.filter(|what| *what == "removed src_0 closed");
            (removed.count() == resume).then_some(())
        });
        client = RawClient::publish(recorder.port(), "live", "key");
    }
    unpublish(client);
    recorder.wait_for("removed src_0 unpublished");
    let _next = RawClient::publish(recorder.port(), "live", "key");
    recorder.wait_for("added src_1");
}

/// Adds a sink that keeps the bytes of all buffers.
fn recording_sink(pipeline: &gst::Pipeline) -> (gst::Pad, Arc<Mutex<Vec<u8>>>) {
    let sink = gst::ElementFactory::make("fakesink")
        .property("sync", false)
        .property("async", false)
        .build()
        .unwrap();
    pipeline.add(&sink).unwrap();
    sink.sync_state_with_parent().unwrap();
    let pad = sink.static_pad("sink").unwrap();
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let kept = bytes.clone();
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    pad.add_probe(kinds, move |_, info| {
        let buffers: Vec<gst::Buffer> = match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => vec![buffer.clone()],
            Some(gst::PadProbeData::BufferList(list)) => list.iter_owned().collect(),
            _ => Vec::new(),
        };
        let mut kept = kept.lock().unwrap();
        for buffer in buffers {
            kept.extend_from_slice(&buffer.map_readable().unwrap());
        }
        gst::PadProbeReturn::Ok
    });
    (pad, bytes)
}

/// Without a buffer that would find the pad unlinked.
#[test]
fn a_pad_relinked_between_two_buffers_starts_with_headers_and_a_keyframe() {
    let (sender, receiver) = mpsc::channel();
    let recorder = MultiRecorder::start_with("", move |pipeline, pad| {
        let (sink_pad, bytes) = recording_sink(pipeline);
        pad.link(&sink_pad).unwrap();
        sender.send(bytes).unwrap();
    });
    let mut client = publisher(&recorder, "key", "src_0");
    let first = receiver.recv_timeout(PATIENCE).unwrap();
    let has_all = || {
        let tags = flv::parse(&first.lock().unwrap());
        tags.is_ok_and(|tags| tags.len() == media(0).len())
    };
    let deadline = Instant::now() + PATIENCE;
    while !has_all() {
        assert!(Instant::now() < deadline, "the first sink got nothing");
        std::thread::yield_now();
    }
    let pad = recorder.element.static_pad("src_0").unwrap();
    let peer = pad.peer().unwrap();
    pad.unlink(&peer).unwrap();
    let (sink_pad, second) = recording_sink(&recorder.pipeline);
    pad.link(&sink_pad).unwrap();
    let sent = [
        delta_frame(600, 100),
        audio(610, 50),
        keyframe(640, 300),
        delta_frame(680, 100),
    ];
    send(&mut client, &sent);
    unpublish(client);
    recorder.wait_for("-src_0");
    let got = flv::parse(&second.lock().unwrap()).unwrap();
    let bodies = |tags: &[Tag]| tags.iter().map(|t| t.body.clone()).collect::<Vec<_>>();
    let headers = &media(0)[..3];
    let expected = [headers, &sent[2..]].concat();
    assert!(bodies(&got) == bodies(&expected), "{} tags", got.len());
}
