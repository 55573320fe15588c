// SPDX-License-Identifier: MPL-2.0

//! Stopping at every stage of a stream, repeatedly. A deadlock is a test that does not end.

use std::sync::{Arc, Mutex, mpsc};

use gst::prelude::*;

use super::multi_recorder::{MultiRecorder, link_to_fakesink, publisher};
use support::PATIENCE;
use support::flv::read_file;
use support::isolated::is_isolated;
use support::launch::Launch;
use support::raw::{RawClient, send, try_send, unpublish};
use support::resources::{listening, waits_of_this_thread};
use support::synthetic::stream;

const CYCLES: usize = 20;

/// Stops the pipeline on a thread of its own, which must finish.
#[track_caller]
fn stop(recorder: &MultiRecorder, state: gst::State) {
    let (stopped, has_stopped) = mpsc::channel();
    let stopping = recorder.pipeline.clone();
    let thread = std::thread::spawn(move || {
        let _ = stopped.send(stopping.set_state(state));
    });
    let result = has_stopped.recv_timeout(PATIENCE);
    result.expect("the pipeline stops").unwrap();
    thread.join().unwrap();
    assert_eq!(recorder.element.num_src_pads(), 0);
    let bin = recorder.element.downcast_ref::<gst::Bin>().unwrap();
    assert_eq!(bin.children().len(), 0);
    assert_eq!(recorder.port(), 0);
}

#[test]
fn the_element_stops_while_streams_are_active() {
    let recorder = MultiRecorder::new("resume-timeout=600000", link_to_fakesink);
    for index in 0..CYCLES {
        recorder.play();
        let port = recorder.port();
        let mut clients: Vec<RawClient> = (0..3)
            .map(|key| RawClient::publish(port, "live", &format!("key{key}")))
            .collect();
        for client in &mut clients {
            send(client, &stream(0, 4));
        }
        // One stream awaits its publisher's return, and one has just ended.
        drop(clients.pop());
        if index % 2 == 0 {
            unpublish(clients.pop().unwrap());
        }
        recorder.wait_for("added src_0");
        stop(&recorder, [gst::State::Null, gst::State::Ready][index % 2]);
        for mut client in clients {
            while let Ok(Some(_)) = client.read_message() {}
        }
    }
}

/// Streams whose ends would be awaited one after the other.
const MANY: usize = 300;

#[test]
fn the_stop_of_many_streams_does_not_wait_for_each() {
    // Descriptors of its own.
    if !is_isolated("multi::stopping::the_stop_of_many_streams_does_not_wait_for_each") {
        return;
    }
    let limits = format!("max-streams={MANY} max-clients={MANY} max-clients-per-address={MANY}");
    let recorder = MultiRecorder::start_with(&limits, link_to_fakesink);
    let clients: Vec<RawClient> = (0..MANY)
        .map(|key| {
            let mut client = RawClient::publish(recorder.port(), "live", &format!("key{key}"));
            send(&mut client, &stream(0, 4));
            client
        })
        .collect();
    for key in 0..MANY {
        recorder.wait_for(&format!("added src_{key}"));
    }
    let before = waits_of_this_thread();
    recorder.element.set_state(gst::State::Null).unwrap();
    let waits = waits_of_this_thread() - before;
    assert_eq!(recorder.element.num_src_pads(), 0);
    let bin = recorder.element.downcast_ref::<gst::Bin>().unwrap();
    assert_eq!(bin.children().len(), 0);
    assert!(waits < MANY as u64 * 2 / 3, "{waits} waits");
    drop(clients);
}

/// At each stage that the application can observe.
#[test]
fn the_element_stops_while_streams_start_and_end() {
    let moments = [
        "+src_1",
        "added src_1",
        "eos src_1",
        "removed src_1 unpublished",
        "-src_1",
    ];
    for index in 0..4 * moments.len() {
        let recorder = MultiRecorder::start("");
        let port = recorder.port();
        let _stays = RawClient::publish(port, "live", "stays");
        let mut comes = RawClient::publish(port, "live", "comes");
        send(&mut comes, &stream(0, 4));
        let moment = moments[index % moments.len()];
        if index % moments.len() < 2 {
            recorder.wait_for(moment);
        } else {
            unpublish(comes);
            recorder.wait_for(moment);
        }
        stop(&recorder, gst::State::Null);
    }
}

