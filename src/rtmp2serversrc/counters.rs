// SPDX-License-Identifier: MPL-2.0

//! Counters of an element beside those of its stream, which may be summed over several streams.

use std::ops::AddAssign;

use crate::feed::Repairs;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ElementCounters {
    pub(super) repairs: Repairs,
    pub(super) force_key_unit_events: u64,
}

// The patterns are exhaustive, so that no counter is left out of a sum.
impl AddAssign for ElementCounters {
    fn add_assign(&mut self, other: Self) {
        let ElementCounters {
            repairs:
                Repairs {
                    clamped,
                    jumps,
                    frozen,
                },
            force_key_unit_events,
        } = other;
        self.repairs.clamped += clamped;
        self.repairs.jumps += jumps;
        self.repairs.frozen += frozen;
        self.force_key_unit_events += force_key_unit_events;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(factor: u64) -> ElementCounters {
        ElementCounters {
            repairs: Repairs {
                clamped: factor,
                jumps: 2 * factor,
                frozen: 3 * factor,
            },
            force_key_unit_events: 4 * factor,
        }
    }

    #[test]
    fn every_counter_is_summed() {
        let mut sum = ElementCounters::default();
        sum += counters(1);
        sum += counters(10);
        assert_eq!(sum, counters(11));
    }
}
