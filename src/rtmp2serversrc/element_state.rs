// SPDX-License-Identifier: MPL-2.0

//! State that an element's properties, its state changes and its streaming thread share. Lock order: all
//! locks in here are leaves, and `history` comes after `stream_state`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::StreamStatus;
use super::history::History;
use super::narrator::Narrator;
use super::settings::Settings;
use super::state::{Snapshot, StateInput, StreamState};
use crate::feed::{ClockDrift, Repairs};
use crate::flv::description::StreamDescription;

#[derive(Debug, Default)]
pub(super) struct ElementState {
    settings: Mutex<Settings>,
    stream_state: Mutex<StreamState>,
    times: Mutex<(Repairs, ClockDrift)>,
    /// The publisher's tracks, as its stream header describes them.
    description: Mutex<StreamDescription>,
    narrator: Mutex<Narrator>,
    history: Mutex<History>,
    /// Decoding time of the last tag that left, in nanoseconds.
    position: AtomicU64,
    /// The streaming thread has to return an output before anything is delivered directly: the base
    /// class has events to push first.
    requires_return: AtomicBool,
}

impl ElementState {
    pub(super) fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock()
    }

    /// Returns the present state of the stream.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.stream_state.lock().present().clone()
    }

    /// Returns true while decodable media leaves.
    pub(super) fn is_active(&self) -> bool {
        self.stream_state.lock().present().status == StreamStatus::Active
    }

    /// Changes the state of the stream, and returns each change, which the caller posts under no lock.
    pub(super) fn apply(&self, input: StateInput) -> Vec<(Snapshot, Snapshot)> {
        let mut state = self.stream_state.lock();
        let mut before = state.present().clone();
        let changes = state.apply(input).into_iter().map(|after| {
            self.history.lock().note(&after);
            let change = (before.clone(), after.clone());
            before = after;
            change
        });
        changes.collect()
    }

    pub(super) fn description(&self) -> MutexGuard<'_, StreamDescription> {
        self.description.lock()
    }

    pub(super) fn narrator(&self) -> MutexGuard<'_, Narrator> {
        self.narrator.lock()
    }

    /// Returns the last states that were entered.
    pub(super) fn history(&self) -> History {
        self.history.lock().clone()
    }

    /// Returns the repairs of timestamps, and the drift of the publisher's clock.
    pub(super) fn times(&self) -> (Repairs, ClockDrift) {
        *self.times.lock()
    }

    pub(super) fn set_times(&self, times: (Repairs, ClockDrift)) {
        *self.times.lock() = times;
    }

    /// Returns the decoding time of the last tag that left, in nanoseconds.
    pub(super) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    pub(super) fn set_position(&self, position: u64) {
        self.position.store(position, Ordering::Relaxed);
    }

    pub(super) fn requires_return(&self) -> bool {
        self.requires_return.load(Ordering::Acquire)
    }

    pub(super) fn set_requires_return(&self, requires_return: bool) {
        self.requires_return
            .store(requires_return, Ordering::Release);
    }

    /// Begins a new run of the element.
    pub(super) fn reset(&self) {
        self.set_times(Default::default());
        *self.description() = StreamDescription::default();
        *self.narrator() = Narrator::default();
        self.history.lock().clear();
        self.set_position(0);
        self.set_requires_return(false);
    }
}
