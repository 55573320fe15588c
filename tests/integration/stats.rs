// SPDX-License-Identifier: MPL-2.0

//! The counters of `stats`, compared with what was sent.

use std::net::Shutdown;
use std::sync::{Mutex, mpsc};
use std::time::{SystemTime, UNIX_EPOCH};

use gst::prelude::*;
use gstrtmp2server::internal::amf0::Value;
use gstrtmp2server::{ConnectionState, StreamStatus};

use support::flv::{self, Tag};
use support::isolated::is_isolated;
use support::raw::{RawClient, send, unpublish};
use support::recorder::Recorder;
use support::signals::Signals;
use support::synthetic::{delta_frame, keyframe, metadata, stream, video_header};
use support::{PATIENCE, init};

/// Time between frames of [`stream`] in milliseconds, and its frames in a group of pictures.
const FRAME_STEP: u64 = 40;
const GOP: u32 = 10;

const MILLISECOND: u64 = 1_000_000;
const NONE: u64 = u64::MAX;

/// Publishes tags and closes the connection without ending the stream.
fn publish(recorder: &Recorder, tags: &[Tag]) {
    let mut client = RawClient::publish(recorder.port(), "live", "secret-key");
    send(&mut client, tags);
    client.socket.shutdown(Shutdown::Write).unwrap();
}

fn count(recorder: &Recorder, name: &str) -> u64 {
    let stats = recorder.stats();
    let count = stats.get::<u64>(name);
    count.unwrap_or_else(|error| panic!("{name}: {error} in {stats}"))
}

#[track_caller]
fn assert_counts<'a>(recorder: &Recorder, expected: impl IntoIterator<Item = (&'a str, u64)>) {
    for (name, expected) in expected {
        assert_eq!(count(recorder, name), expected, "{name}");
    }
}

fn last_error(recorder: &Recorder) -> String {
    let error: String = recorder.stats().get("last-error").unwrap();
    assert!(!error.contains("secret"), "{error}");
    error
}

/// Returns the number of tags of a kind, and the bytes of their bodies.
fn count_and_bytes(tags: &[Tag], kind: u8) -> (u64, u64) {
    let of_kind = || tags.iter().filter(|tag| tag.kind == kind);
    let bytes: usize = of_kind().map(|tag| tag.body.len()).sum();
    (of_kind().count() as u64, bytes as u64)
}

#[test]
fn tags_and_bytes_are_counted_by_kind_and_frames_by_their_times() {
    let recorder = Recorder::start("keep-listening=true");
    let signals = Signals::watch(&recorder.element);
    let never = ["time-since-last-byte", "time-since-last-keyframe"];
    assert_counts(&recorder, never.map(|name| (name, NONE)));
    assert_counts(&recorder, [("publishers", 0), ("downtime", 0)]);

    // 30 frames: more than a second, and two whole groups of pictures.
    let tags = stream(5000, 30);
    for publisher in 1..=2 {
        publish(&recorder, &tags);
        signals.wait_for(2 * publisher as usize);
        for (kind, name) in [
            (flv::AUDIO, "audio"),
            (flv::VIDEO, "video"),
            (flv::SCRIPT, "script"),
        ] {
            let (tags, bytes) = count_and_bytes(&tags, kind);
            let of_one = [("tags", tags), ("bytes", bytes)];
            for (what, expected) in of_one {
                let name = format!("{name}-{what}");
                assert_eq!(count(&recorder, &name), expected, "{name}");
                let total = format!("total-{name}");
                assert_eq!(count(&recorder, &total), publisher * expected, "{total}");
            }
        }
        let all = tags.len() as u64;
        let keyframes = 3;
        assert_counts(
            &recorder,
            [
                ("tags", all),
                ("total-tags", publisher * all),
                ("keyframes", keyframes),
                ("total-keyframes", publisher * keyframes),
                ("publishers", publisher),
                ("gop-duration", u64::from(GOP) * FRAME_STEP * MILLISECOND),
            ],
        );
        let stats = recorder.stats();
        assert_eq!(stats.get::<u32>("gop-length"), Ok(GOP));
        assert_eq!(stats.get::<f64>("frame-rate"), Ok(25.0));
        assert!(never.iter().all(|name| count(&recorder, name) != NONE));
        // The handshake, commands and chunk headers come in addition.
        let (connection, bodies) = (count(&recorder, "in-bytes-total"), body_bytes(&tags));
        assert!(connection > bodies && connection < bodies + 20_000);
    }
    assert!(count(&recorder, "bitrate-average") > 0);
    assert!(count(&recorder, "total-uptime") > 0);
    assert_counts(&recorder, [("bitrate", 0), ("uptime", 0)]);
}

