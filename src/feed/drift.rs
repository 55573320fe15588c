// SPDX-License-Identifier: MPL-2.0

//! Corrects the drift between the publisher's clock and the pipeline's.
//!
//! ```text
//!  lateness = arrival - time on the stream
//!     |      .  :  .      .  : .     .       jitter, bursts and stalls only ever delay
//!     |  : .  .: .  . : .: .  :. : .  .:
//!     |  .______.___________.____________    the floor: its slope is the drift
//!     +----------------------------------> time
//! ```
//!
//! The correction follows the floor, slowly, so that the floor stays where it began. A floor that
//! moves as no clock does is another thing, which is not corrected: a file that is sent fast, a
//! network that is too slow, a leap of the pipeline's clock.

mod floor;

use super::time::{NANOS_PER_MILLI, RunningTime};
use floor::{Change, Floor, Line, Point, span};

const MILLI: i64 = NANOS_PER_MILLI as i64;

/// Time in nanoseconds that a floor has to span before it is followed: as long as the largest drift
/// takes for [`FIRST_DRIFT`], within these limits.
const FIRST_DRIFT: u64 = 60 * NANOS_PER_MILLI;
const MIN_SPAN: u64 = 10_000 * NANOS_PER_MILLI;
const MAX_SPAN: u64 = 60_000 * NANOS_PER_MILLI;

/// Error of the correction in nanoseconds from which it moves. It moves by a millisecond, so a larger
/// error than that is needed for it to stay.
const MIN_ERROR: f64 = 2e6;

/// Distance in nanoseconds from where the floor of the stream began, within which a floor that starts
/// again returns there. The first tag of a publisher is as late as jitter makes it, and its lateness
/// would stay. What is further away has its own reason, such as media that a server has kept.
const MAX_RETURN: f64 = 200e6;

/// Least step back of arrivals in nanoseconds that is one of the pipeline's clock.
const MIN_LEAP: u64 = 1000 * NANOS_PER_MILLI;

const PPM: f64 = 1e-6;

/// The drift of the present publisher's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ClockDrift {
    /// Parts per million by which the publisher's clock is faster than the pipeline's. 0 while it is
    /// not known.
    pub ppm: f64,
    /// Nanoseconds added to all timestamps so far, over all publishers.
    pub corrected: i64,
}

#[derive(Debug)]
pub(super) struct DriftCorrector {
    /// Least time between two steps of a millisecond, in nanoseconds.
    step_interval: RunningTime,
    min_span: u64,
    /// Nanoseconds added to all times so far.
    corrected: i64,
    /// The drift of the present publisher is known.
    is_known: bool,
    floor: Floor,
    /// The present bucket. Its lateness counts without the correction.
    bucket: Option<Bucket>,
    /// The line that the correction follows.
    line: Option<Line>,
    /// Floor of the lateness that leaves, in nanoseconds: where it has to stay.
    target: f64,
    /// Target of the present publisher's start, and that of the publisher before it.
    home: Option<f64>,
    previous_home: Option<f64>,
    /// The publisher's drift has not been known before the present floor.
    is_first_floor: bool,
    /// Correction when the present floor began.
    corrected_at_start: f64,
    next_step: RunningTime,
    /// Earliest time at which something other than the present bucket changes.
    due: RunningTime,
}

/// Consecutive tags, of which only the lowest lateness but one counts: one tag alone may have a wrong
/// timestamp.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    start: RunningTime,
    end: RunningTime,
    lowest: Candidate,
    second: Option<Candidate>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    point: Point,
    /// Lateness without the slope.
    level: f64,
}

impl DriftCorrector {
    /// Corrects up to this drift in parts per million, and no faster. It is not 0.
    pub(super) fn new(max_drift: u32) -> Self {
        let max_drift = u64::from(max_drift.max(1));
        let first_span = FIRST_DRIFT * 1_000_000 / max_drift;
        DriftCorrector {
            step_interval: NANOS_PER_MILLI * 1_000_000 / max_drift,
            min_span: first_span.clamp(MIN_SPAN, MAX_SPAN),
            corrected: 0,
            is_known: false,
            floor: Floor::new(max_drift as f64 * PPM),
            bucket: None,
            line: None,
            target: 0.0,
            home: None,
            previous_home: None,
            is_first_floor: true,
            corrected_at_start: 0.0,
            next_step: 0,
            due: 0,
        }
    }

    pub(super) fn drift(&self) -> ClockDrift {
        let line = self.line.filter(|_| self.is_known);
        ClockDrift {
            // Lateness falls where the publisher's clock is fast.
            ppm: line.map_or(0.0, |line| -line.slope / PPM),
            corrected: self.corrected,
        }
    }

    /// Returns the milliseconds added to all times so far.
    pub(super) fn correction(&self) -> i64 {
        self.corrected / MILLI
    }

