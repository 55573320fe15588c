// SPDX-License-Identifier: MPL-2.0

//! Publishers whose clock is 0.5 % fast or slow, into synchronised sinks that drop what is late.
//!
//! Ten minutes pass in moments by a clock that the test moves. `RTMP2SERVER_TEST_DRIFT_SECONDS=600` runs
//! them by the real clock too, of which the tests otherwise see some seconds.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gst::prelude::*;

use support::manual_clock::ManualClock;
use support::raw::{self, RawClient};
use support::{PATIENCE, init, synthetic};

/// The environment variable with the duration by the real clock in seconds.
const SECONDS: &str = "RTMP2SERVER_TEST_DRIFT_SECONDS";
const SHORT: u64 = 4;

/// Milliseconds of the pipeline's clock between frames, each with audio beside it, and between the
/// moves of a manual clock.
const STEP: u64 = 100;
const TICK: u64 = 10;

/// Time by the manual clock, in milliseconds.
const TEN_MINUTES: u64 = 600_000;

const LATENCY: u64 = 200;

/// A pipeline with a synchronised sink for each track.
struct Player {
    pipeline: gst::Pipeline,
    source: gst::Element,
    sinks: Vec<gst::Element>,
    /// Running times of buffers of media that have left the source, and are not due yet.
    pending: Arc<Mutex<VecDeque<u64>>>,
    sent: Arc<AtomicUsize>,
}

impl Player {
    /// Sinks drop buffers that are later than this many milliseconds.
    fn start(properties: &str, max_lateness: u64, clock: Option<&ManualClock>) -> Self {
        init();
        let sink = |name: &str| {
            format!(
                "fakesink name={name} sync=true async=false qos=false processing-deadline=0 \
                 max-lateness={}",
                max_lateness * 1_000_000
            )
        };
        let queue = "queue max-size-time=0 max-size-buffers=0 max-size-bytes=0";
        let text = format!(
            "rtmp2serversrc name=src port=0 latency={LATENCY} {properties} ! eflvdemux name=d \
             d.video_0 ! {queue} ! {} d.audio_0 ! {queue} ! {}",
            sink("video"),
            sink("audio")
        );
        let pipeline = gst::parse::launch(&text).unwrap();
        let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
        // None would be no clock at all.
        if clock.is_some() {
            pipeline.use_clock(clock);
        }
        let source = pipeline.by_name("src").unwrap();
        let pending = Arc::new(Mutex::new(VecDeque::new()));
        let sent = Arc::new(AtomicUsize::new(0));
        let (queue, counter) = (pending.clone(), sent.clone());
        let pad = source.static_pad("src").unwrap();
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        pad.add_probe(kinds, move |pad, info| {
            let segment = pad.sticky_event::<gst::event::Segment>(0).unwrap();
            let segment = segment.segment().clone();
            let segment = segment.downcast::<gst::ClockTime>().unwrap();
            let note = |buffer: &gst::BufferRef| {
                if !buffer.flags().contains(gst::BufferFlags::HEADER) {
                    let time = segment.to_running_time(buffer.pts()).unwrap();
                    queue.lock().unwrap().push_back(time.mseconds());
                    counter.fetch_add(1, Ordering::Release);
                }
            };
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => note(buffer),
                Some(gst::PadProbeData::BufferList(list)) => list.iter().for_each(note),
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        let sinks = ["video", "audio"].map(|name| pipeline.by_name(name).unwrap());
        Player {
            pipeline,
            source,
            sinks: sinks.into(),
            pending,
            sent,
        }
    }

    fn publisher(&self) -> RawClient {
        let port: u32 = self.source.property("current-port");
        let mut client = RawClient::publish(port as u16, "live", "key");
        raw::send(
            &mut client,
            &[synthetic::video_header(0), synthetic::audio_header(0)],
        );
        client
    }

    /// Tells the sinks the latency, as an application does that handles LATENCY messages. They are linked
    /// when their tracks come.
    fn distribute_latency(&self) {
        let is_linked = |sink: &gst::Element| {
            let pad = sink.static_pad("sink").unwrap();
            pad.current_caps().is_some()
        };
        wait_until("sinks are linked", || self.sinks.iter().all(is_linked));
        self.pipeline.recalculate_latency().unwrap();
    }

    /// Returns the buffers that the sinks have got, and those of them that were late.
    fn counts(&self) -> (u64, u64) {
        let counts = self.sinks.iter().map(|sink| {
            let stats: gst::Structure = sink.property("stats");
            let dropped: u64 = stats.get("dropped").unwrap();
            (stats.get::<u64>("rendered").unwrap() + dropped, dropped)
        });
        counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1))
    }

    fn stats(&self) -> gst::Structure {
        self.source.property("stats")
    }

    fn drift(&self) -> f64 {
        self.stats().get("clock-drift").unwrap()
    }

    /// Nanoseconds.
    fn corrected(&self) -> i64 {
        self.stats().get("clock-corrected").unwrap()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.pipeline.set_state(gst::State::Null).unwrap();
    }
}

#[track_caller]
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        thread::yield_now();
    }
}

/// Sends a frame and audio of this number, and its time on a clock that is fast by this many parts
/// per million.
fn send(client: &mut RawClient, index: u64, ppm: f64) {
    let timestamp = ((index * STEP) as f64 * (1.0 + ppm * 1e-6)) as u32;
    let video = match index % 10 {
        0 => synthetic::keyframe(timestamp, 20),
        _ => synthetic::delta_frame(timestamp, 20),
    };
    raw::send(client, &[video, synthetic::audio(timestamp, 10)]);
}

