// SPDX-License-Identifier: MPL-2.0

//! Totals over all elements of the process, those that have stopped among them, so that no counter
//! ever goes back.

use std::sync::Arc;

use crate::server::routing::publish_point::PublishPoint;
use crate::server::stream::Stream;

/// Counters over several elements, or several streams of one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    in_bytes: u64,
    tags: u64,
    rejected: u64,
    dropped: u64,
    publishers: u64,
}

impl Totals {
    pub(crate) fn with(self, stream: &Arc<Stream>) -> Self {
        let totals = stream.totals();
        Totals {
            in_bytes: self.in_bytes + totals.in_bytes,
            tags: self.tags + totals.tags(),
            rejected: self.rejected + stream.rejected(),
            dropped: self.dropped + stream.dropped().sum(),
            publishers: self.publishers + stream.publishers(),
        }
    }

    pub(crate) fn with_rejected(self, rejected: u64) -> Self {
        Totals {
            rejected: self.rejected + rejected,
            ..self
        }
    }

    fn with_all(self, point: &PublishPoint) -> Self {
        let other = match point {
            PublishPoint::One(stream) => return self.with(stream),
            PublishPoint::Many(table) => table.sums(),
        };
        Totals {
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
pub(crate) struct ProcessCounters {
    present: Vec<PublishPoint>,
    /// What those that have stopped had counted.
    gone: Totals,
}

impl ProcessCounters {
    pub(crate) fn add(&mut self, point: &PublishPoint) {
        self.present.push(point.clone());
    }

    /// An element has stopped, and counts no further.
    pub(crate) fn remove(&mut self, point: &PublishPoint) {
        let before = self.present.len();
        self.present.retain(|other| !other.is(point));
        if self.present.len() < before {
            self.gone = self.gone.with_all(point);
        }
    }

    pub(crate) fn stats(&self) -> ProcessStats {
        let present = || self.present.iter();
        let sums = present().fold(self.gone, Totals::with_all);
        let publishing = present().map(|point| match point {
            PublishPoint::One(stream) => usize::from(stream.publisher().is_some()),
            PublishPoint::Many(table) => table.publishing(),
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
