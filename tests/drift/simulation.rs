// SPDX-License-Identifier: MPL-2.0

//! Publishers whose clock drifts, over weeks of media, through the whole feed.
//!
//! A month has 190 million tags. After the start of a publisher the network carries a part of them, and
//! of each second only the least delayed tag goes through the feed: the others show nothing about
//! clocks.

use gstrtmp2server::internal::feed::{ClockDrift, Feed, FeedOutput, FeedSettings, Reception};
use gstrtmp2server::internal::flv::{Tag, TagKind};
use gstrtmp2server::internal::memory::Memory;

pub const HOUR: f64 = 3600.0;
pub const DAY: f64 = 24.0 * HOUR;

/// Bodies of an AVC keyframe, another AVC frame, and AAC.
const KEYFRAME: [u8; 6] = [0x17, 1, 0, 0, 0, 9];
const FRAME: [u8; 6] = [0x27, 1, 0, 0, 0, 9];
const AUDIO: [u8; 3] = [0xAF, 1, 9];

/// Running time of the pipeline, in seconds, when its first publisher starts.
const FIRST_START: f64 = 4.0;

/// Least delay of the network in seconds.
const NETWORK: f64 = 0.02;

/// Seconds of media that the network carries of each window, after the dense ones.
const WINDOW: f64 = 1.2;
const SAMPLE: f64 = 0.5;

/// A publisher and its network. Times are in seconds.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub seed: u64,
    pub duration: f64,
    /// Parts per million by which its clock is fast, and by which the temperature changes that
    /// within each day.
    pub drift: f64,
    pub daily_drift: f64,
    pub frame_rate: f64,
    /// Seconds of audio in a tag.
    pub audio: f64,
    /// Most that the network delays a tag. Most delays are far shorter.
    pub jitter: f64,
    /// Mean time between stalls of up to 10 s, and between minutes in which media comes in bursts.
    pub stalls: f64,
    pub bursts: f64,
    /// Mean time between reconnects, after an outage of up to two minutes.
    pub reconnects: f64,
    /// Time from the start of each publisher in which all of its media goes through the feed.
    pub dense: f64,
    pub first_timestamp: u32,
    pub max_drift: u32,
}

impl Default for Scenario {
    fn default() -> Self {
        Scenario {
            seed: 1,
            duration: 30.0 * DAY,
            drift: 50.0,
            daily_drift: 0.0,
            frame_rate: 25.0,
            audio: 1024.0 / 48_000.0,
            jitter: 0.0,
            stalls: f64::INFINITY,
            bursts: f64::INFINITY,
            reconnects: f64::INFINITY,
            dense: 60.0,
            first_timestamp: 0,
            max_drift: 1000,
        }
    }
}

/// A tag that has left.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// Time of its capture, and since the start of its publisher.
    pub captured: f64,
    pub age: f64,
    pub arrival: f64,
    /// From its capture to its time in the pipeline, in milliseconds.
    pub latency: f64,
    pub kind: TagKind,
    /// Time on the stream, and the distance that all of the publisher's times are moved, in
    /// milliseconds.
    pub time: i64,
    pub offset: i64,
    pub publisher: u32,
}

/// The publisher's own time.
struct OwnClock {
    drift: f64,
    daily: f64,
}

impl OwnClock {
    fn time(&self, at: f64) -> f64 {
        let day = std::f64::consts::TAU / DAY;
        let wander = self.daily * (1.0 - (at * day).cos()) / day;
        at + (self.drift * at + wander) * 1e-6
    }
}

struct Network {
    random: fastrand::Rng,
    jitter: f64,
    stalls: f64,
    bursts: f64,
    next_stall: f64,
    next_bursts: f64,
    /// End of the present stall, and of the present minute of bursts.
    blocked_until: f64,
    bursts_until: f64,
    /// Arrival of the last tag. A connection keeps the order.
    last: f64,
}

impl Network {
    fn new(scenario: &Scenario) -> Self {
        let mut random = fastrand::Rng::with_seed(scenario.seed);
        let next_stall = after(&mut random, scenario.stalls);
        let next_bursts = after(&mut random, scenario.bursts);
        Network {
            random,
            jitter: scenario.jitter,
            stalls: scenario.stalls,
            bursts: scenario.bursts,
            next_stall,
            next_bursts,
            blocked_until: 0.0,
            bursts_until: 0.0,
            last: 0.0,
        }
    }

    /// A new connection, which does not start with a stall.
    fn connect(&mut self, start: f64) {
        self.next_stall = self.next_stall.max(start + 10.0);
        self.next_bursts = self.next_bursts.max(start + 10.0);
        self.blocked_until = start;
        self.bursts_until = start;
        self.last = start;
    }

    fn arrival(&mut self, captured: f64) -> f64 {
        if captured >= self.next_stall {
            self.blocked_until = captured + self.random.f64() * 10.0;
            self.next_stall = captured + after(&mut self.random, self.stalls);
        }
        if captured >= self.next_bursts {
            self.bursts_until = captured + 60.0;
            self.next_bursts = captured + after(&mut self.random, self.bursts);
        }
        let mut arrival = captured + NETWORK + self.random.f64().powi(2) * self.jitter;
        if captured < self.bursts_until {
            arrival = (arrival * 2.0).ceil() / 2.0;
        }
        self.last = arrival.max(self.blocked_until).max(self.last);
        self.last
    }
}

