// SPDX-License-Identifier: MPL-2.0

//! The return of a publisher that had fallen silent: it may send late what standby has replaced.
//!
//! ```text
//!             late keyframe                        the burst is over
//!   waiting ----------------> holding, from there ------------------> takes over with what is held
//!      |                         |    ^
//!      | keyframe in time        |    | newer late keyframe: holds from there
//!      v                         v----+
//!   takes over               keyframe in time: takes over with it
//! ```
//!
//! A burst is over when media arrives at its own pace, or no more of it does.

use super::super::time::{NANOS_PER_MILLI, RunningTime};

/// Lateness in milliseconds up to which media is in time.
const MAX_LATENESS: i64 = 200;

/// Time in nanoseconds in which a burst shows that it goes on.
const SETTLE_TIME: RunningTime = 100 * NANOS_PER_MILLI;

/// Time in nanoseconds after which a burst is awaited no longer.
const MAX_BURST: RunningTime = 2000 * NANOS_PER_MILLI;

/// Memory in bytes for what is held.
const MAX_HELD: usize = 8 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::feed) enum LateAction {
    /// It is in time, or cannot tell.
    Pass,
    Drop,
    /// Begins to hold, without what was held before.
    HoldFromHere,
    Hold,
    /// Holds it, and takes over with all that is held.
    TakeOver,
}

/// Media of a publisher that returns.
#[derive(Debug, Clone, Copy)]
pub(in crate::feed) struct Returning {
    /// Milliseconds on the publisher's clock.
    pub(in crate::feed) source: i64,
    /// Milliseconds after its time by the clock from before the silence.
    pub(in crate::feed) lateness: i64,
    pub(in crate::feed) arrival: RunningTime,
    pub(in crate::feed) starts_decoding: bool,
    /// No later point to start decoding at is here.
    pub(in crate::feed) is_newest: bool,
}

#[derive(Debug, Default)]
pub(super) struct LateStart {
    held: Option<Held>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    since: RunningTime,
    /// Arrival and time of the media at the last look.
    look: (RunningTime, i64),
    /// Latest time of media.
    edge: i64,
    bytes: usize,
}

impl LateStart {
    pub(super) fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// Returns the running time at which a burst without more media is over.
    pub(super) fn deadline(&self) -> Option<RunningTime> {
        self.held.map(|held| held.look.0 + SETTLE_TIME)
    }

    pub(super) fn check(&mut self, media: &Returning, bytes: usize) -> LateAction {
        if media.lateness <= MAX_LATENESS && (media.starts_decoding || self.held.is_none()) {
            self.held = None;
            return LateAction::Pass;
        }
        if media.starts_decoding {
            if !media.is_newest {
                return LateAction::Drop;
            }
            self.held = Some(Held {
                since: media.arrival,
                look: (media.arrival, media.source),
                edge: media.source,
                bytes,
            });
            return LateAction::HoldFromHere;
        }
        let Some(held) = &mut self.held else {
            return LateAction::Drop;
        };
        held.edge = held.edge.max(media.source);
        held.bytes += bytes;
        let elapsed = media.arrival.saturating_sub(held.look.0);
        if held.bytes >= MAX_HELD || media.arrival.saturating_sub(held.since) >= MAX_BURST {
            return LateAction::TakeOver;
        }
        if elapsed < SETTLE_TIME {
            return LateAction::Hold;
        }
        let played = (held.edge - held.look.1).max(0).unsigned_abs() * NANOS_PER_MILLI;
        if played <= elapsed.saturating_mul(2) {
            return LateAction::TakeOver;
        }
        held.look = (media.arrival, held.edge);
        LateAction::Hold
    }
}

#[cfg(test)]
mod tests {
    use super::LateAction::{Drop, Hold, HoldFromHere, Pass, TakeOver};
    use super::*;

    fn media(source: i64, lateness: i64, arrival: u64, starts_decoding: bool) -> Returning {
        Returning {
            source,
            lateness,
            arrival: arrival * NANOS_PER_MILLI,
            starts_decoding,
            is_newest: true,
        }
    }

    #[test]
    fn media_in_time_passes() {
        let mut start = LateStart::default();
        for is_key in [false, true] {
            assert_eq!(start.check(&media(0, 150, 0, is_key), 9), Pass);
        }
        assert_eq!(start.deadline(), None);
    }

    #[test]
    fn burst_is_skipped_to_its_newest_keyframe() {
        let mut start = LateStart::default();
        // Five seconds of silence, then all of it within 300 ms, a keyframe each second.
        assert_eq!(start.check(&media(-40, 5040, 5000, false), 9), Drop);
        let mut actions = Vec::new();
        for index in 0..125 {
            let arrival = 5000 + index as u64 * 300 / 125;
            let source = index * 40;
            let lateness = arrival as i64 - source;
            let is_key = index % 25 == 0;
            actions.push(start.check(&media(source, lateness, arrival, is_key), 9));
        }
        for (index, action) in actions.iter().enumerate() {
            let expected = if index % 25 == 0 { HoldFromHere } else { Hold };
            assert_eq!(*action, expected, "{index}");
        }
        // Then at its own pace.
        assert_eq!(start.check(&media(5000, 340, 5340, false), 9), Hold);
        assert_eq!(start.check(&media(5060, 340, 5400, false), 9), Hold);
        assert_eq!(start.check(&media(5100, 340, 5440, false), 9), TakeOver);
    }

    #[test]
    fn publisher_whose_clock_stood_still_takes_over_with_its_first_keyframe() {
        let mut start = LateStart::default();
        assert_eq!(start.check(&media(0, 5000, 5000, true), 9), HoldFromHere);
        assert_eq!(start.deadline(), Some(5100 * NANOS_PER_MILLI));
        assert_eq!(start.check(&media(40, 5000, 5040, false), 9), Hold);
        assert_eq!(start.check(&media(80, 5000, 5080, false), 9), Hold);
        assert_eq!(start.check(&media(120, 5000, 5120, false), 9), TakeOver);
    }

    #[test]
    fn keyframe_in_time_needs_none_of_the_late_ones() {
        let mut start = LateStart::default();
        assert_eq!(start.check(&media(0, 900, 900, true), 9), HoldFromHere);
        assert_eq!(start.check(&media(800, 110, 910, false), 9), Hold);
        assert_eq!(start.check(&media(840, 80, 920, true), 9), Pass);
        assert!(!start.is_holding());
    }

    #[test]
    fn later_keyframe_that_is_here_already_is_awaited() {
        let mut start = LateStart::default();
        let first = Returning {
            is_newest: false,
            ..media(0, 900, 900, true)
        };
        assert_eq!(start.check(&first, 9), Drop);
    }

    #[test]
    fn memory_and_time_are_bounded() {
        let mut start = LateStart::default();
        assert_eq!(
            start.check(&media(0, 9000, 0, true), MAX_HELD - 1),
            HoldFromHere
        );
        assert_eq!(start.check(&media(9, 9000, 1, false), 1), TakeOver);
        let mut start = LateStart::default();
        assert_eq!(start.check(&media(0, 99_000, 0, true), 1), HoldFromHere);
        let burst = |arrival: u64| media(arrival as i64 * 10, 9000, arrival, false);
        assert!((1..2000).all(|arrival| start.check(&burst(arrival), 0) == Hold));
        assert_eq!(start.check(&burst(2000), 0), TakeOver);
    }
}
