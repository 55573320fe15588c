// SPDX-License-Identifier: MPL-2.0

//! A meter of bit rates.

use std::time::{Duration, Instant};

/// Length of the windows in which bits are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// Counts bytes, and returns bits per second.
#[derive(Debug)]
pub(crate) struct BitrateMeter {
    window_start: Instant,
    bytes: u64,
    /// Bits per second in the last whole window.
    rate: u64,
    peak: u64,
    last_window_end: Option<Instant>,
}

impl BitrateMeter {
    pub(crate) fn new(now: Instant) -> Self {
        BitrateMeter {
            window_start: now,
            bytes: 0,
            rate: 0,
            peak: 0,
            last_window_end: None,
        }
    }

    pub(crate) fn count(&mut self, bytes: usize, now: Instant) {
        let elapsed = now.saturating_duration_since(self.window_start);
        if elapsed >= WINDOW {
            self.rate = (self.bytes as f64 * 8.0 / elapsed.as_secs_f64()) as u64;
            self.peak = self.peak.max(self.rate);
            self.last_window_end = Some(now);
            self.window_start = now;
            self.bytes = 0;
        }
        self.bytes += bytes as u64;
    }

    /// Returns the bits per second in the last whole window, and the end of that window.
    pub(crate) fn rate(&self) -> (u64, Option<Instant>) {
        (self.rate, self.last_window_end)
    }

    /// Returns the bits per second in the window with the most.
    pub(crate) fn peak(&self) -> u64 {
        self.peak
    }
}

#[test]
fn bits_of_a_window_are_spread_over_it() {
    let start = Instant::now();
    let mut meter = BitrateMeter::new(start);
    meter.count(1000, start);
    meter.count(1500, start + Duration::from_millis(500));
    assert_eq!(meter.rate(), (0, None));
    let end = start + Duration::from_secs(2);
    meter.count(7, end);
    assert_eq!(meter.rate(), (10_000, Some(end)));
    let end = start + Duration::from_secs(3);
    meter.count(7, end);
    assert_eq!((meter.rate(), meter.peak()), ((56, Some(end)), 10_000));
}
