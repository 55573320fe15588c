// SPDX-License-Identifier: MPL-2.0

//! `rtmp2fallbacksink` with servers that are slow, wrong or missing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstrtmp2server::FallbackStatus;

use crate::fallback::{KEY, SendingPipeline, received, server, url};
use support::init;
use support::isolated::is_isolated;
use support::netns::{self, Machine};
use support::nginx::Nginx;
use support::ports::reserved_port;
use support::recorder::Recorder;
use support::resources::resources;

/// Any wait that did not end at once would take an hour.
const MAX_STOP_DELAY: Duration = Duration::from_secs(5);

/// Bytes that the systems at both ends may buffer.
const MAX_LOST: u64 = 2 << 20;

const HOUR: [(&str, u32); 2] = [("timeout", 3_600_000), ("retry-initial-delay", 3_600_000)];

/// Cycles, half of them with a server.
const CYCLES: usize = 300;

#[test]
fn the_sink_stops_at_once_while_a_server_accepts_no_data() {
    let nginx = Nginx::recorder();
    let mut source = SendingPipeline::start(&[nginx.url(KEY)], &HOUR);
    source.push_headers();
    source.wait_for_status(FallbackStatus::Connected, 0, 1);
    nginx.freeze();
    // More than the kernel buffers.
    source.frame_bytes = 400_000;
    source.push_frames(100);
    assert!(source.count("tags-dropped") > 0 && source.count("current-level-bytes") > 0);
    let start = Instant::now();
    source.pipeline.set_state(gst::State::Null).unwrap();
    assert!(start.elapsed() < MAX_STOP_DELAY);
    source.wait_for_status(FallbackStatus::Disconnected, -1, 1);
    nginx.thaw();
}

/// Without a limit the system would buffer megabytes, which would all be lost.
#[test]
fn a_server_that_stops_reading_is_noticed_before_much_is_lost() {
    let nginx = Nginx::recorder();
    let properties = [("timeout", 1000), ("retry-initial-delay", 3_600_000)];
    let mut source = SendingPipeline::start(&[nginx.url(KEY)], &properties);
    source.push_headers();
    source.push_until_connected(0, 1);
    nginx.freeze();
    let before = source.count("bytes-sent");
    source.push_while_connected();
    nginx.thaw();
    assert!(source.last_error().contains("accepted no data"));
    let lost = source.count("bytes-sent") - before;
    assert!(lost < MAX_LOST, "{lost}");
}

#[test]
fn a_server_that_answers_late_gets_the_last_group_first() {
    let nginx = Nginx::recorder();
    nginx.freeze();
    let mut source = SendingPipeline::start(&[nginx.url(KEY)], &HOUR);
    source.push_headers();
    source.wait_for_status(FallbackStatus::Connecting, 0, 1);
    source.push_frames(35);
    assert_eq!(source.count("tags-sent"), 0);
    nginx.thaw();
    source.wait_for_status(FallbackStatus::Connected, 0, 1);
    source.push_frames(1);
    source.end();
    // Three groups were dropped, and the fourth is not complete yet.
    assert_eq!(
        (source.count("tags-dropped"), source.count("tags-sent")),
        (60, 12)
    );
}

#[test]
fn unknown_hosts_and_servers_without_tls_are_skipped() {
    let (gate, recorder) = server();
    let without_tls = Recorder::start("keep-listening=true");
    let without_tls = without_tls.url("live/key").replace("rtmp:", "rtmps:");
    let locations = [
        "rtmp://no-such-host.invalid/live/key".to_owned(),
        without_tls,
        url(&gate),
    ];
    let mut source = SendingPipeline::start(&locations, &[]);
    source.push_headers();
    source.push_frames(5);
    source.wait_for_status(FallbackStatus::Connected, 2, 1);
    let got = received(&recorder, source.sent.last().unwrap());
    assert_eq!(got.iter().filter(|tag| tag.is_coded()).count(), 10);
    let reason = |index: i32| {
        source.wait_for("reason", |message| {
            let structure = message.structure()?;
            let is_next = structure.get::<i32>("location-index") == Ok(index);
            is_next.then(|| structure.get::<String>("last-error").unwrap())
        })
    };
    assert!(reason(1).contains("resolv"), "{}", reason(1));
    assert!(!reason(2).is_empty());
}

#[test]
fn a_pulled_cable_moves_the_stream_and_a_plugged_one_returns_it() {
    let test = "fallback_errors::a_pulled_cable_moves_the_stream_and_a_plugged_one_returns_it";
    if let Some(status) = netns::enter(test) {
        assert!(status.success(), "in a network of its own: {status}");
        return;
    }
    let machine = Machine::new(1);
    let (first, second) = (Nginx::recorder_on(&machine), Nginx::recorder());
    let locations = [first.url(KEY), second.url(KEY)];
    let properties = [
        ("timeout", 1000),
        ("return-to-primary", 200),
        ("max-attempts", 0),
    ];
    let mut source = SendingPipeline::start(&locations, &properties);
    source.push_headers();
    source.wait_for_status(FallbackStatus::Connected, 0, 1);
    source.push_frames(25);
    machine.pull_out();
    // More than the kernel buffers: what it buffers is lost unnoticed.
    source.frame_bytes = 400_000;
    source.push_frames(50);
    source.wait_for_status(FallbackStatus::Connected, 1, 1);
    source.frame_bytes = 300;
    source.push_frames(25);
    machine.plug_in();
    source.push_until_connected(0, 2);
    assert!(first.recorded() > 0 && second.recorded() > 0);
}

/// Returns the threads, without those that the pools of GLib and GStreamer keep, and the
/// descriptors.
fn in_use() -> (BTreeMap<String, usize>, usize) {
    let (mut threads, descriptors) = resources();
    threads.retain(|name, _| !name.starts_with("pool-") && !name.starts_with("task"));
    (threads, descriptors)
}

/// Goes from NULL to PLAYING and back, with a server at `location` or without.
fn cycle(location: &str, status: FallbackStatus) {
    let mut source = SendingPipeline::start(&[location.to_owned()], &HOUR);
    source.push_headers();
    source.push_frames(2);
    let index = if status == FallbackStatus::Connected {
        0
    } else {
        -1
    };
    source.wait_for_status(status, index, 1);
}

#[test]
fn cycles_leave_no_thread_and_no_descriptor() {
    // In a process where no other test starts threads.
    if !is_isolated("fallback_errors::cycles_leave_no_thread_and_no_descriptor") {
        return;
    }
    init();
    let nginx = Nginx::recorder();
    let (_reserved, port) = reserved_port();
    let closed = format!("rtmp://127.0.0.1:{port}/live/{KEY}");
    let both = || {
        // Each cycle uses its own key: nginx takes a moment to notice that a publisher has left.
        let key = fastrand::u64(..);
        cycle(&nginx.url(&format!("key{key}")), FallbackStatus::Connected);
        cycle(&closed, FallbackStatus::Disconnected);
    };
    (0..5).for_each(|_| both());
    let before = in_use();
    (0..CYCLES / 2).for_each(|_| both());
    assert_eq!(in_use(), before);
}
