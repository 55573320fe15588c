// SPDX-License-Identifier: MPL-2.0

//! A publisher under attack: floods of connections and half-open handshakes.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;

use support::camera::{Camera, index_of};
use support::flv::{self, VIDEO};
use support::raw::RawClient;
use support::recorder::Recorder;
use support::signals::Signals;

const HALF_OPEN: usize = 1000;
const CONNECTIONS_PER_SECOND: u32 = 500;
const DURATION: Duration = Duration::from_secs(4);

/// Longest delay of a frame that counts as undisturbed.
const MAX_DELAY: Duration = Duration::from_millis(100);

/// The time at which each frame left the element, with the frame's index.
#[derive(Clone, Default)]
struct Arrivals(Arc<Mutex<Vec<(u32, Instant)>>>);

impl Arrivals {
    fn watch(recorder: &Recorder) -> Self {
        let arrivals = Arrivals::default();
        let seen = arrivals.clone();
        let pad = recorder.element.static_pad("src").unwrap();
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        pad.add_probe(kinds, move |_, info| {
            let now = Instant::now();
            let record = |buffer: &gst::BufferRef| {
                let bytes = buffer.map_readable().unwrap();
                if bytes.first() == Some(&VIDEO) {
                    let tag = flv::Tag::new(VIDEO, 0, &bytes[11..bytes.len() - 4]);
                    if tag.is_frame() {
                        seen.0.lock().unwrap().push((index_of(&tag), now));
                    }
                }
            };
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => record(buffer),
                Some(gst::PadProbeData::BufferList(list)) => list.iter().for_each(record),
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
        arrivals
    }

    /// Returns the number of frames and the longest delay among them.
    fn slowest(&self, sent: &[Instant]) -> (usize, Duration) {
        let arrivals = self.0.lock().unwrap();
        let delay = |(index, when): &(u32, Instant)| when.duration_since(sent[*index as usize]);
        (arrivals.len(), arrivals.iter().map(delay).max().unwrap())
    }
}

/// Connects repeatedly and counts the connections.
fn flood(port: u16, stop: Arc<AtomicBool>, count: Arc<AtomicUsize>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let pace = Duration::from_secs(1) / CONNECTIONS_PER_SECOND;
        let start = Instant::now();
        let mut connections = std::collections::VecDeque::new();
        for index in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep((pace * index).saturating_sub(start.elapsed()));
            connections.extend(TcpStream::connect(("127.0.0.1", port)));
            // The attacker holds as many connections as it can.
            if connections.len() > HALF_OPEN {
                connections.pop_front();
            }
            count.fetch_add(1, Ordering::Relaxed);
        }
    })
}

#[test]
fn a_publisher_is_unharmed_by_a_flood_and_half_open_handshakes() {
    // All clients share one address, as far as the server can tell.
    let recorder = Recorder::start("max-clients-per-address=100 keep-listening=true");
    let port = recorder.port();
    let arrivals = Arrivals::watch(&recorder);
    let camera = Camera::start(port, "key", false);
    recorder.wait_until("the camera", |buffers| buffers.len() > 10);

    let half_open: Vec<RawClient> = (0..HALF_OPEN)
        .filter_map(|_| {
            let mut client = RawClient::connect(port);
            client.try_handshake().is_ok().then_some(client)
        })
        .collect();
    assert!(half_open.len() > HALF_OPEN / 2, "{}", half_open.len());
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicUsize::new(0));
    let flood = flood(port, stop.clone(), count.clone());
    // Meanwhile another publisher gets in, from the same address. The duration of the flood is the
    // measurement.
    let start = Instant::now();
    let properties = format!("port={port} application=other keep-listening=true");
    let other = Recorder::start(&properties);
    let signals = Signals::watch(&other.element);
    let mut longest = Duration::ZERO;
    for round in 1.. {
        let attempt = Instant::now();
        let mut client = RawClient::connect(port);
        while client.try_publish("other", "key").is_none() {
            client = RawClient::connect(port);
        }
        longest = longest.max(attempt.elapsed());
        drop(client);
        signals.wait_for(2 * round);
        if start.elapsed() > DURATION {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap();
    let report = camera.stop();
    let (frames, slowest) = arrivals.slowest(&report.sent);
    println!(
        "{} connections, {frames} frames, the slowest was under way for {slowest:?}; another \
         publisher was in after {longest:?} at most",
        count.load(Ordering::Relaxed)
    );
    assert_eq!(frames, report.frames as usize);
    assert!(
        report.reconnects.is_empty() && report.unsent.is_empty(),
        "{report:?}"
    );
    assert!(slowest < MAX_DELAY, "{slowest:?}");
    drop(half_open);
}
