// SPDX-License-Identifier: MPL-2.0

//! Stopping in every state, repeatedly. A deadlock is a test that does not end.

use std::sync::{Mutex, mpsc};

use gst::prelude::*;

use super::receiver::Receiver;
use support::PATIENCE;
use support::clients::{FFMPEG, ffmpeg, publish};
use support::launch::Launch;
use support::media::small;
use support::raw::RawClient;
use support::synthetic::stream;

const CYCLES: usize = 20;

fn send_media(client: &mut RawClient) {
    for tag in stream(0, 4) {
        client.media(tag.kind, tag.timestamp, &tag.body, 128);
    }
}

/// Stops the pipeline on a thread of its own, which must finish.
#[track_caller]
fn stop(pipeline: &gst::Pipeline, state: gst::State) {
    let (stopped, has_stopped) = mpsc::channel();
    let stopping = pipeline.clone();
    let thread = std::thread::spawn(move || {
        let _ = stopped.send(stopping.set_state(state));
    });
    let result = has_stopped.recv_timeout(PATIENCE);
    result.expect("the pipeline stops").unwrap();
    thread.join().unwrap();
}

#[test]
fn an_idle_bin_stops() {
    let receiver = Receiver::new("", |_| true);
    for index in 0..CYCLES {
        receiver.play();
        assert_ne!(receiver.port(), 0);
        let state = [gst::State::Null, gst::State::Ready][index % 2];
        stop(&receiver.pipeline, state);
        assert_eq!(receiver.port(), 0);
    }
}

/// The bin starts each time with new pads.
#[test]
fn a_streaming_bin_stops() {
    let receiver = Receiver::new("keep-listening=true", |_| true);
    for index in 1..=CYCLES {
        receiver.play();
        let mut client = RawClient::publish(receiver.port(), "live", "key");
        send_media(&mut client);
        receiver.wait_for_packets("video_0", 4 * index);
        let state = [gst::State::Null, gst::State::Ready][index % 2];
        stop(&receiver.pipeline, state);
        assert_eq!(receiver.bin.num_src_pads(), 0);
        while let Ok(Some(_)) = client.read_message() {}
    }
    let expected = ["video_0", "audio_0", "no-more-pads", "-video_0", "-audio_0"];
    let expected = expected.repeat(CYCLES);
    receiver.inspect(|seen| assert_eq!(seen.pads, expected));
}

/// At every stage of adding pads, also with a queue for each.
#[test]
fn the_bin_stops_while_pads_appear() {
    for uri in [false, true] {
        for index in 0..CYCLES {
            let receiver = Receiver::new("keep-listening=true", |_| true);
            if uri {
                receiver.set_uri("rtmpserver://127.0.0.1:0");
            }
            let (moment, is_moment) = mpsc::channel();
            let moment = Mutex::new(moment);
            receiver.bin.connect_pad_added(move |_, pad| {
                if (index % 2 == 0) == (pad.name() == "video_0") {
                    let _ = moment.lock().unwrap().send(());
                }
            });
            receiver.play();
            let mut client = RawClient::publish(receiver.port(), "live", "key");
            send_media(&mut client);
            if index < CYCLES / 2 {
                is_moment.recv_timeout(PATIENCE).unwrap();
            }
            stop(&receiver.pipeline, gst::State::Null);
            assert_eq!(receiver.bin.num_src_pads(), 0);
            let bin = receiver.bin.downcast_ref::<gst::Bin>().unwrap();
            assert_eq!(bin.children().len(), 2);
        }
    }
}

/// With its pads blocked downstream, so that the streaming thread waits there.
#[test]
fn the_bin_stops_while_the_pipeline_is_stuck() {
    for uri in [false, true] {
        for _ in 0..CYCLES {
            let receiver = Receiver::new("keep-listening=true", |_| false);
            if uri {
                receiver.set_uri("rtmpserver://127.0.0.1:0");
            }
            let (stuck, is_stuck) = mpsc::channel();
            let stuck = Mutex::new(stuck);
            receiver.bin.connect_pad_added(move |_, pad| {
                let sink = gst::ElementFactory::make("fakesink").build().unwrap();
                // A paused sink blocks with its first buffer.
                sink.set_locked_state(true);
                let bin = pad.parent_element().unwrap();
                let pipeline = bin.parent().and_downcast::<gst::Bin>().unwrap();
                pipeline.add(&sink).unwrap();
                sink.set_state(gst::State::Paused).unwrap();
                let end = sink.static_pad("sink").unwrap();
                pad.link(&end).unwrap();
                let stuck = stuck.lock().unwrap().clone();
                end.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
                    let _ = stuck.send(());
                    gst::PadProbeReturn::Ok
                });
                // The sink stops with the pipeline.
                let weak = sink.downgrade();
                bin.connect_pad_removed(move |_, _| {
                    if let Some(sink) = weak.upgrade() {
                        let _ = sink.set_state(gst::State::Null);
                    }
                });
            });
            receiver.play();
            let mut client = RawClient::publish(receiver.port(), "live", "key");
            send_media(&mut client);
            is_stuck.recv_timeout(PATIENCE).unwrap();
            // Sinks first, as pipelines do.
            let bin = receiver.pipeline.upcast_ref::<gst::Bin>();
            for sink in bin.iterate_sinks() {
                let sink = sink.unwrap();
                sink.set_locked_state(false);
            }
            stop(&receiver.pipeline, gst::State::Null);
        }
    }
}