/// In every signal handler.
#[test]
fn the_element_stops_in_a_handler() {
    for name in [
        "pad-added",
        "pad-removed",
        "publisher-added",
        "publisher-removed",
        "publisher-connecting",
    ] {
        for _ in 0..CYCLES / 2 {
            let recorder = MultiRecorder::new("", link_to_fakesink);
            let weak = recorder.pipeline.downgrade();
            let (stopped, has_stopped) = mpsc::channel();
            let stopped = Mutex::new(Some(stopped));
            recorder.element.connect(name, false, move |_| {
                // Stopping removes pads and publishers, which calls the handler again.
                let first = stopped.lock().unwrap().take();
                if let Some(stopped) = first {
                    let pipeline = weak.upgrade().unwrap();
                    pipeline.set_state(gst::State::Null).unwrap();
                    stopped.send(()).unwrap();
                }
                (name == "publisher-connecting").then(|| true.to_value())
            });
            recorder.play();
            let mut client = RawClient::connect(recorder.port());
            let published = client.try_publish("live", "key");
            if published.is_some() {
                let _ = try_send(&mut client, &stream(0, 4));
            }
            if published.is_some() && name.ends_with("removed") {
                let _ = client.try_command(
                    1,
                    "closeStream",
                    0.0,
                    &[gstrtmp2server::internal::amf0::Value::Null],
                );
            }
            has_stopped.recv_timeout(PATIENCE).expect(name);
            assert_eq!(recorder.element.num_src_pads(), 0, "{name}");
            // The element starts again.
            recorder.play();
            let _client = RawClient::publish(recorder.port(), "live", "key");
            recorder.wait_for("added src_0");
        }
    }
}

/// While a handler holds the pad, for longer than any stop waits.
#[test]
fn the_element_stops_while_a_pad_is_being_linked() {
    let (linking, is_linking) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let (linking, may_go_on) = (Mutex::new(linking), Mutex::new(may_go_on));
    let recorder = MultiRecorder::start_with("", move |_, _| {
        let _ = linking.lock().unwrap().send(());
        let _ = may_go_on.lock().unwrap().recv_timeout(PATIENCE);
    });
    let _client = publisher(recorder.port(), "key");
    is_linking.recv_timeout(PATIENCE).unwrap();
    recorder.pipeline.set_state(gst::State::Null).unwrap();
    // The element starts again, with a stream that waits for its turn.
    recorder.play();
    let mut next = RawClient::publish(recorder.port(), "live", "next");
    send(&mut next, &stream(0, 4));
    drop(go_on);
    recorder.wait_for_buffers("src_0", 5);
    let pads = recorder.element.src_pads();
    let keys: Vec<String> = pads.iter().map(|pad| pad.property("stream-key")).collect();
    assert_eq!(keys, ["next"]);
}

/// The application keeps a pad whose stream was stopped before it started.
#[test]
fn a_pad_that_outlives_its_stream_keeps_nothing_open() {
    let (linking, is_linking) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let (linking, may_go_on) = (Mutex::new(linking), Mutex::new(may_go_on));
    let recorder = MultiRecorder::start_with("", move |_, pad| {
        let bin = pad.parent().and_downcast::<gst::Bin>().unwrap();
        let source = bin.children().remove(0);
        let _ = linking.lock().unwrap().send((pad.clone(), source));
        let _ = may_go_on.lock().unwrap().recv_timeout(PATIENCE);
    });
    let port = recorder.port();
    let sockets = listening(port);
    assert!(!sockets.is_empty());
    let _client = publisher(port, "key");
    let (pad, source) = is_linking.recv_timeout(PATIENCE).unwrap();
    let publishers = || source.property::<gst::Structure>("stats").get("publishers");
    assert_eq!(publishers(), Ok(1u64));
    recorder.pipeline.set_state(gst::State::Null).unwrap();
    let left = listening(port);
    assert!(sockets.iter().all(|socket| !left.contains(socket)));
    drop(go_on);
    let deadline = std::time::Instant::now() + PATIENCE;
    while source.parent().is_some() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
    // The source has dropped its stream, and the pad keeps the counters.
    assert_eq!(publishers(), Ok(0));
    let stats: gst::Structure = pad.property("stats");
    assert_eq!(stats.get("publishers"), Ok(1u64));
}

