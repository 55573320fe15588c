// SPDX-License-Identifier: MPL-2.0

//! What was skipped and why, and the property `stats`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Why something was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    LostBytes,
    UnknownTag,
    BadTag,
    BadScript,
    UnknownCodec,
    UnknownPacket,
    BadConfiguration,
    NoConfiguration,
    Empty,
    CutShort,
}

impl Problem {
    const ALL: [Problem; 10] = [
        Problem::LostBytes,
        Problem::UnknownTag,
        Problem::BadTag,
        Problem::BadScript,
        Problem::UnknownCodec,
        Problem::UnknownPacket,
        Problem::BadConfiguration,
        Problem::NoConfiguration,
        Problem::Empty,
        Problem::CutShort,
    ];

    /// The field of the property.
    fn name(self) -> &'static str {
        match self {
            Problem::LostBytes => "lost-bytes",
            Problem::UnknownTag => "unknown-tags",
            Problem::BadTag => "bad-tags",
            Problem::BadScript => "bad-scripts",
            Problem::UnknownCodec => "unknown-codecs",
            Problem::UnknownPacket => "unknown-packets",
            Problem::BadConfiguration => "bad-configurations",
            Problem::NoConfiguration => "without-configuration",
            Problem::Empty => "empty",
            Problem::CutShort => "cut-short",
        }
    }

    /// What the message on the bus says. Empty frames are common and harm nobody, so they have none.
    pub(super) fn message(self) -> Option<&'static str> {
        match self {
            Problem::LostBytes => Some("Bytes that are no FLV tag are skipped"),
            Problem::UnknownTag => Some("FLV tags of an unknown type are skipped"),
            Problem::BadTag => Some("Broken FLV tags are skipped"),
            Problem::BadScript => Some("Broken script data is skipped"),
            Problem::UnknownCodec => Some("A codec is unknown, and its packets are skipped"),
            Problem::UnknownPacket => Some("Packets of an unknown type are skipped"),
            Problem::BadConfiguration => Some("A broken decoder configuration is skipped"),
            Problem::NoConfiguration => {
                Some("Packets that came before their decoder configuration are skipped")
            }
            Problem::Empty => None,
            Problem::CutShort => Some("The stream ends within a tag"),
        }
    }
}

/// Counters that any thread may read.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) bytes: AtomicU64,
    pub(super) tags: AtomicU64,
    pub(super) video_buffers: AtomicU64,
    pub(super) audio_buffers: AtomicU64,
    problems: [AtomicU64; Problem::ALL.len()],
    told: [AtomicBool; Problem::ALL.len()],
}

impl Counts {
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
        for told in &self.told {
            told.store(false, Relaxed);
        }
    }

    /// Counts, and says whether this is the first time that it should be told of.
    pub(super) fn problem(&self, problem: Problem, count: u64) -> bool {
        self.problems[problem as usize].fetch_add(count, Relaxed);
        problem.message().is_some() && !self.told[problem as usize].swap(true, Relaxed)
    }

    pub(super) fn structure(&self) -> gst::Structure {
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
