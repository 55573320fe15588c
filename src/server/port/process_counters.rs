// SPDX-License-Identifier: MPL-2.0

//! Counters over all elements of the process, with those that have stopped, so that no counter ever
//! goes back.

use std::time::Instant;

use crate::server::routing::publish_point::PublishPoint;
use crate::server::stats::{ProcessStats, Totals};

#[derive(Debug, Default)]
pub(crate) struct ProcessCounters {
    present: Vec<PublishPoint>,
    /// Totals of the elements that have stopped.
    stopped: Totals,
}

impl ProcessCounters {
    pub(crate) fn add(&mut self, point: &PublishPoint) {
        self.present.push(point.clone());
    }

    /// Keeps the totals of an element that has stopped.
    pub(crate) fn remove(&mut self, point: &PublishPoint) {
        let before = self.present.len();
        self.present.retain(|other| !other.is(point));
        if self.present.len() < before {
            self.stopped = self.stopped + point.totals(Instant::now());
        }
    }

    pub(crate) fn stats(&self) -> ProcessStats {
        let now = Instant::now();
        let present: Totals = self.present.iter().map(|point| point.totals(now)).sum();
        let totals = self.stopped + present;
        let publishing: usize = self.present.iter().map(PublishPoint::publishing).sum();
        ProcessStats {
            elements: self.present.len() as u64,
            publishing: publishing as u64,
            publishers: totals.publishers,
            in_bytes: totals.media.in_bytes,
            tags: totals.media.tags(),
            rejected: totals.rejected,
            dropped: totals.dropped.sum() + totals.media.skipped,
            ..ProcessStats::default()
        }
    }
}