/// With a pad blocked downstream, so that its streaming thread waits there.
#[test]
fn the_element_stops_while_a_branch_is_stuck() {
    for _ in 0..CYCLES {
        let (stuck, is_stuck) = mpsc::channel();
        let stuck = Arc::new(Mutex::new(stuck));
        let recorder = MultiRecorder::start_with("", move |pipeline, pad| {
            link_to_fakesink(pipeline, pad);
            let stuck = stuck.clone();
            pad.add_probe(gst::PadProbeType::BLOCK_DOWNSTREAM, move |_, _| {
                let _ = stuck.lock().unwrap().send(());
                gst::PadProbeReturn::Ok
            });
        });
        let mut client = RawClient::publish(recorder.port(), "live", "key");
        send(&mut client, &stream(0, 4));
        is_stuck.recv_timeout(PATIENCE).unwrap();
        stop(&recorder, gst::State::Null);
    }
}

#[test]
fn streams_start_and_end_across_pauses() {
    let recorder = MultiRecorder::start("");
    let port = recorder.port();
    for round in 0..CYCLES {
        let result = recorder.pipeline.set_state(gst::State::Paused);
        assert_eq!(result, Ok(gst::StateChangeSuccess::NoPreroll));
        let mut client = RawClient::publish(port, "live", "key");
        send(&mut client, &stream(0, 4));
        recorder.play();
        recorder.wait_for_buffers(&format!("src_{round}"), 5);
        unpublish(client);
        recorder.wait_for(&format!("-src_{round}"));
    }
}

/// The state of the element changes while the source of a stream is added to it.
#[test]
fn a_source_starts_after_its_pad_is_linked() {
    let recorder = MultiRecorder::start("");
    recorder.pipeline.set_state(gst::State::Paused).unwrap();
    let pipeline = recorder.pipeline.downgrade();
    let (added, is_added) = mpsc::channel();
    recorder
        .element
        .connect("element-added", false, move |values| {
            let source = values[1].get::<gst::Element>().unwrap();
            let pipeline = pipeline.upgrade().unwrap();
            pipeline.set_state(gst::State::Playing).unwrap();
            added.send(source.current_state()).unwrap();
            None
        });
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &stream(0, 4));
    let state = is_added.recv_timeout(PATIENCE);
    assert_eq!(state, Ok(gst::State::Null));
    recorder.wait_for_buffers("src_0", 5);
    unpublish(client);
    recorder.wait_for("-src_0");
}

/// An active stream ends where it is, and its recording is complete.
#[test]
fn ctrl_c_with_e_finalises_an_flv_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.flv");
    let text = format!(
        "rtmp2multiserversrc port=0 application=live ! identity silent=false ! filesink location={}",
        file.display()
    );
    let mut launch = Launch::start("-e", &text);
    let mut client = RawClient::publish(launch.port(), "live", "key");
    send(&mut client, &stream(0, 4));
    for _ in 0..5 {
        launch.wait_for("last-message = chain");
    }
    launch.interrupt();
    let (status, _) = launch.wait();
    assert!(status.success(), "{}", launch.output());
    assert!(read_file(&file).len() > 3);
}

/// Neither the element nor its children remain when it is dropped while it runs.
#[test]
fn a_dropped_element_frees_everything() {
    for _ in 0..CYCLES {
        let recorder = MultiRecorder::start("");
        let mut client = RawClient::publish(recorder.port(), "live", "key");
        send(&mut client, &stream(0, 4));
        recorder.wait_for_buffers("src_0", 5);
        let pad = recorder.element.static_pad("src_0").unwrap().downgrade();
        let bin = recorder.element.downcast_ref::<gst::Bin>().unwrap();
        let source = bin.children().remove(0).downgrade();
        let element = recorder.element.downgrade();
        recorder.wait_for("added src_0");
        drop(recorder);
        let deadline = std::time::Instant::now() + PATIENCE;
        while element.upgrade().is_some() || source.upgrade().is_some() || pad.upgrade().is_some() {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
    }
}
