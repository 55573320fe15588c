// SPDX-License-Identifier: MPL-2.0

//! Times of tags in the outgoing stream.

use super::parser::FlvTag;
use crate::feed::TimestampUnwrapper;

const NANOS_PER_MILLI: i64 = 1_000_000;

/// A step back of a track by this much is no disorder but a restarted clock. flvdemux has the same
/// limit.
const RESET: i64 = 2_000 * NANOS_PER_MILLI;

/// Times of tags, in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct TagTimes {
    unwrapper: TimestampUnwrapper,
    /// The last time from upstream, and the timestamp of its tag. Tags within a buffer keep their
    /// distance.
    anchor: Option<(gst::ClockTime, u32)>,
    /// Upstream's times are those of its segment.
    follows_upstream: bool,
}

impl TagTimes {
    pub(super) fn new(follows_upstream: bool) -> Self {
        TagTimes {
            follows_upstream,
            ..TagTimes::default()
        }
    }

    pub(super) fn of(&mut self, tag: &FlvTag<'_>) -> i64 {
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

/// Times of one track where upstream has none: they go on when the publisher's clock restarts.
#[derive(Debug, Default)]
pub(super) struct TrackTimes {
    last: Option<i64>,
    offset: i64,
}

impl TrackTimes {
    /// Returns the time of the next packet, and true if the clock has restarted.
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