fn body_bytes(tags: &[Tag]) -> u64 {
    tags.iter().map(|tag| tag.body.len() as u64).sum()
}

#[test]
fn a_client_that_publishes_twice_counts_as_two_publishers() {
    let recorder = Recorder::start("keep-listening=true");
    let signals = Signals::watch(&recorder.element);
    let mut client = RawClient::publish(recorder.port(), "live", "secret-key");
    let tags = stream(0, 12);
    send(&mut client, &tags);
    client.command(0, "deleteStream", 4.0, &[Value::Null, 1.0.into()]);
    let arguments = [Value::Null, "secret-key".into(), "live".into()];
    client.command(1, "publish", 5.0, &arguments);
    signals.wait_for(3);
    send(&mut client, &tags[..5]);
    client.socket.shutdown(Shutdown::Write).unwrap();
    signals.wait_for(4);
    assert_counts(
        &recorder,
        [("publishers", 2), ("tags", 5), ("total-tags", 27 + 5)],
    );
}

#[test]
fn stats_contain_the_stream_state() {
    let recorder = Recorder::start("keep-listening=true");
    let state = || {
        let stats = recorder.stats();
        let connection: ConnectionState = stats.get("connection-state").unwrap();
        let stream: StreamStatus = stats.get("stream-status").unwrap();
        (connection, stream)
    };
    let initial = (ConnectionState::Disconnected, StreamStatus::Stopped);
    assert_eq!(state(), initial);
    let mut client = RawClient::publish(recorder.port(), "live", "secret-key");
    send(&mut client, &stream(0, 2));
    // Two states of the connecting client, then reconfiguring and active.
    recorder.messages("rtmp2-stream-status", 4);
    let active = (ConnectionState::Streaming, StreamStatus::Active);
    assert_eq!(state(), active);
    assert_counts(&recorder, [("epoch", 1)]);
}

#[test]
fn reconnects_and_downtime_are_counted() {
    let recorder = Recorder::start("keep-listening=true resume-timeout=600000");
    let signals = Signals::watch(&recorder.element);
    publish(&recorder, &stream(0, 2));
    signals.wait_for(2);
    assert_eq!(
        last_error(&recorder),
        "closed: it has closed the connection"
    );
    let outage = count(&recorder, "outage");
    assert!(outage > 0 && count(&recorder, "downtime") > outage);
    assert_counts(&recorder, [("reconnects", 0), ("replacements", 0)]);

    let _client = RawClient::publish(recorder.port(), "live", "secret-key");
    signals.wait_for(3);
    let downtime = count(&recorder, "downtime");
    assert!(downtime > outage && count(&recorder, "uptime") > 0);
    let expected = [("reconnects", 1), ("publishers", 2), ("outage", 0)];
    assert_counts(&recorder, expected);
    // Downtime does not grow while a publisher is present.
    assert_counts(&recorder, [("downtime", downtime)]);

    // A replacement is no reconnect, and adds no downtime.
    recorder
        .element
        .set_property_from_str("publisher-policy", "replace");
    let _other = RawClient::publish(recorder.port(), "live", "secret-key");
    signals.wait_for(5);
    assert_counts(&recorder, [("reconnects", 1), ("replacements", 1)]);
    assert_counts(&recorder, [("downtime", downtime)]);

    // A publisher that was disconnected on purpose counts as new.
    recorder
        .element
        .emit_by_name::<()>("disconnect-publisher", &[]);
    let _third = RawClient::publish(recorder.port(), "live", "secret-key");
    assert_counts(&recorder, [("reconnects", 1), ("publishers", 4)]);
    assert!(count(&recorder, "downtime") > downtime);
}

#[test]
fn the_last_error_names_the_refused_client_and_the_reason() {
    let recorder = Recorder::start("keep-listening=true publisher-policy=reject");
    assert_eq!(last_error(&recorder), "");
    assert_counts(&recorder, [("time-since-last-error", NONE)]);
    let _first = RawClient::publish(recorder.port(), "live", "secret-key");
    let mut second = RawClient::connect(recorder.port());
    assert_eq!(second.try_publish("live", "secret-key"), None);
    assert_eq!(last_error(&recorder), "refused: busy");
    let address = second.socket.local_addr().unwrap().to_string();
    let error_address: String = recorder.stats().get("last-error-address").unwrap();
    assert_eq!(error_address, address);
    assert_ne!(count(&recorder, "time-since-last-error"), NONE);
    assert_counts(&recorder, [("rejected", 1)]);
}

