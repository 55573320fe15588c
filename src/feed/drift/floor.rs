// SPDX-License-Identifier: MPL-2.0

//! The lower envelope of lateness: networks and encoders only ever delay, so that the least delayed
//! tags show the clocks.

use crate::feed::time::RunningTime;

const SECOND: u64 = 1_000_000_000;

/// Durations of buckets in nanoseconds, of which each keeps its lowest point. Buckets are short at
/// first and double when [`MAX_POINTS`] are full, up to two hours of points.
const FIRST_BUCKET: u64 = SECOND;
const MAX_BUCKET: u64 = 64 * SECOND;
const MAX_POINTS: usize = 128;

/// Distance in nanoseconds between a floor and its expected place, beyond which it has not drifted
/// there: something else has moved it. It is more than the noise of a floor of few tags.
const MAX_NOISE: f64 = 100e6;

/// Time in nanoseconds, and number of buckets, that have to be above the floor for it to have risen.
/// Shorter ones are a stall or a burst.
const MIN_RISE: u64 = 60 * SECOND;
const MIN_RISE_BUCKETS: u64 = 4;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub(super) at: RunningTime,
    /// Lateness in nanoseconds.
    pub(super) value: i64,
}

/// A straight line of lateness over time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Line {
    pub(super) at: RunningTime,
    /// Nanoseconds at that time.
    pub(super) value: f64,
    /// Nanoseconds in a nanosecond.
    pub(super) slope: f64,
}

impl Line {
    pub(super) fn value_at(&self, at: RunningTime) -> f64 {
        self.value + self.slope * span(self.at, at)
    }
}

/// The change of a floor by one more bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It goes on as a clock lets it.
    None,
    /// It has moved as no clock does, and starts again from here.
    Moved,
}

/// The lowest points of lateness.
#[derive(Debug)]
pub(super) struct Floor {
    /// Largest slope of a clock.
    max_slope: f64,
    /// Duration of a bucket in nanoseconds.
    bucket: u64,
    points: Vec<Point>,
    /// Time of the first point of all, while the points reach back to it.
    start: Option<RunningTime>,
    line: Option<Line>,
    /// The line without the last point, which may be the begin of a move.
    confirmed: Option<Line>,
}

impl Floor {
    pub(super) fn new(max_slope: f64) -> Self {
        Floor {
            max_slope,
            bucket: FIRST_BUCKET,
            points: Vec::new(),
            start: None,
            line: None,
            confirmed: None,
        }
    }

    /// Forgets all points.
    pub(super) fn clear(&mut self) {
        *self = Floor::new(self.max_slope);
    }

    /// Returns the duration of the next bucket in nanoseconds.
    pub(super) fn bucket(&self) -> u64 {
        self.bucket
    }

    /// Returns the time of the floor's begin, while its points reach back to it.
    pub(super) fn start(&self) -> Option<RunningTime> {
        self.start
    }

    /// Returns the line below all points but the last, if they span this time in nanoseconds.
    pub(super) fn line(&self, min_span: u64) -> Option<Line> {
        self.confirmed
            .filter(|_| span_of(&self.points) >= min_span as f64)
    }

    /// Adds the lowest point of a bucket, which comes after all others.
    pub(super) fn push(&mut self, point: Point) -> Change {
        if self.has_fallen(&point) {
            return self.start_from(vec![point]);
        }
        if self.points.is_empty() {
            self.start = Some(point.at);
        }
        if self.points.len() == MAX_POINTS {
            self.make_space();
        }
        self.points.push(point);
        match lower_line(&self.points) {
            None => return Change::None,
            Some(line) if self.is_too_steep(&line, &self.points) => {
                return self.start_from(vec![point]);
            }
            Some(line) => self.confirmed = self.line.replace(self.limited(line)),
        }
        let Some(since) = self.rise() else {
            return Change::None;
        };
        let risen = self.points.split_off(since);
        let is_rising = lower_line(&risen).is_some_and(|line| self.is_too_steep(&line, &risen));
        self.start_from(if is_rising { vec![point] } else { risen })
    }

