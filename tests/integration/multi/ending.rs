// SPDX-License-Identifier: MPL-2.0

//! EOS for all streams: what there is comes to its end, and nobody is taken after it.

use std::sync::{Arc, Mutex, mpsc};

use gst::prelude::*;
use gstrtmp2server::amf0::Value;

use super::multi_recorder::{MultiRecorder, into_fakesink, publisher};
use crate::support::PATIENCE;
use crate::support::raw::{RawClient, code, send};
use crate::support::synthetic::stream;

/// A publisher that comes is told that there are no streams any more.
#[track_caller]
fn assert_is_closed(recorder: &MultiRecorder, key: &str) {
    let mut client = RawClient::connect(recorder.port());
    client.handshake().connect_application("live");
    client.expect_command("_result");
    client.command(1, "publish", 2.0, &[Value::Null, key.into()]);
    let status = client.expect_command("onStatus");
    assert_eq!(code(&status), "NetStream.Publish.BadName", "{key}");
    recorder.wait_for("rejected ended");
}

/// Tells the pipeline of its end. That has to come back at once.
#[track_caller]
fn end(recorder: &MultiRecorder) {
    let (told, is_told) = mpsc::channel();
    let pipeline = recorder.pipeline.clone();
    std::thread::spawn(move || told.send(pipeline.send_event(gst::event::Eos::new())));
    assert_eq!(is_told.recv_timeout(PATIENCE), Ok(true));
}

#[track_caller]
fn wait_for_end(recorder: &MultiRecorder) {
    recorder.wait_until("EOS of the pipeline", |seen| {
        let ends = seen.of_kind(gst::MessageType::Eos);
        let is_pipeline = |message: &&gst::Message| {
            let source = message.src().unwrap();
            source.is::<gst::Pipeline>()
        };
        ends.into_iter().any(|m| is_pipeline(&m)).then_some(())
    });
}

/// The encoder comes back at once, as encoders do.
#[test]
fn a_pipeline_comes_to_its_end_though_publishers_come_back() {
    // The sinks stay, as they do where an application takes them away later.
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
    end(&recorder);
    for key in ["stays", "leaves", "other"] {
        assert_is_closed(&recorder, key);
    }
    let status = stays.try_expect_command("onStatus").expect("it is told");
    assert_eq!(code(&status), "NetStream.Publish.Rejected");
    wait_for_end(&recorder);
    for pad in ["-src_0", "-src_1"] {
        recorder.wait_for(pad);
    }
    assert!(!recorder.look(|seen| seen.has("+src_2")));
    recorder.wait_for_gone("src_0", "disconnected");
    recorder.wait_for_gone("src_1", "not-resumed");

    // At the next start it takes publishers again.
    recorder.pipeline.set_state(gst::State::Null).unwrap();
    recorder.play();
    let before = recorder.look(|seen| seen.happened.len());
    let _client = RawClient::publish(recorder.port(), "live", "stays");
    recorder.wait_until("a new stream", |seen| {
        let mut happened = seen.happened[before..].iter();
        happened.any(|what| what == "added src_0").then_some(())
    });
}

/// It was there for a stream whose pad is only just being linked, too.
#[test]
fn a_stream_that_opens_meanwhile_ends() {
    let (linking, is_linking) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let (linking, may_go_on) = (Mutex::new(linking), Mutex::new(may_go_on));
    // Nothing else ends a publisher that is silent.
    let recorder = MultiRecorder::start_with("timeout=0", move |pipeline, pad| {
        let _ = linking.lock().unwrap().send(());
        let _ = may_go_on.lock().unwrap().recv_timeout(PATIENCE);
        into_fakesink(pipeline, pad);
    });
    let _first = publisher(recorder.port(), "first");
    is_linking.recv_timeout(PATIENCE).unwrap();
    // It waits for its turn, and ends before it has a pad.
    let _second = publisher(recorder.port(), "second");
    // Who tells of the end waits for nobody.
    end(&recorder);
    let mut third = RawClient::connect(recorder.port());
    assert!(third.try_publish("live", "third").is_none());
    drop(go_on);
    for what in ["eos src_0", "-src_0", "removed src_1 disconnected"] {
        recorder.wait_for(what);
    }
}

/// The others come to their end, and that one does as soon as it goes on.
#[test]
fn a_stream_that_is_stuck_holds_up_no_end() {
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let (stuck, is_stuck) = mpsc::channel();
    let held = Arc::new(Mutex::new((stuck, may_go_on)));
    let recorder = MultiRecorder::start_with("", move |pipeline, pad| {
        into_fakesink(pipeline, pad);
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
    // Dropped before the recorder, which could not stop without that.
    let go_on = go_on;
    let _stuck = publisher(recorder.port(), "stuck");
    is_stuck.recv_timeout(PATIENCE).unwrap();
    let _other = publisher(recorder.port(), "other");
    recorder.wait_for_buffers("src_1", 5);
    end(&recorder);
    recorder.wait_for("-src_1");
    assert!(!recorder.look(|seen| seen.has("-src_0")));
    drop(go_on);
    recorder.wait_for("-src_0");
}