#[test]
fn the_last_error_tells_why_a_publisher_ended() {
    let recorder = Recorder::start("keep-listening=true");
    let signals = Signals::watch(&recorder.element);
    let mut client = RawClient::publish(recorder.port(), "live", "secret-key");
    client.message(2, 1, 0, &[0; 4]);
    signals.wait_for(2);
    assert_eq!(last_error(&recorder), "violation: chunk size 0");

    recorder.element.set_property("timeout", 1u32);
    let _client = RawClient::publish(recorder.port(), "live", "secret-key");
    signals.wait_for(4);
    assert_eq!(last_error(&recorder), "timeout: it sent nothing for 1s");
    recorder.element.set_property("timeout", 0u32);

    // A client that never publishes, and that no handler decides about.
    let mut client = RawClient::connect(recorder.port());
    client.send(b"GET / HTTP/1.1\r\n\r\n");
    assert!(matches!(client.read_message(), Ok(None) | Err(_)));
    let error = last_error(&recorder);
    assert!(error.starts_with("violation: HTTP"), "{error}");

    // A deliberate end is no error.
    let mut client = RawClient::publish(recorder.port(), "live", "secret-key");
    client.command(0, "deleteStream", 4.0, &[Value::Null, 1.0.into()]);
    client.socket.shutdown(Shutdown::Write).unwrap();
    signals.wait_for(6);
    assert_eq!(last_error(&recorder), error);
}

#[test]
fn dropped_tags_are_counted_by_reason() {
    let recorder = Recorder::start("keep-listening=true");
    let signals = Signals::watch(&recorder.element);
    let mut tags = vec![video_header(0)];
    tags.extend([0, 40, 80].map(|time| delta_frame(time, 100)));
    tags.extend([keyframe(120, 100), delta_frame(160, 100)]);
    publish(&recorder, &tags);
    recorder.wait_until("the media from the keyframe on", |buffers| {
        buffers.len() == 4
    });
    signals.wait_for(2);
    let none = ["queue-full", "descriptions", "cut-off"].map(|name| format!("dropped-{name}"));
    assert_counts(&recorder, none.iter().map(|name| (name.as_str(), 0)));
    assert_counts(&recorder, [("dropped-before-keyframe", 3)]);

    // More descriptions than are kept while no media follows.
    let text = [b'x'; 60_000];
    let long_string = [&[12][..], &(text.len() as u32).to_be_bytes(), &text].concat();
    let body = [&b"\x02\x00\x06onText"[..], &long_string].concat();
    let descriptions = vec![Tag::new(flv::SCRIPT, 0, body); 30];
    publish(&recorder, &descriptions);
    signals.wait_for(4);
    publish(&recorder, &stream(0, 1));
    recorder.wait_until("the next publisher", |buffers| buffers.len() == 4 + 5);
    let dropped = count(&recorder, "dropped-descriptions");
    assert!(dropped > 0 && dropped < 30, "{dropped}");
}

#[test]
fn the_drops_and_the_level_of_a_full_queue_are_counted() {
    let downstream = "fakesink sync=false async=false";
    let properties = "leaky-type=upstream max-bytes=20000";
    let recorder = Recorder::start_into(properties, downstream);
    let signals = Signals::watch(&recorder.element);
    // Blocks the first buffer until everything was sent.
    let (release, released) = mpsc::channel();
    let released = Mutex::new(released);
    let pad = recorder.element.static_pad("src").unwrap();
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    pad.add_probe(kinds, move |_, _| {
        let _ = released.lock().unwrap().recv_timeout(PATIENCE);
        gst::PadProbeReturn::Remove
    });
    let mut tags = vec![metadata(0), video_header(0)];
    let frames = (0..100).map(|index| match index % 10 {
        0 => keyframe(40 * index, 500),
        _ => delta_frame(40 * index, 400),
    });
    tags.extend(frames);
    let mut client = RawClient::publish(recorder.port(), "live", "secret-key");
    send(&mut client, &tags[..3]);
    recorder.wait_until("the blocked buffer", |buffers| !buffers.is_empty());
    send(&mut client, &tags[3..]);
    client.socket.shutdown(Shutdown::Write).unwrap();
    signals.wait_for(2);
    let level = count(&recorder, "current-level-bytes");
    assert!(level > 10_000 && level <= 20_000, "{level}");
    let time = count(&recorder, "current-level-time");
    assert!(time >= 400 * MILLISECOND, "{time}");
    let property: u64 = recorder.element.property("current-level-bytes");
    assert_eq!(level, property);
    release.send(()).unwrap();
    let left = recorder.finish().len();
    assert!(left < tags.len());
    let dropped = (tags.len() - left) as u64;
    assert_counts(
        &recorder,
        [
            ("dropped-queue-full", dropped),
            ("tags", tags.len() as u64),
            ("current-level-bytes", 0),
            ("current-level-time", 0),
        ],
    );
}