/// Returns a random time with this mean.
fn after(random: &mut fastrand::Rng, mean: f64) -> f64 {
    -mean * (1.0 - random.f64()).ln()
}

/// Runs a scenario. Calls `inspect` with each tag that has left.
pub fn run(scenario: &Scenario, mut inspect: impl FnMut(&Sent)) -> ClockDrift {
    let feed = Feed::new(FeedSettings {
        wait_for_keyframe: true,
        max_drift: scenario.max_drift,
        ..FeedSettings::default()
    });
    let mut stream = Stream { feed, base: 0 };
    let mut network = Network::new(scenario);
    let clock = OwnClock {
        drift: scenario.drift,
        daily: scenario.daily_drift,
    };
    let end = FIRST_START + scenario.duration;
    let mut start = FIRST_START;
    let mut first_timestamp = scenario.first_timestamp;
    let mut publisher = 0;
    while start < end {
        let stay = after(&mut network.random, scenario.reconnects);
        stream.feed.start_publisher();
        let session = Session {
            start,
            end: end.min(start + stay),
            first_timestamp,
            publisher,
        };
        network.connect(start);
        session.run(scenario, &clock, &mut network, &mut stream, &mut inspect);
        stream.feed.end_publisher();
        start = session.end.max(network.last) + 1.0 + network.random.f64() * 120.0;
        stream.feed.skip_to(nanos(start));
        first_timestamp = if network.random.bool() {
            0
        } else {
            network.random.u32(..)
        };
        publisher += 1;
    }
    stream.feed.drift()
}

struct Stream {
    feed: Feed<()>,
    /// Running time at its time 0, in nanoseconds.
    base: u64,
}

struct Session {
    start: f64,
    end: f64,
    first_timestamp: u32,
    publisher: u32,
}

impl Session {
    fn run(
        &self,
        scenario: &Scenario,
        clock: &OwnClock,
        network: &mut Network,
        stream: &mut Stream,
        inspect: &mut impl FnMut(&Sent),
    ) {
        let origin = clock.time(self.start);
        let intervals = [1.0 / scenario.frame_rate, scenario.audio];
        // The numbers of the next frame of video and of audio.
        let mut next = [0u64; 2];
        let mut window = self.start + scenario.dense;
        let mut least: Option<Carried> = None;
        loop {
            let times = [0, 1].map(|track| self.start + next[track] as f64 * intervals[track]);
            let track = usize::from(times[1] < times[0]);
            let captured = times[track];
            if captured >= self.end {
                return;
            }
            let is_first = next == [0, 0];
            next[track] += 1;
            let carried = Carried {
                kind: [TagKind::Video, TagKind::Audio][track],
                is_first,
                captured,
                arrival: network.arrival(captured),
            };
            if captured < window {
                least = match least {
                    Some(least) if carried.delay() >= least.delay() => Some(least),
                    _ => Some(carried),
                };
                if captured < self.start + scenario.dense {
                    least = None;
                    self.send(&carried, clock.time(captured) - origin, stream, inspect);
                }
                continue;
            }
            if let Some(least) = least.take() {
                self.send(&least, clock.time(least.captured) - origin, stream, inspect);
            }
            // On to the next sample, with both tracks.
            let start = window + WINDOW - SAMPLE;
            window += WINDOW;
            for track in [0, 1] {
                next[track] = ((start - self.start) / intervals[track]).ceil() as u64;
            }
        }
    }

    /// Sends a tag with the publisher's own time in seconds.
    fn send(
        &self,
        carried: &Carried,
        own: f64,
        stream: &mut Stream,
        inspect: &mut impl FnMut(&Sent),
    ) {
        let own = (own * 1000.0) as i64;
        let body = match carried.kind {
            TagKind::Audio => &AUDIO[..],
            _ if carried.is_first => &KEYFRAME[..],
            _ => &FRAME[..],
        };
        let timestamp = self.first_timestamp.wrapping_add(own as u32);
        let memory = Memory::from_vec(body.to_vec(), 0);
        let tag = Tag::new(carried.kind, timestamp, memory).expect("a tag with a body");
        let arrival = nanos(carried.arrival);
        let reception = Reception {
            arrival,
            now: arrival,
            is_newest: true,
            discont: false,
        };
        stream.feed.push(tag, reception);
        while let Some(output) = stream.feed.pop() {
            let tag = match output {
                FeedOutput::Tag(tag) if !tag.is_header => tag,
                FeedOutput::Segment { base, .. } => {
                    stream.base = base;
                    continue;
                }
                _ => continue,
            };
            let time = (tag.dts / 1_000_000) as i64;
            inspect(&Sent {
                captured: carried.captured - FIRST_START,
                age: carried.captured - self.start,
                arrival: carried.arrival,
                latency: ((stream.base + tag.dts) as f64 * 1e-9 - carried.captured) * 1e3,
                kind: carried.kind,
                time,
                offset: time - own,
                publisher: self.publisher,
            });
        }
    }
}

/// A tag that the network has carried.
#[derive(Debug, Clone, Copy)]
struct Carried {
    kind: TagKind,
    is_first: bool,
    captured: f64,
    arrival: f64,
}

impl Carried {
    fn delay(&self) -> f64 {
        self.arrival - self.captured
    }
}

fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}
