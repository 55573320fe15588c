// SPDX-License-Identifier: MPL-2.0

//! The drift of publishers' clocks over 30 days: latency stays as it began, by steps that move all
//! tracks together.

use gstrtmp2server::internal::flv::TagKind;
use proptest::prelude::*;

#[path = "../drift/simulation.rs"]
mod simulation;

use simulation::{HOUR, Scenario, Sent, run};

/// Time after the start of a publisher, in seconds, from which its latency is settled, and the most
/// that it may differ from the first one's, in milliseconds.
const SETTLED: f64 = 1200.0;
const MAX_CHANGE: f64 = 20.0;

/// Checks each tag that leaves.
#[derive(Default)]
struct Inspection {
    first: Option<f64>,
    last: Option<Sent>,
    last_step: f64,
    last_times: [i64; 2],
    /// Largest change of the latency once settled, in milliseconds.
    change: f64,
    problem: Option<String>,
}

impl Inspection {
    fn inspect(&mut self, sent: &Sent) {
        let first = *self.first.get_or_insert(sent.latency);
        let change = (sent.latency - first).abs();
        if sent.age > SETTLED {
            self.change = self.change.max(change);
        }
        let last_time = &mut self.last_times[usize::from(sent.kind == TagKind::Audio)];
        if sent.time < *last_time {
            self.problem = Some(format!("{sent:?} is before {last_time}"));
        }
        *last_time = sent.time;
        if let Some(last) = self.last.replace(*sent)
            && last.publisher == sent.publisher
            && last.offset != sent.offset
        {
            // One offset for both tracks, which moves by a millisecond in a second at most.
            let is_step = (last.offset - sent.offset).abs() == 1;
            if !is_step || sent.arrival - self.last_step < 1.0 - 1e-6 {
                self.problem = Some(format!("{last:?} to {sent:?}"));
            }
            self.last_step = sent.arrival;
        }
    }
}

fn scenarios() -> impl Strategy<Value = Scenario> {
    let clock = (-200.0..200.0f64, 0.0..2.0f64, any::<u32>());
    let media = (
        prop::sample::select(vec![24.0, 25.0, 30_000.0 / 1001.0, 50.0, 60.0]),
        prop::sample::select(vec![1024.0 / 48_000.0, 1024.0 / 44_100.0, 0.02]),
    );
    let reconnects = prop::sample::select(vec![f64::INFINITY, 6.0 * HOUR, 24.0 * HOUR]);
    (clock, media, 0.0..0.15f64, reconnects, any::<u64>()).prop_map(
        |(clock, media, jitter, reconnects, seed)| Scenario {
            seed,
            drift: clock.0,
            daily_drift: clock.1,
            first_timestamp: clock.2,
            frame_rate: media.0,
            audio: media.1,
            jitter,
            stalls: 600.0,
            bursts: 1800.0,
            reconnects,
            ..Scenario::default()
        },
    )
}

proptest! {
    #![proptest_config(properties::cases(4))]

    #[test]
    fn latency_stays_as_it_began_for_a_month(scenario in scenarios()) {
        let mut inspection = Inspection::default();
        let drift = run(&scenario, |sent| inspection.inspect(sent));
        prop_assert_eq!(inspection.problem, None);
        prop_assert!(inspection.change <= MAX_CHANGE, "{} ms", inspection.change);
        let error = drift.ppm - scenario.drift;
        // The last publisher may be new.
        prop_assert!(drift.ppm == 0.0 || error.abs() < scenario.daily_drift + 10.0, "{drift:?}");
    }
}

/// All tags of some hours, at the ends of what crystals and networks do.
#[test]
fn every_tag_of_some_hours_keeps_its_latency() {
    for drift in [-200.0, 200.0] {
        let scenario = Scenario {
            drift,
            duration: 2.0 * HOUR,
            dense: f64::INFINITY,
            jitter: 0.15,
            stalls: 600.0,
            bursts: 1800.0,
            // The timestamps wrap.
            first_timestamp: u32::MAX - 3_600_000,
            ..Scenario::default()
        };
        let mut inspection = Inspection::default();
        let found = run(&scenario, |sent| inspection.inspect(sent));
        assert_eq!(inspection.problem, None, "{drift}");
        assert!(inspection.change <= MAX_CHANGE, "{} ms", inspection.change);
        assert!((found.ppm - drift).abs() < 5.0, "{found:?}");
    }
}

/// A day at 50 ppm is 4.3 s.
#[test]
fn latency_follows_the_publishers_clock_without_the_correction() {
    let scenario = Scenario {
        duration: 24.0 * HOUR,
        max_drift: 0,
        ..Scenario::default()
    };
    let mut first = None;
    let mut last = None;
    let drift = run(&scenario, |sent| {
        first.get_or_insert(sent.latency);
        last = Some(*sent);
    });
    let (first, last) = (first.unwrap(), last.unwrap());
    let expected = last.captured * 0.05;
    assert!((4300.0..4340.0).contains(&expected), "{expected} ms");
    assert!((last.latency - first - expected).abs() < 2.0, "{last:?}");
    assert_eq!((drift.ppm, drift.corrected), (0.0, 0));
}
