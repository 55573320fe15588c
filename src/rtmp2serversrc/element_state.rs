// SPDX-License-Identifier: MPL-2.0

//! State that an element's properties, its state changes and its streaming thread share. Lock order: all
//! locks in here are leaves.

use parking_lot::{Mutex, MutexGuard};

use super::settings::Settings;
use super::state::{Snapshot, StateInput, StreamState};
use crate::feed::Repairs;

#[derive(Debug, Default)]
pub(super) struct ElementState {
    settings: Mutex<Settings>,
    stream_state: Mutex<StreamState>,
    repairs: Mutex<Repairs>,
}

impl ElementState {
    pub(super) fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock()
    }

    /// Returns the present state of the stream.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.stream_state.lock().present().clone()
    }

    /// Changes the state of the stream, and returns each change, which the caller posts under no lock.
    pub(super) fn apply(&self, input: StateInput) -> Vec<(Snapshot, Snapshot)> {
        let mut state = self.stream_state.lock();
        let mut before = state.present().clone();
        let changes = state.apply(input).into_iter().map(|after| {
            let change = (before.clone(), after.clone());
            before = after;
            change
        });
        changes.collect()
    }

    pub(super) fn repairs(&self) -> Repairs {
        *self.repairs.lock()
    }

    pub(super) fn set_repairs(&self, repairs: Repairs) {
        *self.repairs.lock() = repairs;
    }
}
