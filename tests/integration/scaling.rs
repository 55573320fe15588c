// SPDX-License-Identifier: MPL-2.0

//! A thousand small publishers in one process.

use std::io::Write;
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::{Duration, Instant};

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

/// Messages that each thread posts.
const MESSAGES: usize = 500;

/// Posts from a thousand threads at the same time, to a pipeline's bus, and waits until all are done.
fn post_from_a_thousand_threads(elements: &[gst::Element], each: usize) {
    let (sender, posted) = mpsc::channel();
    let start = Arc::new(Barrier::new(PUBLISHERS));
    for index in 0..PUBLISHERS {
        let element = elements[index % elements.len()].clone();
        let (sender, start) = (sender.clone(), start.clone());
        let thread = std::thread::Builder::new().stack_size(128 * 1024);
        let post = move || {
            start.wait();
            for _ in 0..each {
                element.post_message(message(&element, "test")).unwrap();
            }
            sender.send(()).unwrap();
        };
        thread.spawn(post).unwrap();
    }
    for _ in 0..PUBLISHERS {
        posted.recv_timeout(PATIENCE).unwrap();
    }
}

fn message(element: &gst::Element, name: &str) -> gst::Message {
    let structure = gst::Structure::new_empty(name);
    let message = gst::message::Element::builder(structure);
    message.src(element).build()
}

/// Returns the number of messages of elements that wait on the bus of a pipeline.
fn count_messages(pipeline: &gst::Element) -> usize {
    let (bus, kind) = (pipeline.bus().unwrap(), [gst::MessageType::Element]);
    std::iter::from_fn(|| bus.pop_filtered(&kind)).count()
}

fn children(pipeline: &gst::Element, names: &[&str]) -> Vec<gst::Element> {
    let bin = pipeline.downcast_ref::<gst::Bin>().unwrap();
    names
        .iter()
        .map(|name| bin.by_name(name).unwrap())
        .collect()
}

/// A writer of GStreamer's bus spins until those before it are done, so that a thousand of them need minutes
/// on two cores once one is preempted.
#[test]
fn a_thousand_threads_post_messages_at_the_same_time() {
    if !is_isolated("scaling::a_thousand_threads_post_messages_at_the_same_time") {
        return;
    }
    support::init();
    // Demuxers and bins too, whose children post through them.
    let text = "rtmp2serversrc name=src ! eflvdemux name=demux  rtmp2serverbin name=bin \
                rtmp2multiserversrc name=many  fakesrc ! rtmp2recordsink name=record";
    let pipeline = gst::parse::launch(text).unwrap();
    let mut elements = children(&pipeline, &["src", "demux", "bin", "many", "record"]);
    let inner = elements[2].downcast_ref::<gst::Bin>().unwrap().children();
    elements.extend(inner);
    post_from_a_thousand_threads(&elements, MESSAGES);
    assert_eq!(count_messages(&pipeline), MESSAGES * PUBLISHERS);
}

/// Handlers of an application that wait, as for another stream, keep every thread that may post.
#[test]
fn a_thousand_threads_post_messages_while_handlers_wait() {
    if !is_isolated("scaling::a_thousand_threads_post_messages_while_handlers_wait") {
        return;
    }
    support::init();
    let pipeline = gst::parse::launch("rtmp2serversrc name=src ! fakesink").unwrap();
    let elements = children(&pipeline, &["src"]);
    let (entered, within) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    pipeline.bus().unwrap().set_sync_handler(move |_, message| {
        if message
            .structure()
            .is_some_and(|said| said.name() == "held")
        {
            entered.send(()).unwrap();
            // Ends with its sender.
            let _ = released.lock().unwrap().recv();
        }
        gst::BusSyncReply::Pass
    });
    let held = std::thread::available_parallelism().unwrap().get() + 2;
    let handlers: Vec<_> = (0..held)
        .map(|_| {
            let element = elements[0].clone();
            let handler =
                std::thread::spawn(move || element.post_message(message(&element, "held")));
            within.recv_timeout(PATIENCE).unwrap();
            handler
        })
        .collect();
    post_from_a_thousand_threads(&elements, MESSAGES / 10);
    drop(release);
    for handler in handlers {
        handler.join().unwrap().unwrap();
    }
    assert_eq!(count_messages(&pipeline), MESSAGES / 10 * PUBLISHERS + held);
}

/// Streams of the larger element, and of the one that it is compared with.
const STREAMS: (usize, usize) = (1000, 100);

/// Ratio of the times for each stream. Work that walks over all other streams would be ten times.
const MAX_STOP_RATIO: f64 = 4.0;

/// Starts an element with this number of streams, and returns the time that its stop takes.
fn stop_with(streams: usize) -> Duration {
    let limits = format!(
        "max-streams={streams} max-clients=1100 max-clients-per-address=1100 \
         handshake-timeout=60000"
    );
    let text = format!("rtmp2multiserversrc name=source host=127.0.0.1 port=0 {limits}");
    let pipeline = gst::Pipeline::new();
    let source = gst::parse::launch(&text).unwrap();
    pipeline.add(&source).unwrap();
    let (sender, pads) = mpsc::channel();
    source.connect_pad_added(move |_, _| sender.send(()).unwrap());
    pipeline.set_state(gst::State::Playing).unwrap();
    let port = source.property::<u32>("current-port") as u16;
    let before = status("VmRSS");
    let header = [0x17, 0, 0, 0, 0, 1, 0x42, 0xC0, 0x1E, 0xFF, 0xE0, 0];
    let clients: Vec<RawClient> = (0..streams)
        .map(|camera| {
            let mut client = RawClient::publish(port, "live", &format!("camera{camera}"));
            client.media(flv::VIDEO, 0, &header, 128);
            client.media(flv::VIDEO, 0, &[0x17, 1, 0, 0, 0, 7], 128);
            client
        })
        .collect();
    for _ in 0..streams {
        pads.recv_timeout(PATIENCE).unwrap();
    }
    // None of a later run, which uses the memory of the one before.
    let memory = status("VmRSS").saturating_sub(before) / streams;
    let start = Instant::now();
    source.set_state(gst::State::Null).unwrap();
    let stop = start.elapsed();
    assert_eq!(source.num_src_pads(), 0);
    println!("{streams} streams: {memory} kB more for each, stopped in {stop:?}");
    drop(clients);
    pipeline.set_state(gst::State::Null).unwrap();
    stop
}

#[test]
fn a_thousand_streams_stop_as_fast_for_each_as_a_hundred() {
    if !is_isolated("scaling::a_thousand_streams_stop_as_fast_for_each_as_a_hundred") {
        return;
    }
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let each = |streams| stop_with(streams).as_secs_f64() / streams as f64;
    support::init();
    // Other work of the machine makes some runs slow, and none fast.
    let fastest = |streams| (0..3).map(|_| each(streams)).fold(f64::INFINITY, f64::min);
    let ratio = fastest(STREAMS.0) / fastest(STREAMS.1);
    assert!(ratio < MAX_STOP_RATIO, "{ratio:.1} times the time for each");
}
