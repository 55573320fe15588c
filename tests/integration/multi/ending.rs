// SPDX-License-Identifier: MPL-2.0

//! EOS for all streams: what there is comes to its end, and nobody is taken after it.

use std::sync::{Mutex, mpsc};

use gst::prelude::*;
use gstrtmp2server::amf0::Value;

use super::studio::{Studio, into_fakesink, publisher};
use crate::support::raw::{RawClient, code, send};
use crate::support::synthetic::stream;

/// A publisher that comes is told that there are no streams any more.
#[track_caller]
fn assert_is_closed(studio: &Studio, key: &str) {
    let mut client = RawClient::connect(studio.port());
    client.handshake().connect_application("live");
    client.expect_command("_result");
    client.command(1, "publish", 2.0, &[Value::Null, key.into()]);
    let status = client.expect_command("onStatus");
    assert_eq!(code(&status), "NetStream.Publish.BadName", "{key}");
    studio.wait_for("rejected ended");
}

#[track_caller]
fn wait_for_end(studio: &Studio) {
    studio.wait_until("EOS of the pipeline", |seen| {
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
    let studio = Studio::start_with("resume-timeout=600000", |pipeline, pad| {
        let sink = gst::ElementFactory::make("fakesink")
            .property("sync", false)
            .property("async", false)
            .build()
            .unwrap();
        pipeline.add(&sink).unwrap();
        sink.sync_state_with_parent().unwrap();
        pad.link(&sink.static_pad("sink").unwrap()).unwrap();
    });
    let mut stays = RawClient::publish(studio.port(), "live", "stays");
    let mut leaves = RawClient::publish(studio.port(), "live", "leaves");
    for (client, pad) in [(&mut stays, "src_0"), (&mut leaves, "src_1")] {
        studio.wait_for(&format!("added {pad}"));
        send(client, &stream(0, 4));
        studio.wait_for_buffers(pad, 5);
    }
    drop(leaves);
    studio.wait_for("removed src_1 closed");
    studio.pipeline.send_event(gst::event::Eos::new());
    for key in ["stays", "leaves", "other"] {
        assert_is_closed(&studio, key);
    }
    let status = stays.try_expect_command("onStatus").expect("it is told");
    assert_eq!(code(&status), "NetStream.Publish.Rejected");
    wait_for_end(&studio);
    for pad in ["-src_0", "-src_1"] {
        studio.wait_for(pad);
    }
    assert!(!studio.look(|seen| seen.has("+src_2")));
    studio.wait_for_gone("src_0", "disconnected");
    studio.wait_for_gone("src_1", "not-resumed");

    // At the next start it takes publishers again.
    studio.pipeline.set_state(gst::State::Null).unwrap();
    studio.play();
    let before = studio.look(|seen| seen.happened.len());
    let _client = RawClient::publish(studio.port(), "live", "stays");
    studio.wait_until("a new stream", |seen| {
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
    let studio = Studio::start_with("timeout=0", move |pipeline, pad| {
        let _ = linking.lock().unwrap().send(());
        let _ = may_go_on.lock().unwrap().recv();
        into_fakesink(pipeline, pad);
    });
    let _first = publisher(studio.port(), "first");
    is_linking.recv().unwrap();
    // It waits for its turn, and ends before it has a pad.
    let _second = publisher(studio.port(), "second");
    // Who tells a source of the end waits for what it is busy with.
    let pipeline = studio.pipeline.clone();
    let ending = std::thread::spawn(move || pipeline.send_event(gst::event::Eos::new()));
    let mut others = Vec::new();
    // Until the door is closed.
    loop {
        let mut other = RawClient::connect(studio.port());
        let key = format!("other{}", others.len());
        if other.try_publish("live", &key).is_none() {
            break;
        }
        others.push(other);
    }
    drop(go_on);
    for what in ["eos src_0", "-src_0", "removed src_1 disconnected"] {
        studio.wait_for(what);
    }
    ending.join().unwrap();
}
