// SPDX-License-Identifier: MPL-2.0

//! Counters over all elements of the process, with those that have stopped, so that no counter ever
//! goes back.

use std::collections::HashMap;
use std::time::Instant;

use crate::server::routing::publish_point::PublishPoint;
use crate::server::stats::{ProcessStats, Totals};

#[derive(Debug, Default)]
pub(crate) struct ProcessCounters {
    /// Elements that run, by the ids of their points.
    present: HashMap<u64, PublishPoint>,
    /// Totals of the elements that have stopped.
    stopped: Totals,
}

impl ProcessCounters {
    pub(crate) fn add(&mut self, point: &PublishPoint) {
        self.present.insert(point.id(), point.clone());
    }

    /// Keeps the totals of an element that has stopped.
    pub(crate) fn remove(&mut self, point: &PublishPoint) {
        if self.present.remove(&point.id()).is_some() {
            self.stopped = self.stopped + point.totals(Instant::now());
        }
    }

    pub(crate) fn stats(&self) -> ProcessStats {
        let now = Instant::now();
        let present: Totals = self.present.values().map(|point| point.totals(now)).sum();
        let totals = self.stopped + present;
        let publishing: usize = self.present.values().map(PublishPoint::publishing).sum();
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
