// SPDX-License-Identifier: MPL-2.0

//! What is linked to one pad is the affair of that stream alone.

use std::sync::{Arc, Mutex, mpsc};

use gst::prelude::*;

use super::multi_recorder::{self, MultiRecorder, into, into_fakesink};
use crate::support::PATIENCE;
use crate::support::flv::{self, Tag};
use crate::support::raw::{RawClient, code, send, unpublish};
use crate::support::synthetic::stream;

const FRAMES: u32 = 12;

fn media(start: u32) -> Vec<Tag> {
    stream(start, FRAMES)
}

/// A publisher of `key` that sends a bit, and waits until that has left on this pad.
fn publisher(recorder: &MultiRecorder, key: &str, pad: &str) -> RawClient {
    let mut client = RawClient::publish(recorder.port(), "live", key);
    send(&mut client, &media(0));
    recorder.wait_for_buffers(pad, media(0).len() + 1);
    client
}

/// The stream on `src_0` ends by itself, its publisher is told, and that on `src_1` goes on to its own end.
#[track_caller]
fn assert_ends_alone(recorder: &MultiRecorder, mut ended: RawClient, mut other: RawClient) {
    recorder.wait_for("-src_0");
    let history = recorder.history("src_0", 5);
    assert_eq!(history.last().unwrap(), "-src_0");
    assert!(
        history.contains(&"removed src_0 disconnected".to_owned()),
        "{history:?}"
    );
    recorder.wait_for_gone("src_0", "disconnected");
    let status = ended.try_expect_command("onStatus").expect("it is told");
    assert_eq!(code(&status), "NetStream.Publish.Rejected");
    send(&mut other, &media(10_000));
    recorder.wait_for_buffers("src_1", 2 * media(0).len() - 2);
    unpublish(other);
    recorder.wait_for("-src_1");
    assert_eq!(recorder.element.num_src_pads(), 0);
    let errors = recorder.look(|seen| seen.of_kind(gst::MessageType::Error).len());
    assert_eq!(errors, 0);
}

/// What somebody gets who was linked later.
struct Taken(mpsc::Receiver<Vec<u8>>);

impl Taken {
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
        Taken(has_arrived)
    }

    /// All up to a tag, which make an FLV stream.
    #[track_caller]
    fn wait_for(&self, last: &Tag) -> Vec<Tag> {
        let mut bytes = Vec::new();
        loop {
            let tag = self.0.recv_timeout(PATIENCE).expect("it gets media");
            bytes.extend_from_slice(&tag);
            if tag.get(11..11 + last.body.len()) == Some(&last.body[..]) {
                return flv::parse(&bytes).expect("it is FLV");
            }
        }
    }
}

#[test]
fn a_pad_that_nobody_linked_costs_nobody() {
    // No queue would take as much as is sent.
    let recorder = MultiRecorder::start_with("max-bytes=20000", |pipeline, pad| {
        if pad.name() != "src_0" {
            into_fakesink(pipeline, pad);
        }
    });
    let mut idle = publisher(&recorder, "idle", "src_0");
    let other = publisher(&recorder, "other", "src_1");
    for round in 1..=20 {
        send(&mut idle, &media(1000 * round));
    }
    recorder.wait_for_buffers("src_0", 20 * (media(0).len() - 3));
    // Somebody may take it later, and gets a stream that begins there.
    let pad = recorder.element.static_pad("src_0").unwrap();
    let taken = Taken::link(&recorder, &pad);
    send(&mut idle, &media(30_000));
    let last = media(30_000).pop().unwrap();
    let tags = taken.wait_for(&last);
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
        recorder.look(|seen| seen.of_kind(gst::MessageType::Warning).len()),
        0
    );
}

