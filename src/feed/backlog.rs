// SPDX-License-Identifier: MPL-2.0

//! Drops parts of a backlog, so that a stream does not stay behind for ever.
//!
//! Media is late when its time has passed: a publisher sends what it kept during an outage, or
//! the pipeline was slow. It is early when a publisher that has just connected sends what it has
//! kept: then the pipeline would stay behind by as much.

use super::time::RunningTime;

/// Time in nanoseconds after which a backlog that is still being sent is no longer skipped.
const MAX_SKIP: u64 = 2_000_000_000;

/// Time in nanoseconds after which a sync point is no longer awaited: some encoders send one and
/// no other, and video may have been switched off.
const MAX_WAIT: u64 = 10_000_000_000;

/// The filter's decision about one tag of media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BacklogAction {
    Pass,
    Drop,
    /// Passes with its arrival as its new time.
    Realign,
}

/// A tag of media and its place on the pipeline's time.
#[derive(Debug, Clone, Copy)]
pub(super) struct BacklogCandidate {
    /// Running time in nanoseconds. It may be before the pipeline's start.
    pub(super) time: i64,
    pub(super) arrival: RunningTime,
    pub(super) now: RunningTime,
    pub(super) starts_decoding: bool,
    /// No sync point waits after it.
    pub(super) is_newest: bool,
}

#[derive(Debug)]
pub(super) struct BacklogFilter {
    /// Nanoseconds, 0 for no limit.
    max_lateness: u64,
    /// Latest running time of media on any track. A track that is behind the others is no backlog.
    latest: Option<i64>,
    skip: Option<Skip>,
}

#[derive(Debug, Clone, Copy)]
struct Skip {
    since: RunningTime,
    /// Origin of the measured pace: the last sync point's time and its arrival.
    time: i64,
    arrival: RunningTime,
}

impl BacklogFilter {
    pub(super) fn new(max_lateness: u64) -> Self {
        BacklogFilter {
            max_lateness,
            latest: None,
            skip: None,
        }
    }

    /// Forgets all times: those that follow have nothing to do with them.
    pub(super) fn reset(&mut self) {
        self.latest = None;
        self.skip = None;
    }

    pub(super) fn set_max_lateness(&mut self, max_lateness: u64) {
        self.max_lateness = max_lateness;
    }

    pub(super) fn check(&mut self, candidate: &BacklogCandidate) -> BacklogAction {
        let latest = self.latest.unwrap_or(candidate.time).max(candidate.time);
        self.latest = Some(latest);
        let candidate = BacklogCandidate {
            time: latest,
            ..*candidate
        };
        let is_within = |at: RunningTime| {
            let lateness = at.cast_signed().saturating_sub(latest);
            self.max_lateness == 0 || lateness.unsigned_abs() <= self.max_lateness
        };
        let is_fresh = is_within(candidate.now);
        if is_fresh && self.skip.is_none() {
            return BacklogAction::Pass;
        }
        let arrived_in_time = is_within(candidate.arrival);
        let skip = self.skip.get_or_insert(Skip {
            since: candidate.now,
            time: latest,
            arrival: candidate.arrival,
        });
        let has_waited_enough = candidate.now.saturating_sub(skip.since) >= MAX_WAIT;
        if !candidate.starts_decoding && !has_waited_enough {
            return BacklogAction::Drop;
        }
        let is_over = skip.is_over(&candidate);
        skip.time = latest;
        skip.arrival = candidate.arrival;
        let action = if is_fresh || (arrived_in_time && candidate.is_newest) {
            BacklogAction::Pass
        } else if has_waited_enough || (!arrived_in_time && candidate.is_newest && is_over) {
            BacklogAction::Realign
        } else {
            return BacklogAction::Drop;
        };
        self.skip = None;
        if action == BacklogAction::Realign {
            self.latest = None;
        }
        action
    }
}

