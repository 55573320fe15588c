// SPDX-License-Identifier: MPL-2.0

//! A thousand small publishers in one process.

use std::io::Write;
use std::time::Duration;

use gst::prelude::*;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use support::isolated::is_isolated;
use support::raw::{RawClient, media_chunks};
use support::recorder::Recorder;
use support::{PATIENCE, flv};

const PUBLISHERS: usize = 1000;

/// Bytes of each frame: one every [`STEP`] makes 100 kbit/s a publisher.
const FRAME: usize = 1250;
const STEP: Duration = Duration::from_millis(100);
const FRAMES: u32 = 30;

/// Returns a value of `/proc/self/status`.
fn status(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_thousand_publishers_need_one_thread_each() {
    // In a process with a descriptor limit of its own.
    if !is_isolated("scaling::a_thousand_publishers_need_one_thread_each") {
        return;
    }
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    // No return is awaited at the end. The clients take turns, and the last one waits long for its
    // own.
    let limits = "max-clients=1100 max-clients-per-address=1100 resume-timeout=0 \
                  handshake-timeout=60000";
    let first = Recorder::start(&format!("{limits} stream-key=camera0"));
    let port = first.port();
    let text: String = (1..PUBLISHERS)
        .map(|camera| {
            format!(
                "rtmp2serversrc name=src{camera} port={port} {limits} stream-key=camera{camera} ! \
                 fakesink name=sink{camera} sync=false async=false "
            )
        })
        .collect();
    let pipeline = gst::parse::launch(&text).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let before = (status("VmRSS"), status("Threads"));

    // All clients connect at once, as after the restart of a network.
    let mut clients: Vec<RawClient> = (0..PUBLISHERS).map(|_| RawClient::connect(port)).collect();
    for (camera, client) in clients.iter_mut().enumerate() {
        let published = client.try_publish("live", &format!("camera{camera}"));
        assert!(published.is_some(), "camera{camera} was refused");
    }
    let mut frame = vec![0x17, 1, 0, 0, 0];
    frame.resize(FRAME, 7);
    let header = [0x17, 0, 0, 0, 0, 1, 0x42, 0xC0, 0x1E, 0xFF, 0xE0, 0];
    for index in 0..FRAMES {
        let time = index * STEP.as_millis() as u32;
        let mut bytes = media_chunks(flv::VIDEO, time, &frame, 128);
        if index == 0 {
            bytes.splice(0..0, media_chunks(flv::VIDEO, 0, &header, 128));
        }
        for client in &mut clients {
            client.socket.write_all(&bytes).unwrap();
        }
        // The pace of the publishers.
        std::thread::sleep(STEP);
    }
    let during = (status("VmRSS"), status("Threads"));
    let (memory, threads) = (during.0 - before.0, during.1 - before.1);
    println!(
        "{PUBLISHERS} publishers: {} kB and {:.2} threads for each, and {} kB and {:.2} threads \
         for each element that waits for one",
        memory / PUBLISHERS,
        threads as f64 / PUBLISHERS as f64,
        before.0 / PUBLISHERS,
        before.1 as f64 / PUBLISHERS as f64,
    );
    // One thread for each publisher, next to the element's streaming thread, which exists from the
    // start.
    assert!(threads <= PUBLISHERS, "{threads}");
    clients.clear();
    let patience = gst::ClockTime::try_from(PATIENCE).unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline.bus().unwrap().timed_pop_filtered(patience, &kinds);
    let message = message.expect("all of them end");
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    let bin = pipeline.downcast_ref::<gst::Bin>().unwrap();
    for camera in 1..PUBLISHERS {
        let sink = bin.by_name(&format!("sink{camera}")).unwrap();
        let stats: gst::Structure = sink.property("stats");
        // The file header and the sequence header precede the frames.
        assert_eq!(
            stats.get("rendered"),
            Ok(u64::from(FRAMES) + 2),
            "camera{camera}"
        );
    }
    pipeline.set_state(gst::State::Null).unwrap();
    first.finish();
}
