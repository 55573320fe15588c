// SPDX-License-Identifier: MPL-2.0

//! Counters of a stream since its start, which may be summed over several streams.

use std::ops::AddAssign;
use std::time::Duration;

use crate::feed::Repairs;
use crate::server::{Dropped, MediaTotals};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StreamTotals {
    pub(super) media: MediaTotals,
    pub(super) publishers: u64,
    pub(super) reconnects: u64,
    pub(super) replacements: u64,
    /// Time with a publisher.
    pub(super) uptime: Duration,
    /// Time without a publisher, from when the first one left.
    pub(super) downtime: Duration,
    pub(super) dropped: Dropped,
    pub(super) repairs: Repairs,
    pub(super) force_key_unit_events: u64,
}

// The patterns are exhaustive, so that no counter is left out of a sum.
impl AddAssign for StreamTotals {
    fn add_assign(&mut self, other: Self) {
        let StreamTotals {
            media,
            publishers,
            reconnects,
            replacements,
            uptime,
            downtime,
            dropped,
            repairs,
            force_key_unit_events,
        } = other;
        self.media = self.media + media;
        self.publishers += publishers;
        self.reconnects += reconnects;
        self.replacements += replacements;
        self.uptime += uptime;
        self.downtime += downtime;
        self.dropped = self.dropped + dropped;
        add_repairs(&mut self.repairs, repairs);
        self.force_key_unit_events += force_key_unit_events;
    }
}

fn add_repairs(sum: &mut Repairs, repairs: Repairs) {
    let Repairs {
        clamped,
        jumps,
        frozen,
    } = repairs;
    sum.clamped += clamped;
    sum.jumps += jumps;
    sum.frozen += frozen;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_summed() {
        let one = StreamTotals {
            media: MediaTotals {
                in_bytes: 1,
                audio_bytes: 2,
                video_bytes: 3,
                script_bytes: 4,
                audio_tags: 5,
                video_tags: 6,
                script_tags: 7,
                keyframes: 8,
                skipped: 9,
            },
            publishers: 10,
            reconnects: 11,
            replacements: 12,
            uptime: Duration::from_secs(13),
            downtime: Duration::from_secs(14),
            dropped: Dropped {
                queue_full: 15,
                before_keyframe: 16,
                descriptions: 17,
                cut_off: 18,
                late: 19,
                codec_refused: 20,
                in_pause: 25,
                not_linked: 26,
                at_end: 27,
            },
            repairs: Repairs {
                clamped: 21,
                jumps: 22,
                frozen: 23,
            },
            force_key_unit_events: 24,
        };
        let mut sum = StreamTotals::default();
        sum += one;
        assert_eq!(sum, one);
        sum += one;
        let doubled = format!("{one:?}");
        let numbers = |text: &str| -> Vec<u64> {
            let parts = text.split(|c: char| !c.is_ascii_digit());
            parts.filter_map(|part| part.parse().ok()).collect()
        };
        let doubled: Vec<u64> = numbers(&doubled).iter().map(|n| 2 * n).collect();
        assert_eq!(numbers(&format!("{sum:?}")), doubled);
    }
}
