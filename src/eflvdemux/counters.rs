// SPDX-License-Identifier: MPL-2.0

//! The property `stats`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::problem::Problem;

/// Counters that any thread may read.
#[derive(Debug, Default)]
pub(super) struct DemuxCounters {
    pub(super) bytes: AtomicU64,
    pub(super) tags: AtomicU64,
    pub(super) video_buffers: AtomicU64,
    pub(super) audio_buffers: AtomicU64,
    problems: [AtomicU64; Problem::ALL.len()],
    is_reported: [AtomicBool; Problem::ALL.len()],
}

impl DemuxCounters {
    pub(super) fn reset(&self) {
        let media = [
            &self.bytes,
            &self.tags,
            &self.video_buffers,
            &self.audio_buffers,
        ];
        for count in media.into_iter().chain(&self.problems) {
            count.store(0, Relaxed);
        }
        for is_reported in &self.is_reported {
            is_reported.store(false, Relaxed);
        }
    }

    /// Counts a problem. Returns true if it is the first one of its kind that needs a message.
    pub(super) fn count_problem(&self, problem: Problem, count: u64) -> bool {
        self.problems[problem as usize].fetch_add(count, Relaxed);
        problem.message().is_some() && !self.is_reported[problem as usize].swap(true, Relaxed)
    }

    pub(super) fn to_structure(&self) -> gst::Structure {
        let mut structure = gst::Structure::builder("application/x-eflvdemux-stats")
            .field("bytes", self.bytes.load(Relaxed))
            .field("tags", self.tags.load(Relaxed))
            .field("video-buffers", self.video_buffers.load(Relaxed))
            .field("audio-buffers", self.audio_buffers.load(Relaxed));
        for problem in Problem::ALL {
            let count = self.problems[problem as usize].load(Relaxed);
            structure = structure.field(problem.name(), count);
        }
        structure.build()
    }
}
