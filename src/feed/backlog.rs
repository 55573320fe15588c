// SPDX-License-Identifier: MPL-2.0

//! Decides what of a backlog is left out, so that a stream does not stay behind for ever.
//!
//! Media is late when its time has passed: a publisher sends what it has kept during an outage, or
//! the pipeline was slow. It is early when a publisher that has just connected sends what it has
//! kept: then the pipeline would stay behind by as much.

use super::RunningTime;

/// A backlog that is still being sent after this long is not waited for any more. In nanoseconds.
const MAX_SKIP: u64 = 2_000_000_000;

/// A frame that decoding can start with is not waited for any longer than this, in nanoseconds: some
/// encoders send one and no other, and video may have been switched off.
const MAX_WAIT: u64 = 10_000_000_000;

/// What to do with media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Drop,
    /// It passes, and the time of its arrival becomes its time.
    Realign,
}

/// A tag of media and where it would be put.
#[derive(Debug, Clone, Copy)]
pub(super) struct BacklogCandidate {
    /// Its running time. It may be before the pipeline's start.
    pub(super) time: i64,
    pub(super) arrival: RunningTime,
    pub(super) now: RunningTime,
    pub(super) starts_decoding: bool,
    /// Nothing waits behind it that decoding could start with.
    pub(super) is_newest: bool,
}

#[derive(Debug)]
pub(super) struct BacklogFilter {
    /// Nanoseconds, 0 for any.
    max: u64,
    /// The furthest that media has come on any track. A track that is behind the others is no
    /// backlog.
    furthest: Option<i64>,
    skip: Option<Skip>,
}

#[derive(Debug, Clone, Copy)]
struct Skip {
    since: RunningTime,
    /// Where the pace is measured from.
    time: i64,
    arrival: RunningTime,
}

impl BacklogFilter {
    pub(super) fn new(max: u64) -> Self {
        BacklogFilter {
            max,
            furthest: None,
            skip: None,
        }
    }

    /// Times have nothing to do with those before.
    pub(super) fn start_afresh(&mut self) {
        self.furthest = None;
        self.skip = None;
    }

    pub(super) fn set_max(&mut self, max: u64) {
        self.max = max;
    }

    pub(super) fn judge(&mut self, candidate: &BacklogCandidate) -> Verdict {
        let furthest = self.furthest.unwrap_or(candidate.time).max(candidate.time);
        self.furthest = Some(furthest);
        let candidate = BacklogCandidate {
            time: furthest,
            ..*candidate
        };
        let is_within = |at: RunningTime| {
            let lateness = at.cast_signed().saturating_sub(furthest);
            self.max == 0 || lateness.unsigned_abs() <= self.max
        };
        let is_fresh = is_within(candidate.now);
        if is_fresh && self.skip.is_none() {
            return Verdict::Pass;
        }
        let came_in_time = is_within(candidate.arrival);
        let skip = self.skip.get_or_insert(Skip {
            since: candidate.now,
            time: furthest,
            arrival: candidate.arrival,
        });
        let is_hopeless = candidate.now.saturating_sub(skip.since) >= MAX_WAIT;
        if !candidate.starts_decoding && !is_hopeless {
            return Verdict::Drop;
        }
        let is_over = skip.is_over(&candidate);
        skip.time = furthest;
        skip.arrival = candidate.arrival;
        let verdict = if is_fresh || (came_in_time && candidate.is_newest) {
            Verdict::Pass
        } else if is_hopeless || (!came_in_time && candidate.is_newest && is_over) {
            Verdict::Realign
        } else {
            return Verdict::Drop;
        };
        self.skip = None;
        if verdict == Verdict::Realign {
            self.furthest = None;
        }
        verdict
    }
}

impl Skip {
    /// Whether media comes at its own pace again, and not from what was kept, or has not for long
    /// enough.
    fn is_over(&self, candidate: &BacklogCandidate) -> bool {
        let passed = candidate.arrival.saturating_sub(self.arrival);
        let played = candidate.time.saturating_sub(self.time).max(0);
        let is_paced = passed > 0 && played.unsigned_abs() <= passed.saturating_mul(2);
        is_paced || candidate.now.saturating_sub(self.since) >= MAX_SKIP
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Drop, Pass, Realign};

    const SECOND: u64 = 1_000_000_000;
    const MILLI: u64 = 1_000_000;

    /// A frame that is at its time at `time`, in milliseconds, and came and was looked at then.
    fn frame(time: i64, arrival: u64, now: u64) -> BacklogCandidate {
        BacklogCandidate {
            time: time * MILLI as i64,
            arrival: arrival * MILLI,
            now: now * MILLI,
            starts_decoding: false,
            is_newest: true,
        }
    }

