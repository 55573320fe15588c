// SPDX-License-Identifier: MPL-2.0

//! Which time of the outgoing stream a tag has.

use super::input::Tag;
use crate::feed::TimestampUnwrapper;

const NANOS_PER_MILLI: i64 = 1_000_000;

/// Steps back of a track that are no disorder but a clock that was set anew. flvdemux takes the same.
const RESET: i64 = 2_000 * NANOS_PER_MILLI;

/// Times of tags, in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Times {
    unwrapper: TimestampUnwrapper,
    /// What upstream says, and the tag that it said it of. Tags within a buffer keep their distance.
    anchor: Option<(gst::ClockTime, u32)>,
    /// Whether upstream's times are those of its segment.
    follows_upstream: bool,
}

impl Times {
    pub(super) fn new(follows_upstream: bool) -> Self {
        Times {
            follows_upstream,
            ..Times::default()
        }
    }

    pub(super) fn of(&mut self, tag: &Tag<'_>) -> i64 {
        if self.follows_upstream {
            if let Some(dts) = tag.dts {
                self.anchor = Some((dts, tag.timestamp));
            }
            if let Some((dts, timestamp)) = self.anchor {
                let step = tag.timestamp.wrapping_sub(timestamp) as i32;
                let dts = i64::try_from(dts.nseconds()).unwrap_or(i64::MAX);
                return dts.saturating_add(i64::from(step) * NANOS_PER_MILLI);
            }
        }
        self.unwrapper.next(tag.timestamp) * NANOS_PER_MILLI
    }

    pub(super) fn is_anchored(&self) -> bool {
        self.anchor.is_some()
    }
}

/// Times of one track, where there is no upstream to keep them going on.
#[derive(Debug, Default)]
pub(super) struct TrackTimes {
    last: Option<i64>,
    offset: i64,
}

impl TrackTimes {
    /// The time of the next packet, and whether its clock was set anew.
    pub(super) fn next(&mut self, dts: i64) -> (i64, bool) {
        let last = self.last.replace(dts);
        let step = last.map_or(0, |last| dts - last);
        let is_reset = step <= -RESET;
        if is_reset {
            self.offset -= step;
        }
        (dts.saturating_add(self.offset), is_reset)
    }
}
