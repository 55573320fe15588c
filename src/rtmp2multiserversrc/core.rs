// SPDX-License-Identifier: MPL-2.0

//! The part of an element that the threads of its streams use: its settings, its present run, and
//! the locks around them.
//!
//! Lock order: the state lock, `starting`, `running`, then those of the server and of the sources
//! in the bin; `settings`, then the settings of a source. No signal, message or change of state
//! happens under any of them except the state lock, which is for changes of state, and `starting`,
//! for which only the thread that opens streams waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gst::subclass::prelude::*;
use parking_lot::{Mutex, MutexGuard};

use super::branch::Branch;
use super::rejections::RejectionMessages;
use super::running::Running;
use super::specs::DEFAULT_MAX_STREAMS;
use super::state_lock::StateLock;
use crate::rtmp2serversrc::settings::Settings;
use crate::rtmp2serversrc::signals::pad_number;
use crate::server::StreamTable;

#[derive(Debug)]
pub(super) struct AllSettings {
    pub(super) common: Settings,
    pub(super) max_streams: u32,
}

#[derive(Debug)]
pub(super) struct ElementCore {
    settings: Mutex<AllSettings>,
    state_lock: Arc<StateLock>,
    /// Held while the element claims its route: publishers may connect before `running` is set.
    starting: Mutex<()>,
    /// Set from start to stop.
    running: Mutex<Option<Running>>,
    /// Number of starts. Late work of one run must not affect the next.
    runs: AtomicU64,
    rejections: Arc<RejectionMessages>,
}

impl Default for ElementCore {
    fn default() -> Self {
        ElementCore {
            settings: Mutex::new(AllSettings {
                common: Settings::default(),
                max_streams: DEFAULT_MAX_STREAMS,
            }),
            state_lock: Arc::default(),
            starting: Mutex::default(),
            running: Mutex::default(),
            runs: AtomicU64::default(),
            rejections: Arc::default(),
        }
    }
}

impl ElementCore {
    pub(super) fn settings(&self) -> MutexGuard<'_, AllSettings> {
        self.settings.lock()
    }

    pub(super) fn state_lock(&self) -> &Arc<StateLock> {
        &self.state_lock
    }

    pub(super) fn rejections(&self) -> &Arc<RejectionMessages> {
        &self.rejections
    }

    /// Returns the id of the next run.
    pub(super) fn next_run(&self) -> u64 {
        self.runs.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Sets the present run to the result of `claim`.
    pub(super) fn start<E>(&self, claim: impl FnOnce() -> Result<Running, E>) -> Result<(), E> {
        let _starting = self.starting.lock();
        let run = claim()?;
        *self.running.lock() = Some(run);
        Ok(())
    }

    /// Waits until the claim of an element that starts is in `running`.
    pub(super) fn wait_for_start(&self) {
        drop(self.starting.lock());
    }

    pub(super) fn take_running(&self) -> Option<Running> {
        self.running.lock().take()
    }

    /// Calls `work` with the present run.
    pub(super) fn with_running<T>(&self, work: impl FnOnce(Option<&Running>) -> T) -> T {
        work(self.running.lock().as_ref())
    }

    /// Calls `work` with a run, if that is still the present one.
    pub(super) fn with_run<T>(&self, id: u64, work: impl FnOnce(&mut Running) -> T) -> Option<T> {
        let mut running = self.running.lock();
        let run = running.as_mut().filter(|run| run.is(id));
        run.map(work)
    }

    pub(super) fn table(&self) -> Option<Arc<StreamTable>> {
        self.with_running(|running| running.map(|run| run.table().clone()))
    }

    pub(super) fn branches(&self) -> Vec<Branch> {
        self.with_running(|running| {
            let branches = running.into_iter().flat_map(Running::branches);
            branches.cloned().collect()
        })
    }

    pub(super) fn branch(&self, pad: &str) -> Option<Branch> {
        let number = pad_number(pad)?;
        self.with_running(|running| running?.branch(number))
    }

    /// Applies the present properties to a source.
    pub(super) fn configure(&self, branch: &Branch) {
        // Under the lock, so that no thread overwrites newer properties with older ones.
        let settings = self.settings.lock();
        branch.source.imp().apply_settings(&settings.common);
    }

    /// Ends a stream that has just been opened, if all streams were ended meanwhile.
    pub(super) fn end_late(&self, branch: &Branch) {
        if self.table().is_some_and(|table| table.has_ended()) {
            branch.source.imp().end();
        }
    }
}