    fn keyframe(time: i64, arrival: u64, now: u64) -> BacklogCandidate {
        BacklogCandidate {
            starts_decoding: true,
            ..frame(time, arrival, now)
        }
    }

    fn old(candidate: BacklogCandidate) -> BacklogCandidate {
        BacklogCandidate {
            is_newest: false,
            ..candidate
        }
    }

    #[test]
    fn a_backlog_in_the_queue_is_skipped_to_its_newest_keyframe() {
        let mut lateness = BacklogFilter::new(SECOND);
        // Everything came in time, and the pipeline did not take it for ten seconds.
        assert_eq!(lateness.judge(&old(keyframe(0, 0, 1000))), Pass);
        assert_eq!(lateness.judge(&old(frame(40, 40, 10_000))), Drop);
        assert_eq!(lateness.judge(&old(keyframe(4000, 4000, 10_000))), Drop);
        assert_eq!(lateness.judge(&keyframe(8000, 8000, 10_000)), Pass);
        assert_eq!(lateness.judge(&frame(9500, 9500, 10_000)), Pass);
    }

    #[test]
    fn a_burst_after_an_outage_is_skipped_until_it_has_caught_up() {
        let mut lateness = BacklogFilter::new(SECOND);
        assert_eq!(lateness.judge(&frame(1000, 1000, 1000)), Pass);
        // Five seconds of silence, then all of it within half a second.
        assert_eq!(lateness.judge(&keyframe(1040, 6000, 6000)), Drop);
        assert_eq!(lateness.judge(&keyframe(3040, 6200, 6200)), Drop);
        assert_eq!(lateness.judge(&frame(5500, 6400, 6400)), Drop);
        assert_eq!(lateness.judge(&keyframe(5600, 6500, 6500)), Pass);
    }

    #[test]
    fn who_starts_with_a_backlog_is_now_when_it_is_sent() {
        let mut lateness = BacklogFilter::new(SECOND);
        assert_eq!(lateness.judge(&keyframe(0, 0, 0)), Pass);
        assert_eq!(lateness.judge(&keyframe(1000, 0, 0)), Pass);
        assert_eq!(lateness.judge(&keyframe(2000, 0, 0)), Drop);
        assert_eq!(lateness.judge(&keyframe(6000, 50, 50)), Drop);
        assert_eq!(lateness.judge(&frame(7000, 500, 500)), Drop);
        assert_eq!(lateness.judge(&keyframe(8000, 1000, 1000)), Drop);
        // From here on it comes at its pace, seven seconds ahead.
        assert_eq!(lateness.judge(&keyframe(9000, 1900, 1900)), Realign);
    }

    #[test]
    fn who_stays_late_at_its_own_pace_is_now() {
        let mut lateness = BacklogFilter::new(SECOND);
        assert_eq!(lateness.judge(&keyframe(0, 3000, 3000)), Drop);
        assert_eq!(lateness.judge(&keyframe(1000, 4000, 4000)), Realign);
    }

    #[test]
    fn a_backlog_without_end_is_not_skipped_for_ever() {
        let mut lateness = BacklogFilter::new(SECOND);
        for time in [0, 10_000, 20_000] {
            assert_eq!(
                lateness.judge(&keyframe(time, 0, 0)),
                [Pass, Drop][usize::from(time > 0)]
            );
        }
        assert_eq!(lateness.judge(&keyframe(30_000, 10, 1999)), Drop);
        assert_eq!(lateness.judge(&keyframe(40_000, 20, 2000)), Realign);
    }

    #[test]
    fn a_track_behind_the_others_is_no_backlog() {
        let mut lateness = BacklogFilter::new(SECOND);
        for time in 0..1000 {
            let video = keyframe(40 * time, 40 * time as u64, 40 * time as u64);
            let audio = BacklogCandidate {
                time: video.time - 3 * SECOND as i64,
                starts_decoding: false,
                ..video
            };
            assert_eq!(lateness.judge(&video), Pass);
            assert_eq!(lateness.judge(&audio), Pass);
        }
    }

    #[test]
    fn a_keyframe_that_never_comes_is_not_waited_for() {
        let mut lateness = BacklogFilter::new(SECOND);
        assert_eq!(lateness.judge(&frame(0, 4000, 4000)), Drop);
        assert_eq!(lateness.judge(&frame(4000, 4100, 4100)), Drop);
        assert_eq!(lateness.judge(&frame(13_900, 13_999, 13_999)), Drop);
        assert_eq!(lateness.judge(&frame(13_940, 14_000, 14_000)), Pass);
        assert_eq!(lateness.judge(&frame(13_980, 14_040, 14_040)), Pass);
    }

    #[test]
    fn zero_is_off() {
        let mut lateness = BacklogFilter::new(0);
        assert_eq!(lateness.judge(&frame(i64::MAX / 1_000_000, 0, 0)), Pass);
    }
}
