// SPDX-License-Identifier: MPL-2.0

//! EOS for all streams: each stream ends after its media, and no publisher is accepted after that.

use std::sync::{Arc, Mutex, mpsc};

use gst::prelude::*;
use gstrtmp2server::internal::amf0::Value;

use super::multi_recorder::{MultiRecorder, link_to_fakesink, publisher};
use support::PATIENCE;
use support::raw::{RawClient, code, send};
use support::synthetic::stream;

/// Asserts that a new publisher is refused because the streams have ended.
#[track_caller]
fn assert_publish_is_rejected(recorder: &MultiRecorder, key: &str) {
    let mut client = RawClient::connect(recorder.port());
    client.handshake().connect_application("live");
    client.expect_command("_result");
    client.command(1, "publish", 2.0, &[Value::Null, key.into()]);
    let status = client.expect_command("onStatus");
    assert_eq!(code(&status), "NetStream.Publish.BadName", "{key}");
    recorder.wait_for("rejected ended");
}

/// Sends EOS to the pipeline, which must return at once.
#[track_caller]
fn send_eos(recorder: &MultiRecorder) {
    let (returned, has_returned) = mpsc::channel();
    let pipeline = recorder.pipeline.clone();
    std::thread::spawn(move || returned.send(pipeline.send_event(gst::event::Eos::new())));
    assert_eq!(has_returned.recv_timeout(PATIENCE), Ok(true));
}

#[track_caller]
fn wait_for_pipeline_eos(recorder: &MultiRecorder) {
    recorder.wait_until("EOS of the pipeline", |seen| {
        let ends = seen.of_kind(gst::MessageType::Eos);
        let is_pipeline = |message: &&gst::Message| {
            let source = message.src().unwrap();
            source.is::<gst::Pipeline>()
        };
        ends.into_iter().any(|m| is_pipeline(&m)).then_some(())
    });
}

/// The encoder reconnects at once, as encoders do.
#[test]
fn a_pipeline_reaches_eos_while_publishers_reconnect() {
    // The sinks stay, as in an application that removes them later.
    let recorder = MultiRecorder::start_with("resume-timeout=600000", |pipeline, pad| {
        let sink = gst::ElementFactory::make("fakesink")
            .property("sync", false)
            .property("async", false)
            .build()
            .unwrap();
        pipeline.add(&sink).unwrap();
        sink.sync_state_with_parent().unwrap();
        pad.link(&sink.static_pad("sink").unwrap()).unwrap();
    });
    let mut stays = RawClient::publish(recorder.port(), "live", "stays");
    let mut leaves = RawClient::publish(recorder.port(), "live", "leaves");
    for (client, pad) in [(&mut stays, "src_0"), (&mut leaves, "src_1")] {
        recorder.wait_for(&format!("added {pad}"));
        send(client, &stream(0, 4));
        recorder.wait_for_buffers(pad, 5);
    }
    drop(leaves);
    recorder.wait_for("removed src_1 closed");
    send_eos(&recorder);
    for key in ["stays", "leaves", "other"] {
        assert_publish_is_rejected(&recorder, key);
    }
    let status = stays.try_expect_command("onStatus").expect("a reason");
    assert_eq!(code(&status), "NetStream.Publish.Rejected");
    wait_for_pipeline_eos(&recorder);
    for pad in ["-src_0", "-src_1"] {
        recorder.wait_for(pad);
    }
    assert!(!recorder.inspect(|seen| seen.has_happened("+src_2")));
    recorder.wait_for_gone("src_0", "disconnected");
    recorder.wait_for_gone("src_1", "not-resumed");

    // After a restart the element accepts publishers again.
    recorder.pipeline.set_state(gst::State::Null).unwrap();
    recorder.play();
    let before = recorder.inspect(|seen| seen.history.len());
    let _client = RawClient::publish(recorder.port(), "live", "stays");
    recorder.wait_until("a new stream", |seen| {
        let mut history = seen.history[before..].iter();
        history.any(|what| what == "added src_0").then_some(())
    });
}

/// EOS also reaches a stream whose pad is only just being linked.
#[test]
fn a_stream_that_opens_during_eos_ends() {
    let (linking, is_linking) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let (linking, may_go_on) = (Mutex::new(linking), Mutex::new(may_go_on));
    // No other timeout ends a silent publisher.
    let recorder = MultiRecorder::start_with("timeout=0", move |pipeline, pad| {
        let _ = linking.lock().unwrap().send(());
        let _ = may_go_on.lock().unwrap().recv_timeout(PATIENCE);
        link_to_fakesink(pipeline, pad);
    });
    let _first = publisher(recorder.port(), "first");
    is_linking.recv_timeout(PATIENCE).unwrap();
    // The second stream waits for its turn, and ends before it has a pad.
    let _second = publisher(recorder.port(), "second");
    // The thread that sends EOS does not wait.
    send_eos(&recorder);
    let mut third = RawClient::connect(recorder.port());
    assert!(third.try_publish("live", "third").is_none());
    drop(go_on);
    for what in ["eos src_0", "-src_0", "removed src_1 disconnected"] {
        recorder.wait_for(what);
    }
}

/// The other streams end, and the stuck one ends as soon as it continues.
#[test]
fn a_stuck_stream_delays_no_other_end() {
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let (stuck, is_stuck) = mpsc::channel();
    let held = Arc::new(Mutex::new((stuck, may_go_on)));
    let recorder = MultiRecorder::start_with("", move |pipeline, pad| {
        link_to_fakesink(pipeline, pad);
        if pad.name() != "src_0" {
            return;
        }
        let held = held.clone();
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        pad.add_probe(kinds, move |_, _| {
            let (stuck, may_go_on) = &*held.lock().unwrap();
            let _ = stuck.send(());
            let _ = may_go_on.recv_timeout(PATIENCE);
            gst::PadProbeReturn::Ok
        });
    });
    // Dropped before the recorder, which could not stop otherwise.
    let go_on = go_on;
    let _stuck = publisher(recorder.port(), "stuck");
    is_stuck.recv_timeout(PATIENCE).unwrap();
    let _other = publisher(recorder.port(), "other");
    recorder.wait_for_buffers("src_1", 5);
    send_eos(&recorder);
    recorder.wait_for("-src_1");
    assert!(!recorder.inspect(|seen| seen.has_happened("-src_0")));
    drop(go_on);
    recorder.wait_for("-src_0");
}
