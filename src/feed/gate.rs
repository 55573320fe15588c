// SPDX-License-Identifier: MPL-2.0

//! Holds media back until a keyframe comes.

use std::collections::VecDeque;

use crate::feed::RunningTime;
use crate::flv::{Content, Tag, TagKind};

/// Memory for audio that waits for a keyframe. Enough for more than 60 s at 128 kbit/s.
const MAX_HELD: usize = 1024 * 1024;

/// What to do with media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// Audio of a stream whose video can't be decoded yet: keep it by [`Gate::hold`].
    Hold,
    Drop,
    /// What was held leaves before this.
    Open,
}

/// Closed at the start of each publisher. A stream without video knows no keyframes, and whether
/// there is video is known only once some of it has come: audio that comes alone passes, and then
/// goes on to pass.
#[derive(Debug)]
pub(super) struct Gate {
    enabled: bool,
    video: Video,
    audio_passes: bool,
    held: VecDeque<(Tag, RunningTime)>,
    held_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Video {
    Unknown,
    /// There is video, and no keyframe of it yet.
    Expected,
    Flowing,
}

impl Gate {
    pub(super) fn new(enabled: bool) -> Self {
        Gate {
            enabled,
            video: Video::Unknown,
            audio_passes: false,
            held: VecDeque::new(),
            held_bytes: 0,
        }
    }

    pub(super) fn close(&mut self) {
        *self = Gate::new(self.enabled);
    }

    /// A video sequence header came.
    pub(super) fn expect_keyframe(&mut self) {
        if self.video == Video::Unknown {
            self.video = Video::Expected;
        }
    }

    pub(super) fn judge(&mut self, tag: &Tag) -> Verdict {
        if !self.enabled {
            return Verdict::Pass;
        }
        match (tag.kind, tag.info.content, self.video) {
            (_, _, Video::Flowing) => Verdict::Pass,
            (TagKind::Video, Content::Keyframe, _) => Verdict::Open,
            (TagKind::Video, ..) => {
                self.video = Video::Expected;
                Verdict::Drop
            }
            (_, _, Video::Expected) if !self.audio_passes => Verdict::Hold,
            _ => {
                self.audio_passes = true;
                Verdict::Pass
            }
        }
    }

    /// Keeps a tag, and says how many it had to let go for that, oldest first.
    pub(super) fn hold(&mut self, tag: Tag, arrival: RunningTime) -> u64 {
        self.held_bytes += tag.memory();
        self.held.push_back((tag, arrival));
        let mut dropped = 0;
        while self.held_bytes > MAX_HELD
            && let Some((oldest, _)) = self.held.pop_front()
        {
            self.held_bytes -= oldest.memory();
            dropped += 1;
        }
        dropped
    }

    /// A keyframe is here: gives what was held.
    pub(super) fn open(&mut self) -> VecDeque<(Tag, RunningTime)> {
        self.video = Video::Flowing;
        self.held_bytes = 0;
        std::mem::take(&mut self.held)
    }
}
