// SPDX-License-Identifier: MPL-2.0

//! Sums over all elements of the process, those that have stopped among them, so that no counter
//! ever goes back.

use std::sync::Arc;

use super::intake::Intake;

/// Counters over several elements.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sums {
    in_bytes: u64,
    tags: u64,
    rejected: u64,
    dropped: u64,
    publishers: u64,
}

impl Sums {
    fn with(self, intake: &Intake) -> Self {
        let totals = intake.totals();
        Sums {
            in_bytes: self.in_bytes + totals.in_bytes,
            tags: self.tags + totals.tags(),
            rejected: self.rejected + intake.rejected(),
            dropped: self.dropped + intake.dropped().sum(),
            publishers: self.publishers + intake.publishers(),
        }
    }
}

/// All elements of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessStats {
    /// Elements that listen, and the addresses that they listen on.
    pub elements: u64,
    pub listeners: u64,
    /// Connections that there are, and those of them that publish.
    pub clients: u64,
    pub publishing: u64,
    /// Since the process started.
    pub publishers: u64,
    pub in_bytes: u64,
    pub tags: u64,
    pub rejected: u64,
    pub dropped: u64,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    present: Vec<Arc<Intake>>,
    /// What those that have stopped had counted.
    gone: Sums,
}

impl Ledger {
    pub(super) fn add(&mut self, intake: &Arc<Intake>) {
        self.present.push(intake.clone());
    }

    /// An element has stopped, and counts no further.
    pub(super) fn remove(&mut self, intake: &Arc<Intake>) {
        let before = self.present.len();
        self.present.retain(|other| !Arc::ptr_eq(other, intake));
        if self.present.len() < before {
            self.gone = self.gone.with(intake);
        }
    }

    pub(super) fn stats(&self) -> ProcessStats {
        let present = || self.present.iter();
        let sums = present().fold(self.gone, |sums, intake| sums.with(intake));
        let publishing = present().filter(|intake| intake.publisher().is_some());
        ProcessStats {
            elements: self.present.len() as u64,
            publishing: publishing.count() as u64,
            publishers: sums.publishers,
            in_bytes: sums.in_bytes,
            tags: sums.tags,
            rejected: sums.rejected,
            dropped: sums.dropped,
            ..ProcessStats::default()
        }
    }
}