    /// Forgets the clock of the publisher before.
    pub(super) fn start_publisher(&mut self) {
        self.previous_home = self.home;
        self.is_first_floor = true;
        self.is_known = false;
        self.line = None;
        self.restart();
    }

    /// Starts again after the times of a publisher have been moved. Its drift goes on, if it is known.
    pub(super) fn handle_move(&mut self, now: RunningTime) {
        self.coast(now);
        self.restart();
    }

    /// Forgets what has arrived: it had to wait for the pipeline, and shows no clock.
    pub(super) fn handle_backpressure(&mut self) {
        self.restart();
    }

    fn coast(&mut self, now: RunningTime) {
        let value = self.corrected as f64 + self.target;
        let line = self.line.map(|line| Line {
            at: now,
            value,
            ..line
        });
        self.line = line;
    }

    fn restart(&mut self) {
        self.is_first_floor &= !self.is_known;
        self.floor.clear();
        self.bucket = None;
        self.due = 0;
    }

    /// Accepts the lateness of a tag in nanoseconds. Returns the number of milliseconds to add to this
    /// time and all later ones, mostly 0.
    pub(super) fn advance(&mut self, lateness: i64, arrival: RunningTime) -> i64 {
        let value = lateness.saturating_add(self.corrected);
        let slope = self.line.map_or(0.0, |line| line.slope);
        if let Some(bucket) = &mut self.bucket
            && arrival < self.due
            && arrival.saturating_add(MIN_LEAP) >= bucket.start
        {
            bucket.add(value, arrival, slope);
            return 0;
        }
        self.advance_bucket(value, arrival, slope);
        if arrival < self.next_step {
            return 0;
        }
        self.next_step = arrival.saturating_add(self.step_interval);
        self.schedule();
        let step = self.step(arrival);
        self.corrected += step * MILLI;
        step
    }

    fn schedule(&mut self) {
        let end = self.bucket.map_or(0, |bucket| bucket.end);
        self.due = self.next_step.min(end);
    }

    fn advance_bucket(&mut self, value: i64, arrival: RunningTime, slope: f64) {
        match &mut self.bucket {
            Some(bucket) if arrival.saturating_add(MIN_LEAP) < bucket.start => {
                // The pipeline's clock has gone back.
                self.coast(arrival);
                self.restart();
                self.next_step = arrival.saturating_add(self.step_interval);
            }
            Some(bucket) if arrival < bucket.end => {
                bucket.add(value, arrival, slope);
                return self.schedule();
            }
            Some(bucket) => {
                let counted = bucket.second.unwrap_or(bucket.lowest);
                self.follow(counted.point);
            }
            None => {}
        }
        let point = Point { at: arrival, value };
        self.bucket = Some(Bucket {
            start: arrival,
            end: arrival.saturating_add(self.floor.bucket()),
            lowest: Candidate {
                point,
                level: value as f64,
            },
            second: None,
        });
        self.schedule();
    }

    /// Moves the floor on by the point of a bucket that counts.
    fn follow(&mut self, lowest: Point) {
        let is_start = self.floor.start().is_none();
        let change = self.floor.push(lowest);
        if change == Change::Moved {
            self.is_first_floor &= !self.is_known;
        }
        if let Some(start) = self.floor.start()
            && (change == Change::Moved || is_start)
        {
            self.corrected_at_start = self.wanted(start);
        }
        let Some(line) = self.floor.line(self.min_span) else {
            return;
        };
        if let Some(start) = self.floor.start() {
            let begun = line.value_at(start) - self.corrected_at_start;
            let home = if self.is_first_floor {
                self.previous_home
            } else {
                self.home
            };
            self.target = match home {
                Some(home) if (home - begun).abs() <= MAX_RETURN => home,
                _ => begun,
            };
            if self.is_first_floor {
                self.home = Some(self.target);
            }
        }
        self.line = Some(line);
        self.is_known = true;
    }

    /// Returns the correction at which the floor is on its target.
    fn wanted(&self, at: RunningTime) -> f64 {
        match &self.line {
            Some(line) => line.value_at(at) - self.target,
            None => self.corrected as f64,
        }
    }

    /// Returns the next step of the correction in milliseconds.
    fn step(&self, now: RunningTime) -> i64 {
        match self.wanted(now) - self.corrected as f64 {
            error if error >= MIN_ERROR => 1,
            error if error <= -MIN_ERROR => -1,
            _ => 0,
        }
    }
}

impl Bucket {
    fn add(&mut self, value: i64, arrival: RunningTime, slope: f64) {
        // Two arrivals are in order but for the precision of clocks.
        let arrival = arrival.max(self.start);
        let level = value as f64 - slope * span(self.start, arrival);
        if self.second.is_none_or(|second| level < second.level) {
            let point = Point { at: arrival, value };
            let candidate = Candidate { point, level };
            self.second = match level < self.lowest.level {
                true => Some(std::mem::replace(&mut self.lowest, candidate)),
                false => Some(candidate),
            };
        }
    }
}

#[cfg(test)]
mod tests;
