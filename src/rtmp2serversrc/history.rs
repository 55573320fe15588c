// SPDX-License-Identifier: MPL-2.0

//! The last changes of an element's state, for people who ask later.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use super::state::Snapshot;
use super::{ConnectionState, StreamStatus};

/// Changes that are kept.
const MAX_CHANGES: usize = 64;

/// A state, and when it was entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    /// Nanoseconds since the Unix epoch.
    time: u64,
    connection: ConnectionState,
    status: StreamStatus,
    epoch: u64,
}

/// The last states of a stream, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    changes: VecDeque<Change>,
}

impl History {
    /// Notes a state that is entered now.
    pub(super) fn note(&mut self, state: &Snapshot) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        self.push(state, since.unwrap_or_default().as_nanos() as u64);
    }

    fn push(&mut self, state: &Snapshot, time: u64) {
        if self.changes.len() == MAX_CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back(Change {
            time,
            connection: state.connection,
            status: state.status,
            epoch: state.epoch,
        });
    }

    pub(super) fn clear(&mut self) {
        self.changes.clear();
    }

    /// Returns a structure for each state.
    pub(super) fn to_array(&self) -> gst::Array {
        let change = |change: &Change| {
            gst::Structure::builder("change")
                .field("time", change.time)
                .field("connection-state", change.connection)
                .field("stream-status", change.status)
                .field("epoch", change.epoch)
                .build()
        };
        gst::Array::new(self.changes.iter().map(change))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_changes_are_kept_in_order() {
        gst::init().unwrap();
        let mut history = History::default();
        for epoch in 0..100 {
            let state = Snapshot {
                epoch,
                ..Snapshot::default()
            };
            history.push(&state, 1000 + epoch);
        }
        let array = history.to_array();
        let epochs = array.iter().map(|change| {
            let change: gst::Structure = change.get().unwrap();
            let time: u64 = change.get("time").unwrap();
            let epoch: u64 = change.get("epoch").unwrap();
            assert_eq!(time, 1000 + epoch);
            epoch
        });
        assert_eq!(epochs.collect::<Vec<_>>(), (36..100).collect::<Vec<_>>());
        history.clear();
        assert!(history.to_array().is_empty());
    }
}
