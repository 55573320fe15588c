// SPDX-License-Identifier: MPL-2.0

//! Rounds of random operations while the pipeline delays pushes at random.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gst::prelude::*;

use support::flv::{self, Tag};
use support::raw::{RawClient, send};
use support::recorder::Recorder;
use support::synthetic::{audio, audio_header, delta_frame, keyframe, video_header};

use super::harness::{CUSTOM, assert_in_order, coded, custom_event, synchronise};

/// The environment variable with the number of rounds.
const ROUNDS: &str = "RTMP2SERVER_TEST_DELIVERY_ROUNDS";

/// Duration of all rounds where their number is not set.
const DURATION: Duration = Duration::from_secs(12);

const SEED: u64 = 20;
const MAX_DELAY_MICROS: u64 = 12_000;

/// Rounds that run beside each other, so that threads are interrupted anywhere.
const LANES: u64 = 4;

/// Operations of the application in one round.
#[derive(Debug, Clone, Copy)]
enum Operation {
    Pause,
    Event,
    Stats,
    Limits,
    Position,
    KeyframeRequest,
    Contender,
    Flush,
}

/// A pad probe that delays pushes at random, now and then with a block.
fn delay_pushes(recorder: &Recorder, seed: u64) {
    let random = Mutex::new(fastrand::Rng::with_seed(seed));
    let pad = recorder.element.static_pad("src").unwrap();
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    pad.add_probe(kinds, move |_, _| {
        let mut random = random.lock().unwrap();
        let delay = match random.u8(..) {
            0..=1 => 250_000,
            2..=60 => random.u64(..MAX_DELAY_MICROS),
            _ => 0,
        };
        drop(random);
        thread::sleep(Duration::from_micros(delay));
        gst::PadProbeReturn::Ok
    });
}

struct Publisher {
    random: fastrand::Rng,
    time: u32,
    sent: Vec<Tag>,
}

impl Publisher {
    /// Publishes once, with random pauses.
    fn publish(&mut self, port: u16) -> RawClient {
        let mut client = RawClient::publish(port, "live", "key");
        let mut headers = [video_header(self.time), audio_header(self.time)];
        headers[0].body[6] = self.random.u8(..);
        send(&mut client, &headers);
        for index in 0..self.random.u32(10..60) {
            let mut tags = vec![match index % 10 {
                0 => keyframe(self.time, self.random.usize(10..3000)),
                _ => delta_frame(self.time, self.random.usize(10..1000)),
            }];
            if self.random.bool() {
                tags.push(audio(self.time + 7, self.random.usize(10..100)));
            }
            send(&mut client, &tags);
            self.sent.extend(tags);
            self.time += 40;
            if self.random.u8(..4) > 0 {
                thread::sleep(Duration::from_micros(self.random.u64(..2500)));
            }
        }
        client
    }

    /// Publishes one or more times. The last client is left.
    fn run(&mut self, port: u16) -> RawClient {
        let mut client = self.publish(port);
        for _ in 0..self.random.u32(..3) {
            synchronise(&mut client);
            // A clean end, a broken connection, or a replacement.
            let old = match self.random.u8(..3) {
                0 => {
                    support::raw::unpublish(client);
                    None
                }
                1 => {
                    drop(client);
                    None
                }
                _ => Some(client),
            };
            client = self.publish(port);
            drop(old);
        }
        synchronise(&mut client);
        client
    }
}

