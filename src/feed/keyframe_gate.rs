// SPDX-License-Identifier: MPL-2.0

//! Decides what may leave before a keyframe.

use crate::flv::{Content, Tag, TagKind};

/// What to do with media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// Audio of a stream whose video can't be decoded yet: it leaves with the keyframe.
    Hold,
    Drop,
}

/// Closed at the start of each publisher. A stream without video knows no keyframes, and whether
/// there is video is known only once some of it has come: audio that comes alone passes, and then
/// goes on to pass.
#[derive(Debug)]
pub(super) struct KeyframeGate {
    enabled: bool,
    video: Video,
    audio_passes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Video {
    Unknown,
    /// There is video, and no keyframe of it yet.
    Expected,
    Flowing,
}

impl KeyframeGate {
    pub(super) fn new(enabled: bool) -> Self {
        KeyframeGate {
            enabled,
            video: Video::Unknown,
            audio_passes: false,
        }
    }

    pub(super) fn close(&mut self) {
        *self = KeyframeGate::new(self.enabled);
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
            (TagKind::Video, Content::Keyframe, _) => {
                self.video = Video::Flowing;
                Verdict::Pass
            }
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
}