    /// Returns true where points move further along a line than a clock does.
    fn is_too_steep(&self, line: &Line, points: &[Point]) -> bool {
        (line.slope.abs() - self.max_slope) * span_of(points) > MAX_NOISE
    }

    fn start_from(&mut self, points: Vec<Point>) -> Change {
        *self = Floor::new(self.max_slope);
        self.start = points.first().map(|point| point.at);
        self.line = lower_line(&points).map(|line| self.limited(line));
        self.points = points;
        Change::Moved
    }

    fn limited(&self, line: Line) -> Line {
        let slope = line.slope.clamp(-self.max_slope, self.max_slope);
        Line { slope, ..line }
    }

    /// Returns true where this point is further down than a clock goes in the time since the last.
    fn has_fallen(&self, point: &Point) -> bool {
        let Some(last) = self.points.last() else {
            return false;
        };
        let expected = match &self.line {
            Some(line) => line.value_at(point.at),
            None => last.value as f64,
        };
        let drift = self.max_slope * span(last.at, point.at);
        (point.value as f64) < expected - drift - MAX_NOISE
    }

    /// Returns the index of the first point of a rise that no clock makes.
    fn rise(&self) -> Option<usize> {
        let line = self.line?;
        let last = self.points.last()?.at;
        let min_rise = MIN_RISE.max(MIN_RISE_BUCKETS * self.bucket);
        let above = |point: &Point| point.value as f64 - line.value_at(point.at) > MAX_NOISE;
        let since = self.points.iter().rposition(|point| !above(point))? + 1;
        let first = self.points.get(since)?;
        (last.saturating_sub(first.at) >= min_rise).then_some(since)
    }

    /// Makes space for a point: by longer buckets, or without the oldest point.
    fn make_space(&mut self) {
        if self.bucket >= MAX_BUCKET {
            self.points.remove(0);
            self.start = None;
            return;
        }
        self.bucket *= 2;
        let slope = self.line.map_or(0.0, |line| line.slope);
        let pairs = self.points.chunks(2).map(|pair| match pair {
            [first, second] if second.level(first.at, slope) < first.value as f64 => *second,
            _ => pair[0],
        });
        self.points = pairs.collect();
    }
}

impl Point {
    /// Returns its value at another time, on a line with this slope.
    fn level(&self, at: RunningTime, slope: f64) -> f64 {
        self.value as f64 - slope * span(at, self.at)
    }
}

/// Returns the time from one running time to another in nanoseconds.
pub(super) fn span(from: RunningTime, to: RunningTime) -> f64 {
    to.wrapping_sub(from).cast_signed() as f64
}

fn span_of(points: &[Point]) -> f64 {
    match points {
        [first, .., last] => span(first.at, last.at),
        _ => 0.0,
    }
}

