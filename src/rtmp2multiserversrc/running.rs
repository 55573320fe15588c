// SPDX-License-Identifier: MPL-2.0

//! What there is from start to stop: the route, and the streams that have pads.

use std::collections::BTreeMap;
use std::sync::Arc;

use gst::subclass::prelude::*;

use super::branch::Branch;
use super::stats::Sums;
use crate::server::{Claim, DrainControl, StreamClaim, StreamTable};

#[derive(Debug)]
pub(super) struct Running {
    id: u64,
    table: Arc<StreamTable>,
    branches: BTreeMap<u32, Branch>,
    /// Of streams that are gone.
    gone: Sums,
    /// The last one to go.
    claim: Claim,
}

impl Running {
    pub(super) fn new(id: u64, claim: Claim, table: Arc<StreamTable>) -> Self {
        Running {
            id,
            table,
            branches: BTreeMap::new(),
            gone: Sums::default(),
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

    /// In the order of their pads.
    pub(super) fn branches(&self) -> impl Iterator<Item = &Branch> {
        self.branches.values()
    }

    /// A stream that has no pad yet.
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

    /// Takes a stream out that is over, and keeps what it has counted.
    pub(super) fn remove(&mut self, number: u32) -> Option<Branch> {
        let branch = self.branches.remove(&number)?;
        self.gone.add(&branch.source.imp().stats());
        Some(branch)
    }

    /// What was counted of all streams there were.
    pub(super) fn sums(&self, present: &[gst::Structure]) -> Sums {
        let mut sums = self.gone.clone();
        present.iter().for_each(|stats| sums.add(stats));
        sums
    }
}
