// SPDX-License-Identifier: MPL-2.0

//! A publisher that is cut off at random times, repeatedly: resource usage does not grow. A short
//! run is part of the tests; `make soak` runs it for half an hour.

use std::time::{Duration, Instant};

use gst::prelude::*;
use gstrtmp2server::StreamStatus;

use support::clients::{FFMPEG, Running};
use support::media::small;
use support::netns::{self, Machine, SERVER};
use support::resources::{memory, resources};
use support::{PATIENCE, init};

/// The environment variable with the duration in seconds.
const SECONDS: &str = "RTMP2SERVER_TEST_SOAK_SECONDS";
const SHORT: u64 = 20;

/// Cuts after which everything that is created once exists.
const WARM_UP: usize = 5;

/// Growth that the allocator may cause, in kB.
const MAX_GROWTH: u64 = 8 * 1024;

struct Soak {
    pipeline: gst::Pipeline,
    element: gst::Element,
    machine: Machine,
    random: fastrand::Rng,
}

impl Soak {
    fn start() -> Self {
        init();
        let text = "rtmp2serversrc name=src port=0 keep-listening=true stall-timeout=300 ! \
                    flvdemux name=d d.video ! queue ! fakesink sync=true async=false \
                    d.audio ! queue ! fakesink sync=true async=false";
        let pipeline = gst::parse::launch(text).unwrap();
        let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
        let element = pipeline.by_name("src").unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        Soak {
            pipeline,
            element,
            machine: Machine::new(1),
            random: fastrand::Rng::with_seed(4),
        }
    }

    fn publisher(&self) -> Running {
        let port: u32 = self.element.property("current-port");
        let arguments = format!(
            "-nostdin -v error -re -i {} -map 0 -c copy -f flv rtmp://{SERVER}:{port}/live/key",
            small(60).display()
        );
        let mut command = self.machine.command(FFMPEG);
        Running::spawn(command.args(arguments.split_whitespace()))
    }

    /// Waits until the stream is active in an epoch after this one.
    #[track_caller]
    fn wait_for_stream(&self, after: u64) -> u64 {
        let bus = self.pipeline.bus().unwrap();
        let patience = gst::ClockTime::try_from(PATIENCE).unwrap();
        let kinds = [
            gst::MessageType::Element,
            gst::MessageType::Error,
            gst::MessageType::Eos,
        ];
        loop {
            let message = bus.timed_pop_filtered(patience, &kinds).expect("a status");
            let is_element = message.type_() == gst::MessageType::Element;
            assert!(is_element, "the pipeline goes on: {message:?}");
            let status = message.structure().unwrap();
            let epoch: u64 = status.get("epoch").unwrap();
            let is_on = status.get("stream-status") == Ok(StreamStatus::Active);
            if is_on && epoch > after {
                return epoch;
            }
        }
    }

    /// Runs one publisher until it is killed or loses its network.
    fn cut(&mut self, epoch: u64) -> u64 {
        let publisher = self.publisher();
        let epoch = self.wait_for_stream(epoch);
        std::thread::sleep(Duration::from_millis(self.random.u64(..1000)));
        if self.random.bool() {
            // No packet reports the end of this publisher.
            self.machine.pull_out();
            let outage = Duration::from_millis(self.random.u64(300..800));
            std::thread::sleep(outage);
            drop(publisher);
            self.machine.plug_in();
        }
        epoch
    }

    /// Returns the threads and descriptors in use while a publisher streams.
    fn usage(&self, epoch: &mut u64) -> (std::collections::BTreeMap<String, usize>, usize) {
        let publisher = self.publisher();
        *epoch = self.wait_for_stream(*epoch);
        // Pending events and the previous client's thread end within a moment.
        let deadline = Instant::now() + PATIENCE;
        let settled = loop {
            let (threads, descriptors) = resources();
            let clients = threads.iter().filter(|(name, _)| name.contains("client"));
            let is_settled = clients.map(|(_, count)| count).sum::<usize>() <= 1
                && !threads.keys().any(|name| name.contains("rtmp-events"));
            if is_settled || Instant::now() > deadline {
                break (threads, descriptors);
            }
            std::thread::yield_now();
        };
        drop(publisher);
        settled
    }
}

/// Returns the slope of the regression line through these points.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / count;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let along: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    along / points.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>()
}

#[test]
fn a_publisher_cut_off_at_random_leaks_nothing() {
    let test = "soak::a_publisher_cut_off_at_random_leaks_nothing";
    if let Some(status) = netns::enter(test) {
        assert!(status.success(), "in a network of its own: {status}");
        return;
    }
    let seconds = std::env::var(SECONDS).map_or(SHORT, |text| text.parse().unwrap());
    let mut soak = Soak::start();
    let mut epoch = 0;
    for _ in 0..WARM_UP {
        epoch = soak.cut(epoch);
    }
    let before = soak.usage(&mut epoch);
    let start = Instant::now();
    let mut points = Vec::new();
    while start.elapsed() < Duration::from_secs(seconds) {
        epoch = soak.cut(epoch);
        points.push((start.elapsed().as_secs_f64() / 60.0, memory() as f64));
    }
    let after = soak.usage(&mut epoch);
    soak.pipeline.set_state(gst::State::Null).unwrap();
    // Usage may still settle during the first half.
    let settled = &points[points.len() / 2..];
    println!(
        "{} cuts in {} s: {:.0} kB, then {:.0} kB; slope of the second half {:.1} kB a minute",
        points.len(),
        start.elapsed().as_secs(),
        points[0].1,
        settled[settled.len() - 1].1,
        slope(settled)
    );
    assert_eq!(after, before, "threads and descriptors");
    let growth = settled[settled.len() - 1].1 - settled[0].1;
    assert!(growth < MAX_GROWTH as f64, "{growth} kB");
}