/// The course of ten minutes of the pipeline's clock.
struct Course {
    dropped: u64,
    /// Milliseconds from the arrival of each frame to the time at which it is due.
    slack: Vec<i64>,
    drift: f64,
    corrected: i64,
}

/// Plays ten minutes of a publisher whose clock is fast by this many parts per million.
fn ten_minutes(properties: &str, ppm: f64) -> Course {
    let start = gst::ClockTime::from_seconds(1000);
    let clock = ManualClock::at(start);
    let player = Player::start(properties, TICK + TICK / 2, Some(&clock));
    let mut client = player.publisher();
    let mut slack = Vec::new();
    let mut due = 0;
    for index in 0..TEN_MINUTES / STEP {
        let now = index * STEP;
        send(&mut client, index, ppm);
        let expected = 2 * (index as usize + 1);
        wait_until("media leaves", || {
            player.sent.load(Ordering::Acquire) >= expected
        });
        if index == 0 {
            player.distribute_latency();
        }
        let last = *player.pending.lock().unwrap().back().unwrap();
        slack.push((last + LATENCY) as i64 - now as i64);
        for tick in 1..=STEP / TICK {
            let now = now + tick * TICK;
            clock.advance_to(start + gst::ClockTime::from_mseconds(now));
            let mut pending = player.pending.lock().unwrap();
            while pending.front().is_some_and(|time| time + LATENCY <= now) {
                pending.pop_front();
                due += 1;
            }
            drop(pending);
            wait_until("sinks get what is due", || player.counts().0 >= due);
        }
    }
    Course {
        dropped: player.counts().1,
        slack,
        drift: player.drift(),
        corrected: player.corrected(),
    }
}

#[test]
fn ten_minutes_of_a_fast_or_slow_publisher_pass_without_a_drop() {
    for ppm in [5000.0, -5000.0] {
        let course = ten_minutes("max-drift=10000", ppm);
        assert_eq!(course.dropped, 0, "{ppm} ppm");
        // Three seconds in ten minutes.
        let seconds = course.corrected as f64 * 1e-9;
        assert!((seconds + ppm * 600e-6).abs() < 0.03, "{seconds} s");
        assert!((course.drift - ppm).abs() < 100.0, "{} ppm", course.drift);
        let settled = &course.slack[course.slack.len() / 10..];
        let begin = LATENCY as i64;
        assert!(
            settled.iter().all(|slack| (slack - begin).abs() <= 20),
            "{:?} to {:?}",
            settled.iter().min(),
            settled.iter().max()
        );
    }
}

#[test]
fn media_of_a_slow_publisher_is_dropped_without_the_correction() {
    let course = ten_minutes("drift-correction=false max-drift=10000", -5000.0);
    assert!(course.dropped > 5000, "{} dropped", course.dropped);
    assert_eq!((course.drift, course.corrected), (0.0, 0));
}

#[test]
fn drift_beyond_the_limit_is_not_corrected() {
    let course = ten_minutes("", 5000.0);
    assert_eq!((course.drift, course.corrected), (0.0, 0));
    // All of the three seconds are left.
    assert!(course.slack.last().unwrap() - LATENCY as i64 > 2950);
}

#[test]
fn publishers_own_timestamps_are_not_corrected() {
    let course = ten_minutes("max-drift=10000 timestamp-mode=publisher", -5000.0);
    assert_eq!((course.drift, course.corrected), (0.0, 0));
    assert!(course.slack.last().unwrap() - (LATENCY as i64) < -2950);
}

/// The state after some time by the real clock.
struct End {
    drift: f64,
    corrected: i64,
    /// Buffers that the sinks have got, and those of them that were late.
    counts: (u64, u64),
}

fn by_the_real_clock(seconds: u64, ppm: f64) -> End {
    let player = Player::start("max-drift=10000", 100, None);
    let mut client = player.publisher();
    let start = Instant::now();
    for index in 0..seconds * 1000 / STEP {
        // The pace of the publisher.
        let due = start + Duration::from_millis(index * STEP);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        send(&mut client, index, ppm);
        if index == 0 {
            player.distribute_latency();
        }
    }
    let sent = 2 * seconds * 1000 / STEP;
    wait_until("sinks get all", || player.counts().0 >= sent);
    let end = End {
        drift: player.drift(),
        corrected: player.corrected(),
        counts: player.counts(),
    };
    raw::unpublish(client);
    end
}

#[test]
fn a_fast_or_slow_publisher_passes_without_a_drop_by_the_real_clock() {
    let seconds = std::env::var(SECONDS).map_or(SHORT, |text| text.parse().unwrap());
    let threads =
        [5000.0, -5000.0].map(|ppm| (ppm, thread::spawn(move || by_the_real_clock(seconds, ppm))));
    for (ppm, thread) in threads {
        let end = thread.join().unwrap();
        let corrected = end.corrected as f64 * 1e-9;
        println!(
            "{ppm} ppm: {:.0} ppm found, {corrected:.3} s corrected, {} of {} buffers dropped",
            end.drift, end.counts.1, end.counts.0
        );
        assert_eq!(end.counts.1, 0, "{ppm} ppm");
        // Not before the drift is known.
        if seconds >= 60 {
            let expected = -ppm * 1e-6 * seconds as f64;
            assert!((corrected - expected).abs() < 0.1, "{corrected} s");
        }
    }
}
