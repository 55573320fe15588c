// SPDX-License-Identifier: MPL-2.0

//! Lag of pictures and sound behind each other: only time whose media can't come any more is filled.
//!
//! Encoders and networks delay one track more than the other, some constantly by a second and
//! more. A track is filled when nothing of it has come for as long as its allowance. Media for time
//! that was filled proves that the track merely comes late. The allowance then grows to the lag that
//! the media shows and a margin, so that the track loses nothing again.

use crate::frame_rate::RATE;

/// Samples that every track may be behind the other one.
const ALLOWANCE: i64 = RATE;

/// Smallest margin in samples that a grown allowance has beyond the lag that was seen.
const MARGIN: i64 = RATE / 10;

/// Largest allowance in samples.
const MAX_ALLOWANCE: i64 = 10 * RATE;

/// Lag of one track. Positions are samples since the start.
#[derive(Debug, Clone)]
pub struct TrackLag {
    allowance: i64,
    /// Position of the other track when media of this one last came.
    heard_at: i64,
    /// End of what was filled in.
    filled_to: Option<i64>,
}

impl Default for TrackLag {
    fn default() -> Self {
        TrackLag {
            allowance: ALLOWANCE,
            heard_at: 0,
            filled_to: None,
        }
    }
}

impl TrackLag {
    /// Handles media that belongs at `position`, while the other track is at `other`.
    pub fn hear(&mut self, position: i64, other: i64) {
        if self.filled_to.is_some_and(|end| position < end) {
            let lag = other.saturating_sub(position);
            let allowance = lag.saturating_add((lag / 4).max(MARGIN));
            self.allowance = self.allowance.max(allowance).min(MAX_ALLOWANCE);
        }
        self.heard_at = other;
    }

    /// Returns the position up to which the track has to be filled while the other one is at
    /// `other`.
    pub fn due(&self, other: i64) -> Option<i64> {
        let is_due = other.saturating_sub(self.heard_at) >= self.allowance;
        is_due.then(|| other.saturating_sub(self.allowance))
    }

    /// Notes that the track has been filled up to `end`.
    pub fn fill(&mut self, end: i64) {
        self.filled_to = Some(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_track_of_which_something_comes_is_never_due() {
        let mut lag = TrackLag::default();
        for second in 0..100 {
            // A lag that grows.
            lag.hear(second * RATE / 2, second * RATE);
            assert_eq!(lag.due(second * RATE + RATE - 1), None);
        }
    }

    #[test]
    fn a_track_that_has_stopped_stays_its_allowance_behind() {
        let mut lag = TrackLag::default();
        lag.hear(0, 0);
        assert_eq!(lag.due(RATE - 1), None);
        assert_eq!(lag.due(3 * RATE), Some(2 * RATE));
        lag.fill(2 * RATE);
        // It goes on where it is.
        lag.hear(3 * RATE, 3 * RATE);
        assert_eq!(lag.due(5 * RATE), Some(4 * RATE));
    }

    #[test]
    fn media_for_filled_time_makes_the_allowance_grow_up_to_a_limit() {
        let mut lag = TrackLag::default();
        lag.hear(0, 0);
        lag.fill(2 * RATE);
        lag.hear(RATE, 3 * RATE);
        assert_eq!(lag.due(5 * RATE), None);
        assert_eq!(lag.due(6 * RATE), Some(6 * RATE - 5 * RATE / 2));
        lag.fill(100 * RATE);
        lag.hear(RATE, 101 * RATE);
        assert_eq!(lag.due(111 * RATE), Some(101 * RATE));
    }
}
