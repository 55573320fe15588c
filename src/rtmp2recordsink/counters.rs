// SPDX-License-Identifier: MPL-2.0

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters since the start of the element.
#[derive(Debug, Default)]
pub(super) struct RecordCounters {
    pub(super) files: AtomicU64,
    pub(super) files_failed: AtomicU64,
    pub(super) files_recovered: AtomicU64,
    pub(super) files_deleted: AtomicU64,
    pub(super) packets: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) dropped_codec: AtomicU64,
    pub(super) dropped_disk: AtomicU64,
}

impl RecordCounters {
    fn fields(&self) -> [(&'static str, &AtomicU64); 8] {
        [
            ("files", &self.files),
            ("files-failed", &self.files_failed),
            ("files-recovered", &self.files_recovered),
            ("files-deleted", &self.files_deleted),
            ("packets", &self.packets),
            ("bytes", &self.bytes),
            ("dropped-codec", &self.dropped_codec),
            ("dropped-disk", &self.dropped_disk),
        ]
    }

    pub(super) fn reset(&self) {
        for (_, counter) in self.fields() {
            counter.store(0, Relaxed);
        }
    }

    pub(super) fn to_structure(&self, queued_bytes: u64) -> gst::Structure {
        let mut structure = gst::Structure::new_empty("stats");
        for (name, counter) in self.fields() {
            structure.set(name, counter.load(Relaxed));
        }
        structure.set("current-level-bytes", queued_bytes);
        structure
    }
}
