// SPDX-License-Identifier: MPL-2.0

//! The lock under which the bin and the threads of its streams change the states of sources.

use parking_lot::ReentrantMutex;

/// Reentrant, since a handler may change the state of the bin from within a change of state.
#[derive(Debug, Default)]
pub(super) struct StateLock(ReentrantMutex<()>);

impl StateLock {
    /// Calls `work` while no other thread changes the state of the bin's children: else the bin
    /// might start a source that is over, or a source might start in the bin's former state.
    pub(super) fn hold<T>(&self, work: impl FnOnce() -> T) -> T {
        let _guard = self.0.lock();
        work()
    }
}
