// SPDX-License-Identifier: MPL-2.0

//! Sums over all elements of the process, those that have stopped among them, so that no counter
//! ever goes back.

use std::sync::Arc;

use super::intake::Intake;
use super::taker::Taker;

/// Counters over several elements, or several streams of one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    in_bytes: u64,
    tags: u64,
    rejected: u64,
    dropped: u64,
    publishers: u64,
}

impl Sums {
    pub(super) fn with(self, intake: &Arc<Intake>) -> Self {
        let totals = intake.totals();
        Sums {
            in_bytes: self.in_bytes + totals.in_bytes,
            tags: self.tags + totals.tags(),
            rejected: self.rejected + intake.rejected(),
            dropped: self.dropped + intake.dropped().sum(),
            publishers: self.publishers + intake.publishers(),
        }
    }

    pub(super) fn with_rejected(self, rejected: u64) -> Self {
        Sums {
            rejected: self.rejected + rejected,
            ..self
        }
    }

    fn with_all(self, taker: &Taker) -> Self {
        let other = match taker {
            Taker::One(intake) => return self.with(intake),
            Taker::Many(lobby) => lobby.sums(),
        };
        Sums {
            in_bytes: self.in_bytes + other.in_bytes,
            tags: self.tags + other.tags,
            rejected: self.rejected + other.rejected,
            dropped: self.dropped + other.dropped,
            publishers: self.publishers + other.publishers,
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
    present: Vec<Taker>,
    /// What those that have stopped had counted.
    gone: Sums,
}

impl Ledger {
    pub(super) fn add(&mut self, taker: &Taker) {
        self.present.push(taker.clone());
    }

    /// An element has stopped, and counts no further.
    pub(super) fn remove(&mut self, taker: &Taker) {
        let before = self.present.len();
        self.present.retain(|other| !other.is(taker));
        if self.present.len() < before {
            self.gone = self.gone.with_all(taker);
        }
    }

    pub(super) fn stats(&self) -> ProcessStats {
        let present = || self.present.iter();
        let sums = present().fold(self.gone, Sums::with_all);
        let publishing = present().map(|taker| match taker {
            Taker::One(intake) => usize::from(intake.publisher().is_some()),
            Taker::Many(lobby) => lobby.publishing(),
        });
        ProcessStats {
            elements: self.present.len() as u64,
            publishing: publishing.sum::<usize>() as u64,
            publishers: sums.publishers,
            in_bytes: sums.in_bytes,
            tags: sums.tags,
            rejected: sums.rejected,
            dropped: sums.dropped,
            ..ProcessStats::default()
        }
    }
}
