// SPDX-License-Identifier: MPL-2.0

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use gst::glib;
use parking_lot::Mutex;

use super::Rtmp2RecordSink;
use super::announcements::{self, FileEvent, FileFacts, Warnings};
use super::counters::RecordCounters;
use super::file::Failure;
use super::input::Input;
use super::kept::KeptFiles;
use super::rotation::CloseReason;
use super::settings::Settings;
use super::watch::Watch;

/// Parts of the element that the recording and the finishing thread use.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) element: glib::WeakRef<Rtmp2RecordSink>,
    pub(super) settings: Arc<Mutex<Settings>>,
    pub(super) counters: Arc<RecordCounters>,
    pub(super) input: Arc<Input>,
    pub(super) watch: Arc<Watch>,
    pub(super) kept: Arc<Mutex<KeptFiles>>,
    pub(super) warnings: Arc<Warnings>,
}

impl Shared {
    #[cfg(test)]
    pub(super) fn of(element: &Rtmp2RecordSink) -> Self {
        use gst::prelude::*;

        Shared {
            element: element.downgrade(),
            settings: Arc::default(),
            counters: Arc::default(),
            input: Arc::default(),
            watch: Arc::default(),
            kept: Arc::default(),
            warnings: Arc::default(),
        }
    }

    pub(super) fn warn(&self, path: &Path, failure: &Failure) {
        if let Some(element) = self.element.upgrade() {
            self.warnings.post_failure(&element, path, failure);
        }
    }

    pub(super) fn post_failed(
        &self,
        path: &Path,
        bytes: u64,
        failure: &Failure,
        facts: Option<&FileFacts>,
    ) {
        let event = FileEvent::Failed;
        let mut message = match facts {
            Some(facts) => announcements::own_file(event, path, bytes, facts),
            None => announcements::file(event, path, bytes),
        };
        message.set("reason", CloseReason::Error.nick());
        message.set("error", failure.to_string());
        self.post(message);
    }

    pub(super) fn post(&self, structure: gst::Structure) {
        if let Some(element) = self.element.upgrade() {
            announcements::post(&element, structure);
        }
    }

    /// Deletes a file. Returns whether it was there.
    pub(super) fn delete(&self, path: &Path) -> bool {
        let bytes = std::fs::metadata(path).map_or(0, |data| data.len());
        let is_deleted = std::fs::remove_file(path).is_ok();
        if is_deleted {
            self.counters.files_deleted.fetch_add(1, Relaxed);
            self.post(announcements::file(FileEvent::Deleted, path, bytes));
        }
        is_deleted
    }
}

pub(super) fn failure_of(error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Failure::NoSpace(error.to_string())
        }
        _ => Failure::Write(error.to_string()),
    }
}
