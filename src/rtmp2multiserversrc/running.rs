// SPDX-License-Identifier: MPL-2.0

//! The state of an element from start to stop: its route, and its branches.

use std::collections::BTreeMap;
use std::sync::Arc;

use gst::subclass::prelude::*;

use super::branch::Branch;
use crate::feed::StandbySettings;
use crate::rtmp2serversrc::counters::ElementCounters;
use crate::server::{Claim, DrainControl, StreamClaim, StreamTable};

#[derive(Debug)]
pub(super) struct Running {
    id: u64,
    table: Arc<StreamTable>,
    branches: BTreeMap<u32, Branch>,
    /// Counters of sources whose streams are over.
    finished: ElementCounters,
    /// Keeps the file of standby in memory for all streams.
    _standby: Option<StandbySettings>,
    /// Dropped last.
    claim: Claim,
}

impl Running {
    pub(super) fn new(
        id: u64,
        claim: Claim,
        table: Arc<StreamTable>,
        standby: Option<StandbySettings>,
    ) -> Self {
        Running {
            id,
            table,
            branches: BTreeMap::new(),
            finished: ElementCounters::default(),
            _standby: standby,
            claim,
        }
    }

    pub(super) fn is(&self, id: u64) -> bool {
        self.id == id
    }

    pub(super) fn table(&self) -> &Arc<StreamTable> {
        &self.table
    }

    pub(super) fn port(&self) -> u16 {
        self.claim.address().port()
    }

    pub(super) fn drain_control(&self) -> DrainControl {
        self.claim.drain_control()
    }

    pub(super) fn close(&self) {
        self.claim.close();
    }

    /// Returns the branches in the order of their pads.
    pub(super) fn branches(&self) -> impl Iterator<Item = &Branch> {
        self.branches.values()
    }

    /// Returns the claim on a stream that has no branch yet.
    pub(super) fn new_stream(&self, number: u32) -> Option<StreamClaim> {
        if self.branches.contains_key(&number) {
            return None;
        }
        self.claim.stream(number)
    }

    pub(super) fn add(&mut self, number: u32, branch: Branch) {
        self.branches.insert(number, branch);
    }

    pub(super) fn branch(&self, number: u32) -> Option<Branch> {
        self.branches.get(&number).cloned()
    }

    /// Removes a stream that is over, and keeps the counters of its source.
    pub(super) fn remove(&mut self, number: u32) -> Option<Branch> {
        let branch = self.branches.remove(&number)?;
        self.finished += branch.source.imp().statistics().counters();
        Some(branch)
    }

    /// Returns the counters of sources whose streams are over.
    pub(super) fn finished(&self) -> ElementCounters {
        self.finished
    }
}
