// SPDX-License-Identifier: MPL-2.0

//! A publisher that others try to keep out, or to slow down.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::support::camera::{Camera, index_of};
use crate::support::flv::{self, VIDEO};
use crate::support::raw::RawClient;
use crate::support::recorder::Recorder;
use crate::support::signals::Signals;

const HALF_OPEN: usize = 1000;
const CONNECTIONS_PER_SECOND: u32 = 500;
const DURATION: Duration = Duration::from_secs(4);

/// A frame that arrives later than this after it was sent has been held up.
const MAX_LATE: Duration = Duration::from_millis(100);

/// When each frame left the element, by its number.
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
            let see = |buffer: &gst::BufferRef| {
                let bytes = buffer.map_readable().unwrap();
                if bytes.first() == Some(&VIDEO) {
                    let tag = flv::Tag::new(VIDEO, 0, &bytes[11..bytes.len() - 4]);
                    if tag.is_frame() {
                        seen.0.lock().unwrap().push((index_of(&tag), now));
                    }
                }
            };
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => see(buffer),
                Some(gst::PadProbeData::BufferList(list)) => list.iter().for_each(see),
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
        arrivals
    }

    /// How many there were, and how long the slowest of them was under way.
    fn slowest(&self, sent: &[Instant]) -> (usize, Duration) {
        let arrivals = self.0.lock().unwrap();
        let delay = |(index, when): &(u32, Instant)| when.duration_since(sent[*index as usize]);
        (arrivals.len(), arrivals.iter().map(delay).max().unwrap())
    }
}

/// Connects over and over, and gives how often that was.
fn flood(port: u16, stop: Arc<AtomicBool>, count: Arc<AtomicUsize>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let pace = Duration::from_secs(1) / CONNECTIONS_PER_SECOND;
        let start = Instant::now();
        let mut held = std::collections::VecDeque::new();
        for index in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep((pace * index).saturating_sub(start.elapsed()));
            held.extend(TcpStream::connect(("127.0.0.1", port)));
            // It keeps as many as it can.
            if held.len() > HALF_OPEN {
                held.pop_front();
            }
            count.fetch_add(1, Ordering::Relaxed);
        }
    })
}

#[test]
fn a_flood_and_half_open_handshakes_do_not_reach_the_publisher() {
    // All of them from one address, as far as anybody can tell.
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
    // In the middle of it another publisher gets in, from the same address. The time of the flood
    // is what is measured here.
    let start = Instant::now();
    let properties = format!("port={port} application=other keep-listening=true");
    let other = Recorder::start(&properties);
    let signals = Signals::watch(&other.element);
    let mut latest = Duration::ZERO;
    for round in 1.. {
        let began = Instant::now();
        let mut client = RawClient::connect(port);
        while client.try_publish("other", "key").is_none() {
            client = RawClient::connect(port);
        }
        latest = latest.max(began.elapsed());
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
         publisher was in after {latest:?} at most",
        count.load(Ordering::Relaxed)
    );
    assert_eq!(frames, report.frames as usize);
    assert!(
        report.reconnects.is_empty() && report.unsent.is_empty(),
        "{report:?}"
    );
    assert!(slowest < MAX_LATE, "{slowest:?}");
    drop(half_open);
}