fn operate(
    recorder: &Recorder,
    random: &mut fastrand::Rng,
    operation: Operation,
    events: &AtomicU64,
) {
    let element = &recorder.element;
    match operation {
        Operation::Pause => {
            recorder.pipeline.set_state(gst::State::Paused).unwrap();
            thread::sleep(Duration::from_micros(random.u64(..5000)));
            recorder.pipeline.set_state(gst::State::Playing).unwrap();
        }
        Operation::Event => {
            let number = events.fetch_add(1, Ordering::Relaxed);
            assert!(element.send_event(custom_event(number as u32)));
        }
        Operation::Stats => drop(recorder.stats()),
        Operation::Limits => element.set_property("max-bytes", random.u64(2000..100_000)),
        Operation::Position => {
            element.query_position::<gst::ClockTime>();
        }
        Operation::KeyframeRequest => {
            let request = gst_video::UpstreamForceKeyUnitEvent::builder().build();
            element.static_pad("src").unwrap().send_event(request);
        }
        Operation::Contender => {
            let client = RawClient::connect(recorder.port()).try_publish("other", "key");
            assert!(client.is_none());
        }
        Operation::Flush => {
            assert!(element.send_event(gst::event::FlushStart::new()));
            thread::sleep(Duration::from_micros(random.u64(..2000)));
            assert!(element.send_event(gst::event::FlushStop::new(true)));
        }
    }
    thread::sleep(Duration::from_micros(random.u64(..8000)));
}

/// Events of the application that have left, by number, in order.
fn numbers(recorder: &Recorder) -> Vec<u32> {
    let events = recorder.events();
    let custom = events.iter().filter_map(|event| {
        let structure = event.structure().filter(|s| s.name() == CUSTOM)?;
        structure.get("number").ok()
    });
    custom.collect()
}

fn round(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let is_flushed = random.u8(..4) == 0;
    let recorder = Recorder::start("application=live keep-listening=true publisher-policy=replace");
    delay_pushes(&recorder, random.u64(..));
    let mut publisher = Publisher {
        random: random.fork(),
        time: 0,
        sent: Vec::new(),
    };
    let is_over = Arc::new(AtomicBool::new(false));
    let events = AtomicU64::new(0);
    let client = thread::scope(|scope| {
        let port = recorder.port();
        let publisher = &mut publisher;
        let over = is_over.clone();
        let publishing = scope.spawn(move || {
            let client = publisher.run(port);
            over.store(true, Ordering::Relaxed);
            client
        });
        while !is_over.load(Ordering::Relaxed) && !publishing.is_finished() {
            let operation = match random.u8(..8) {
                0 => Operation::Pause,
                1 => Operation::Event,
                2 => Operation::Stats,
                3 => Operation::Limits,
                4 => Operation::Position,
                5 => Operation::KeyframeRequest,
                6 => Operation::Contender,
                _ if is_flushed => Operation::Flush,
                _ => Operation::Event,
            };
            operate(&recorder, &mut random, operation, &events);
        }
        publishing.join().unwrap()
    });
    // A state change that has not come to its end yet would hold the end back.
    recorder.pipeline.set_state(gst::State::Playing).unwrap();
    assert!(recorder.element.send_event(gst::event::Eos::new()));
    let got = coded(&recorder.finish());
    drop(client);
    let sent = coded(&publisher.sent);
    if is_flushed {
        assert_in_order(&sent, &got);
        let numbers = numbers(&recorder);
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    } else {
        // A replaced publisher may have been answered before all of its last read was in the queue.
        let cut_off: u64 = recorder.stats().get("dropped-cut-off").unwrap();
        assert_eq!(
            got.len() as u64 + cut_off,
            sent.len() as u64,
            "{}",
            recorder.stats()
        );
        assert_in_order(&sent, &got);
        // The last one may have come after the last buffer.
        let expected: Vec<u32> = (0..events.into_inner() as u32).collect();
        assert!(expected.starts_with(&numbers(&recorder)));
    }
    assert!(flv::parse(&recorder.bytes()).is_ok());
}

#[test]
fn random_delays_and_operations_lose_and_double_nothing() {
    let rounds = std::env::var(ROUNDS).ok();
    let rounds: Option<u64> = rounds.map(|rounds| rounds.parse().unwrap());
    let start = Instant::now();
    let done = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                loop {
                    let index = done.fetch_add(1, Ordering::Relaxed);
                    let is_over = match rounds {
                        Some(rounds) => index >= rounds,
                        None => start.elapsed() >= DURATION,
                    };
                    if is_over {
                        return;
                    }
                    let seed = SEED + index;
                    println!("round with seed {seed}");
                    round(seed);
                }
            });
        }
    });
    println!(
        "{} rounds in {:?}",
        done.into_inner() - LANES,
        start.elapsed()
    );
}