/// Returns the line that is below all points, and nearest to them: the edge of their lower convex
/// hull at the mean of their times.
fn lower_line(points: &[Point]) -> Option<Line> {
    let origin = *points.first()?;
    let place = |point: &Point| {
        let time = span(origin.at, point.at);
        (time, (point.value - origin.value) as f64)
    };
    // Turns from one edge to the next, which go up along a lower hull.
    let turns_up =
        |[a, b, c]: [(f64, f64); 3]| (b.0 - a.0) * (c.1 - a.1) - (b.1 - a.1) * (c.0 - a.0) > 0.0;
    let mut hull = [(0.0, 0.0); MAX_POINTS];
    let mut corners = 0;
    let mut sum = 0.0;
    for point in points.iter().map(place) {
        sum += point.0;
        while corners >= 2 && !turns_up([hull[corners - 2], hull[corners - 1], point]) {
            corners -= 1;
        }
        *hull.get_mut(corners)? = point;
        corners += 1;
    }
    let mean = sum / points.len() as f64;
    let mut edges = hull[..corners].windows(2);
    let edge = edges.find(|edge| edge[1].0 >= mean)?;
    let (from, to) = (edge[0], edge[1]);
    let slope = (to.1 - from.1) / (to.0 - from.0);
    Some(Line {
        at: origin.at.wrapping_add(mean as u64),
        value: origin.value as f64 + from.1 + slope * (mean - from.0),
        slope: if slope.is_finite() {
            slope
        } else {
            return None;
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: i64 = 1_000_000;
    const MAX_SLOPE: f64 = 1e-3;
    const MINUTE: u64 = 60 * SECOND;

    /// Adds the lowest of each bucket, with this lateness in milliseconds by second. Returns the
    /// seconds in which the floor has moved.
    fn push_seconds(
        floor: &mut Floor,
        seconds: std::ops::Range<u64>,
        lateness: impl Fn(u64) -> f64,
    ) -> Vec<u64> {
        let mut moved = Vec::new();
        let mut start = seconds.start;
        while start < seconds.end {
            let bucket = start..start + floor.bucket() / SECOND;
            let points = bucket.map(|second| Point {
                at: second * SECOND,
                value: (lateness(second) * MILLI as f64) as i64,
            });
            let lowest = points.min_by_key(|point| point.value).unwrap();
            start += floor.bucket() / SECOND;
            if floor.push(lowest) == Change::Moved {
                moved.push(start);
            }
        }
        moved
    }

    #[test]
    fn the_line_is_below_all_points() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..200 {
            let slope = random.f64() * 1e-3 - 0.5e-3;
            let points: Vec<Point> = (0..random.usize(2..MAX_POINTS))
                .map(|index| {
                    let at = index as u64 * SECOND + random.u64(..SECOND);
                    let value = slope * at as f64 + random.f64() * 50e6;
                    Point {
                        at,
                        value: value as i64,
                    }
                })
                .collect();
            let line = lower_line(&points).unwrap();
            for point in &points {
                assert!(point.value as f64 >= line.value_at(point.at) - 1.0);
            }
        }
    }

    #[test]
    fn delays_do_not_hide_the_slope() {
        let mut floor = Floor::new(MAX_SLOPE);
        let mut random = fastrand::Rng::with_seed(2);
        let delays: Vec<f64> = (0..5000).map(|_| random.f64() * 80.0).collect();
        let lateness = |second: u64| second as f64 * 0.05 + delays[second as usize];
        assert_eq!(push_seconds(&mut floor, 0..4000, lateness), [0; 0]);
        let line = floor.line(MINUTE).unwrap();
        assert!((line.slope - 50e-6).abs() < 2e-6, "{line:?}");
        let now = line.value_at(4000 * SECOND) / MILLI as f64;
        assert!((now - 200.0).abs() < 4.0, "{now}");
    }

    #[test]
    fn media_that_comes_fast_or_slow_is_no_clock() {
        // A file at 1.05 and at 0.9 of its pace.
        for pace in [-50.0, 100.0] {
            let mut floor = Floor::new(MAX_SLOPE);
            let moved = push_seconds(&mut floor, 0..600, |second| second as f64 * pace);
            assert!(moved.len() > 100, "{pace}");
            assert_eq!(floor.line(20 * SECOND), None, "{pace}");
        }
    }

    #[test]
    fn a_stall_is_no_rise_and_another_way_is_one() {
        let mut floor = Floor::new(MAX_SLOPE);
        let stalled = |second: u64| if second % 100 < 30 { 5000.0 } else { 0.0 };
        assert_eq!(push_seconds(&mut floor, 50..900, stalled), [0; 0]);
        let moved = push_seconds(&mut floor, 900..2000, |_| 300.0);
        assert_eq!(moved.len(), 1);
        assert!(moved[0] < 1000, "{moved:?}");
        // And back.
        assert_eq!(push_seconds(&mut floor, 2000..2100, |_| 0.0).len(), 1);
    }

    #[test]
    fn points_are_bounded() {
        let mut floor = Floor::new(MAX_SLOPE);
        let full = MAX_POINTS as u64;
        assert!(push_seconds(&mut floor, 0..full, |_| 0.0).is_empty());
        assert_eq!((floor.bucket(), floor.start()), (SECOND, Some(0)));
        assert!(push_seconds(&mut floor, full..100_000, |_| 0.0).is_empty());
        assert_eq!(floor.bucket(), MAX_BUCKET);
        assert!(floor.points.len() <= MAX_POINTS);
        assert_eq!(floor.start(), None);
    }
}
