// SPDX-License-Identifier: MPL-2.0

//! A flood of rejected clients does not become a flood of messages.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Instant;

use gst::prelude::*;
use gstrtmp2server::{ConnectionState, StreamEvent};

use support::PATIENCE;
use support::raw::RawClient;
use support::recorder::Recorder;

use crate::multi::multi_recorder::MultiRecorder;

const CLIENTS: u64 = 400;

const EVENT: &str = "rtmp2-stream-event";
const STATUS: &str = "rtmp2-stream-status";

/// Messages that may be posted at once, and then in each second, with a margin.
const BURST: u64 = 33;
const RATE: u64 = 11;

fn reject(port: u16) {
    let mut client = RawClient::connect(port);
    assert!(client.try_publish("other", "key").is_none());
}

/// Returns the number of posted rejections, and of those that they account for.
fn rejections(events: &[gst::Structure]) -> (u64, u64) {
    let rejected = events
        .iter()
        .filter(|event| event.get("event") == Ok(StreamEvent::PublisherRejected));
    let suppressed = rejected.map(|event| {
        let details: gst::Structure = event.get("details").unwrap();
        details.get::<u64>("suppressed").unwrap()
    });
    suppressed.fold((0, 0), |(posted, all), suppressed| {
        (posted + 1, all + 1 + suppressed)
    })
}

#[track_caller]
fn assert_rationed(posted: u64, start: Instant) {
    let limit = BURST + RATE * (start.elapsed().as_secs() + 1);
    assert!(posted <= limit, "{posted} messages, {limit} are allowed");
}

#[test]
fn rejections_of_the_source_are_rationed_and_counted() {
    let properties = "application=live max-clients-per-address=1000 keep-listening=true";
    let recorder = Recorder::start(properties);
    let start = Instant::now();
    (0..CLIENTS).for_each(|_| reject(recorder.port()));
    // The last one is posted after the flood, without anything else that happens.
    let deadline = Instant::now() + PATIENCE;
    let posted = loop {
        let (posted, all) = rejections(&recorder.messages(EVENT, 0));
        if all == CLIENTS {
            break posted;
        }
        assert!(Instant::now() < deadline, "{all} of {CLIENTS}");
        std::thread::yield_now();
    };
    assert_rationed(posted, start);
    assert_eq!(recorder.stats().get("rejected"), Ok(CLIENTS));
}

/// The status tells the truth during a flood too: it is late by a moment at most.
#[test]
fn a_client_that_waits_for_a_decision_is_shown_during_a_flood() {
    let properties = "application=live max-clients-per-address=1000 keep-listening=true";
    let recorder = Recorder::start(properties);
    let (decide, decision) = mpsc::channel::<bool>();
    let decision = Mutex::new(decision);
    let wait = move |_: &[gst::glib::Value]| {
        let may_publish = decision.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        Some(may_publish.to_value())
    };
    recorder
        .element
        .connect("publisher-connecting", false, wait);
    let port = recorder.port();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                reject(port);
            }
        });
        // The ration is used up.
        recorder.messages(EVENT, BURST as usize);
        let waiting = scope.spawn(|| RawClient::connect(port).try_publish("live", "key"));
        let state = |status: &gst::Structure| status.get("connection-state").unwrap();
        let shown: Vec<ConnectionState> = recorder.messages(STATUS, 2).iter().map(state).collect();
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(
            shown[..2],
            [
                ConnectionState::SocketConnected,
                ConnectionState::Authenticating
            ]
        );
        decide.send(true).unwrap();
        assert!(waiting.join().unwrap().is_some());
    });
}

#[test]
fn statuses_of_rejected_clients_are_rationed() {
    let recorder = Recorder::start("max-clients-per-address=1000 keep-listening=true");
    recorder
        .element
        .connect("publisher-connecting", false, |_| Some(false.to_value()));
    let start = Instant::now();
    for _ in 0..CLIENTS {
        reject(recorder.port());
    }
    let deadline = Instant::now() + PATIENCE;
    while rejections(&recorder.messages(EVENT, 0)).1 < CLIENTS {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    // Each client that is shown has three.
    let statuses = recorder.messages(STATUS, 0).len() as u64;
    assert_rationed(statuses / 3, start);
}

#[test]
fn rejections_of_the_multi_source_are_rationed_and_counted() {
    let recorder = MultiRecorder::start("application=live max-clients-per-address=1000");
    let start = Instant::now();
    (0..CLIENTS).for_each(|_| reject(recorder.port()));
    // The last one is posted after the flood, without anything else that happens.
    let deadline = Instant::now() + PATIENCE;
    let posted = loop {
        let events = recorder.inspect(|seen| seen.element_messages(EVENT));
        let events: Vec<gst::Structure> = events.into_iter().map(|(_, event)| event).collect();
        let (posted, all) = rejections(&events);
        if all == CLIENTS {
            break posted;
        }
        assert!(Instant::now() < deadline, "{all} of {CLIENTS}");
        std::thread::yield_now();
    };
    assert_rationed(posted, start);
}