#[test]
fn a_branch_that_fails_ends_its_stream_alone() {
    let recorder = MultiRecorder::start_with("", |pipeline, pad| match &pad.name()[..] {
        "src_0" => into(
            pipeline,
            pad,
            "identity error-after=30 ! fakesink async=false",
        ),
        _ => into_fakesink(pipeline, pad),
    });
    let first = RawClient::publish(recorder.port(), "live", "first");
    recorder.wait_for("added src_0");
    let other = publisher(&recorder, "other", "src_1");
    let mut first = first;
    send(&mut first, &media(0));
    send(&mut first, &media(1000));
    recorder.wait_for("-src_0");
    // The one that has failed says so, and nobody else.
    let errors = recorder.look(|seen| {
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
    let status = first.try_expect_command("onStatus").expect("it is told");
    assert_eq!(code(&status), "NetStream.Publish.Rejected");
}

#[test]
fn a_branch_that_has_enough_ends_its_stream_alone() {
    let recorder = MultiRecorder::start_with("", |pipeline, pad| match &pad.name()[..] {
        "src_0" => into(
            pipeline,
            pad,
            "identity eos-after=20 ! fakesink async=false",
        ),
        _ => into_fakesink(pipeline, pad),
    });
    let first = RawClient::publish(recorder.port(), "live", "first");
    recorder.wait_for("added src_0");
    let other = publisher(&recorder, "other", "src_1");
    let mut first = first;
    send(&mut first, &media(0));
    send(&mut first, &media(1000));
    assert_ends_alone(&recorder, first, other);
}

/// Stopped by the application, which leaves it linked.
#[test]
fn a_branch_that_was_stopped_ends_its_stream_alone() {
    let recorder = MultiRecorder::start("");
    let mut first = publisher(&recorder, "first", "src_0");
    let other = publisher(&recorder, "other", "src_1");
    let sink = recorder.pipeline.by_name("sink_src_0").unwrap();
    sink.set_locked_state(true);
    sink.set_state(gst::State::Null).unwrap();
    send(&mut first, &media(1000));
    assert_ends_alone(&recorder, first, other);
}

/// Nobody downstream says that, so the element does, as a warning.
#[test]
fn a_branch_that_takes_something_else_ends_its_stream_alone() {
    let recorder = MultiRecorder::start_with("", |pipeline, pad| match &pad.name()[..] {
        "src_0" => {
            into_fakesink(pipeline, pad);
            // What is linked refuses the caps that come.
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
        _ => into_fakesink(pipeline, pad),
    });
    let mut first = RawClient::publish(recorder.port(), "live", "first");
    recorder.wait_for("added src_0");
    let other = publisher(&recorder, "other", "src_1");
    send(&mut first, &media(0));
    assert_ends_alone(&recorder, first, other);
    let warnings = recorder.look(|seen| {
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

/// One that takes nothing holds up its own publisher.
#[test]
fn a_branch_that_is_stuck_holds_up_nobody_else() {
    let recorder = MultiRecorder::start_with("max-bytes=20000", |pipeline, pad| {
        into_fakesink(pipeline, pad);
        if pad.name() == "src_0" {
            pad.add_probe(gst::PadProbeType::BLOCK_DOWNSTREAM, |_, _| {
                gst::PadProbeReturn::Ok
            });
        }
    });
    let mut stuck = RawClient::publish(recorder.port(), "live", "stuck");
    recorder.wait_for("added src_0");
    send(&mut stuck, &media(0));
    // Its end waits behind what it has sent, and streams come and go meanwhile.
    unpublish(stuck);
    recorder.wait_for("removed src_0 unpublished");
    for number in 1..=5 {
        let client = publisher(&recorder, "other", &format!("src_{number}"));
        unpublish(client);
        recorder.wait_for(&format!("-src_{number}"));
    }
    assert!(!recorder.look(|seen| seen.has("-src_0")));
}

/// In the time of the pipeline, like that of a single element.
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
    // Changes reach the streams that there are.
    recorder.element.set_property("latency", 300u32);
    let pad = recorder.element.static_pad("src_1").unwrap();
    let mut latency = gst::query::Latency::new();
    assert!(pad.query(&mut latency));
    assert_eq!(latency.result().1, gst::ClockTime::from_mseconds(300));
    drop(clients);
    recorder.wait_for("-src_0");
}

/// Sinks as they are by default wait for their first buffer, and the pipeline with them.
#[test]
fn who_sends_nothing_holds_up_nobody() {
    let recorder = MultiRecorder::start_with("", |pipeline, pad| into(pipeline, pad, "fakesink"));
    let mut silent = RawClient::publish(recorder.port(), "live", "silent");
    // What can't be decoded is nothing either.
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
    assert!(!recorder.look(|seen| seen.has("+src_0")));
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
/// Its publisher was cut off before, and is back before the pad has gone: it has a stream of its own, or is told.
#[test]
fn who_comes_back_while_a_branch_ends_is_told_or_taken() {
    let (reached, is_reached) = mpsc::channel();
    let (fail, may_fail) = mpsc::channel::<()>();
    let (linking, is_linking) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_fail = Arc::new(Mutex::new(may_fail));
    let (reached, linking) = (Mutex::new(reached), Mutex::new(linking));
    let (reached, may_go_on) = (Arc::new(reached), Mutex::new(may_go_on));
    let recorder = MultiRecorder::start_with("resume-timeout=600000", move |pipeline, pad| {
        into_fakesink(pipeline, pad);
        if pad.name() == "src_1" {
            // Pads come and go on the thread that is held here.
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
    let is_taken = recorder.wait_until("what becomes of it", |seen| {
        let is_removed = seen.has("removed src_0 disconnected");
        assert!(!seen.has("removed src_0 stopped"), "without a word");
        (seen.has("added src_2") || is_removed).then_some(!is_removed)
    });
    if !is_taken {
        let status = client.try_expect_command("onStatus").expect("it is told");
        assert_eq!(code(&status), "NetStream.Publish.Rejected");
    }
    recorder.wait_for("-src_0");
}

/// So many that no other can be, and the stream has ended behind them.
#[test]
fn a_stuck_branch_does_not_keep_the_next_stream_of_its_name_out() {
    const RESUMES: usize = 16;
    let (stuck, is_stuck) = mpsc::channel();
    let stuck = Arc::new(Mutex::new(stuck));
    let recorder = MultiRecorder::start_with("resume-timeout=600000", move |pipeline, pad| {
        into_fakesink(pipeline, pad);
        if pad.name() == "src_0" {
            let stuck = stuck.clone();
            // At its first buffer, so its first publisher is out of the queue.
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
            let removed = seen.happened.iter();
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