impl Skip {
    /// Returns true when media arrives at its own pace again instead of from a store, or has not
    /// done so for long enough.
    fn is_over(&self, candidate: &BacklogCandidate) -> bool {
        let elapsed = candidate.arrival.saturating_sub(self.arrival);
        let played = candidate.time.saturating_sub(self.time).max(0);
        let is_paced = elapsed > 0 && played.unsigned_abs() <= elapsed.saturating_mul(2);
        is_paced || candidate.now.saturating_sub(self.since) >= MAX_SKIP
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use BacklogAction::{Drop, Pass, Realign};

    const SECOND: u64 = 1_000_000_000;
    const MILLI: u64 = 1_000_000;

    /// A frame with these times in milliseconds.
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

    fn followed(candidate: BacklogCandidate) -> BacklogCandidate {
        BacklogCandidate {
            is_newest: false,
            ..candidate
        }
    }

    #[test]
    fn a_backlog_in_the_queue_is_skipped_to_its_newest_keyframe() {
        let mut filter = BacklogFilter::new(SECOND);
        // Everything arrived in time, and the pipeline did not take it for ten seconds.
        assert_eq!(filter.check(&followed(keyframe(0, 0, 1000))), Pass);
        assert_eq!(filter.check(&followed(frame(40, 40, 10_000))), Drop);
        assert_eq!(filter.check(&followed(keyframe(4000, 4000, 10_000))), Drop);
        assert_eq!(filter.check(&keyframe(8000, 8000, 10_000)), Pass);
        assert_eq!(filter.check(&frame(9500, 9500, 10_000)), Pass);
    }

    #[test]
    fn a_burst_after_an_outage_is_skipped_until_it_has_caught_up() {
        let mut filter = BacklogFilter::new(SECOND);
        assert_eq!(filter.check(&frame(1000, 1000, 1000)), Pass);
        // Five seconds of silence, then all of it within half a second.
        assert_eq!(filter.check(&keyframe(1040, 6000, 6000)), Drop);
        assert_eq!(filter.check(&keyframe(3040, 6200, 6200)), Drop);
        assert_eq!(filter.check(&frame(5500, 6400, 6400)), Drop);
        assert_eq!(filter.check(&keyframe(5600, 6500, 6500)), Pass);
    }

    #[test]
    fn a_backlog_at_the_start_is_realigned_when_it_is_sent() {
        let mut filter = BacklogFilter::new(SECOND);
        assert_eq!(filter.check(&keyframe(0, 0, 0)), Pass);
        assert_eq!(filter.check(&keyframe(1000, 0, 0)), Pass);
        assert_eq!(filter.check(&keyframe(2000, 0, 0)), Drop);
        assert_eq!(filter.check(&keyframe(6000, 50, 50)), Drop);
        assert_eq!(filter.check(&frame(7000, 500, 500)), Drop);
        assert_eq!(filter.check(&keyframe(8000, 1000, 1000)), Drop);
        // From here on media arrives at its pace, seven seconds ahead.
        assert_eq!(filter.check(&keyframe(9000, 1900, 1900)), Realign);
    }

    #[test]
    fn media_that_stays_late_at_its_own_pace_is_realigned() {
        let mut filter = BacklogFilter::new(SECOND);
        assert_eq!(filter.check(&keyframe(0, 3000, 3000)), Drop);
        assert_eq!(filter.check(&keyframe(1000, 4000, 4000)), Realign);
    }

    #[test]
    fn a_backlog_without_end_is_not_skipped_for_ever() {
        let mut filter = BacklogFilter::new(SECOND);
        for time in [0, 10_000, 20_000] {
            assert_eq!(
                filter.check(&keyframe(time, 0, 0)),
                [Pass, Drop][usize::from(time > 0)]
            );
        }
        assert_eq!(filter.check(&keyframe(30_000, 10, 1999)), Drop);
        assert_eq!(filter.check(&keyframe(40_000, 20, 2000)), Realign);
    }

    #[test]
    fn a_track_behind_the_others_is_no_backlog() {
        let mut filter = BacklogFilter::new(SECOND);
        for time in 0..1000 {
            let video = keyframe(40 * time, 40 * time as u64, 40 * time as u64);
            let audio = BacklogCandidate {
                time: video.time - 3 * SECOND as i64,
                starts_decoding: false,
                ..video
            };
            assert_eq!(filter.check(&video), Pass);
            assert_eq!(filter.check(&audio), Pass);
        }
    }

    #[test]
    fn a_keyframe_that_never_comes_is_not_awaited_for_ever() {
        let mut filter = BacklogFilter::new(SECOND);
        assert_eq!(filter.check(&frame(0, 4000, 4000)), Drop);
        assert_eq!(filter.check(&frame(4000, 4100, 4100)), Drop);
        assert_eq!(filter.check(&frame(13_900, 13_999, 13_999)), Drop);
        assert_eq!(filter.check(&frame(13_940, 14_000, 14_000)), Pass);
        assert_eq!(filter.check(&frame(13_980, 14_040, 14_040)), Pass);
    }

    #[test]
    fn a_limit_of_zero_drops_nothing() {
        let mut filter = BacklogFilter::new(0);
        assert_eq!(filter.check(&frame(i64::MAX / 1_000_000, 0, 0)), Pass);
    }
}