#[test]
fn the_bin_stops_while_a_client_is_authorized() {
    for _ in 0..CYCLES {
        let receiver = Receiver::new("", |_| true);
        let (asked, is_asked) = mpsc::channel();
        let (answer, answers) = mpsc::channel::<()>();
        let (asked, answers) = (Mutex::new(asked), Mutex::new(answers));
        receiver
            .bin
            .connect("publisher-connecting", false, move |_| {
                asked.lock().unwrap().send(()).unwrap();
                let _ = answers.lock().unwrap().recv_timeout(PATIENCE);
                Some(true.to_value())
            });
        receiver.play();
        let port = receiver.port();
        let client = std::thread::spawn(move || {
            let mut client = RawClient::connect(port);
            client.try_publish("live", "key").is_some()
        });
        is_asked.recv_timeout(PATIENCE).unwrap();
        // The handler is still running.
        stop(&receiver.pipeline, gst::State::Null);
        drop(answer);
        assert!(!client.join().unwrap());
    }
}

#[test]
fn the_bin_stops_in_a_handler() {
    for name in ["publisher-added", "publisher-connecting"] {
        for _ in 0..CYCLES {
            let receiver = Receiver::new("", |_| true);
            let weak = receiver.pipeline.downgrade();
            let (stopped, has_stopped) = mpsc::channel();
            let stopped = Mutex::new(stopped);
            receiver.bin.connect(name, false, move |_| {
                let pipeline = weak.upgrade().unwrap();
                pipeline.set_state(gst::State::Null).unwrap();
                stopped.lock().unwrap().send(()).unwrap();
                (name == "publisher-connecting").then(|| true.to_value())
            });
            receiver.play();
            let mut client = RawClient::connect(receiver.port());
            let _ = client.try_publish("live", "key");
            has_stopped.recv_timeout(PATIENCE).unwrap();
        }
    }
}

/// Neither the bin nor its children remain when it is dropped while it runs.
#[test]
fn a_dropped_bin_frees_its_children() {
    for _ in 0..CYCLES {
        let receiver = Receiver::start("");
        let mut client = RawClient::publish(receiver.port(), "live", "key");
        send_media(&mut client);
        receiver.wait_for_packets("video_0", 4);
        let left = ["source", "demuxer"].map(|name| receiver.child(name).downgrade());
        let bin = receiver.bin.downgrade();
        drop(receiver);
        assert!(bin.upgrade().is_none());
        assert!(left.iter().all(|element| element.upgrade().is_none()));
    }
}

/// The recording until then is complete.
#[test]
fn ctrl_c_with_e_finalises_an_mp4_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.mp4");
    let text = format!(
        "rtmp2serverbin name=s port=0 mp4mux name=m ! filesink location={} \
         s.video_0 ! identity silent=false ! queue ! h264parse ! m. \
         s.audio_0 ! queue ! aacparse ! m.",
        file.display()
    );
    let mut launch = Launch::start("-e", &text);
    let url = format!("rtmp://127.0.0.1:{}/live/key", launch.port());
    let _publisher = publish(FFMPEG, &small(20), true, &url);
    for _ in 0..30 {
        launch.wait_for("last-message = chain");
    }
    launch.interrupt();
    let (status, _) = launch.wait();
    assert!(status.success(), "{}", launch.output());
    let frames = ffmpeg(
        FFMPEG,
        &format!("-i {} -map 0:v -c copy -f framecrc -", file.display()),
    );
    let frames = frames.wait();
    let errors = String::from_utf8_lossy(&frames.stderr);
    assert!(errors.is_empty(), "{errors}");
    assert!(frames.stdout.iter().filter(|byte| **byte == b'\n').count() > 25);
}