#[test]
fn process_stats_are_the_sums_of_all_elements() {
    // In a process without other elements.
    if is_isolated("stats::process_stats_are_the_sums_of_all_elements") {
        assert_sums_of_three_elements();
    }
}

fn assert_sums_of_three_elements() {
    init();
    let first = Recorder::start("stream-key=one keep-listening=true");
    let port = first.port();
    // The second element shares the first one's port, and the third one has its own.
    let second = format!("port={port} stream-key=two keep-listening=true");
    let second = Recorder::start(&second);
    let third = Recorder::start("stream-key=three keep-listening=true");
    let process = |recorder: &Recorder| -> gst::Structure {
        recorder.stats().get::<gst::Structure>("process").unwrap()
    };
    let assert_process = |recorder: &Recorder, expected: &[(&str, u64)]| {
        let process = process(recorder);
        for (name, expected) in expected {
            assert_eq!(process.get::<u64>(*name), Ok(*expected), "{name}");
        }
    };
    assert_process(
        &first,
        &[
            ("elements", 3),
            ("listeners", 2),
            ("clients", 0),
            ("tags", 0),
        ],
    );

    let routes = [
        (&first, "one", 12),
        (&second, "two", 20),
        (&third, "three", 5),
    ];
    let mut clients = Vec::new();
    let mut sent = 0;
    for (recorder, key, frames) in routes {
        let mut client = RawClient::publish(recorder.port(), "live", key);
        let mut tags = stream(0, frames);
        tags.insert(1, delta_frame(0, 50));
        send(&mut client, &tags);
        sent += tags.len() as u64;
        // The file header is added, and the frame before the keyframe is dropped.
        recorder.wait_until("all media", |buffers| buffers.len() == tags.len());
        clients.push(client);
    }
    let mut refused = RawClient::connect(port);
    assert_eq!(refused.try_publish("live", "four"), None);
    drop(refused);
    let recorders = || [&first, &second, &third].into_iter();
    let sum = |name| recorders().map(|r| count(r, name)).sum::<u64>();
    // Both elements of the port counted the refused client.
    let totals = [
        ("publishing", 3),
        ("publishers", 3),
        ("tags", sent),
        ("in-bytes", sum("total-in-bytes")),
        ("rejected", 2),
        ("dropped", 3),
    ];
    assert_eq!(sum("rejected"), 2);
    recorders().for_each(|recorder| assert_process(recorder, &totals));

    // The process totals keep what a stopped element counted; its own counters restart.
    let in_bytes = sum("total-in-bytes");
    first.pipeline.set_state(gst::State::Null).unwrap();
    assert_counts(&first, [("total-tags", 0), ("publishers", 0)]);
    let totals = [
        ("elements", 2),
        ("listeners", 2),
        ("publishing", 2),
        ("publishers", 3),
        ("tags", sent),
        ("in-bytes", in_bytes),
        ("rejected", 2),
        ("dropped", 3),
    ];
    assert_process(&first, &totals);
    drop(second);
    assert_process(&first, &[("listeners", 1), ("clients", 1), ("tags", sent)]);
}

#[test]
fn history_has_each_state_that_was_posted() {
    let before = SystemTime::now();
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &stream(0, 3));
    unpublish(client);
    recorder.finish();
    let posted = recorder.messages("rtmp2-stream-status", 1);
    let stats = recorder.stats();
    let history: gst::Array = stats.get("history").unwrap();
    let states: Vec<gst::Structure> = history.iter().map(|s| s.get().unwrap()).collect();
    let state = |state: &gst::Structure| {
        let connection: ConnectionState = state.get("connection-state").unwrap();
        let status: StreamStatus = state.get("stream-status").unwrap();
        (connection, status, state.get::<u64>("epoch").unwrap())
    };
    let all = |structures: &[gst::Structure]| structures.iter().map(state).collect::<Vec<_>>();
    assert_eq!(all(&states), all(&posted));
    let last = (ConnectionState::Disconnected, StreamStatus::Stopped, 1);
    assert_eq!(all(&states).last(), Some(&last));
    let times: Vec<u64> = states.iter().map(|s| s.get("time").unwrap()).collect();
    let nanos = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    assert!(times.is_sorted() && times[0] >= nanos(before));
    assert!(times[times.len() - 1] <= nanos(SystemTime::now()));
}
