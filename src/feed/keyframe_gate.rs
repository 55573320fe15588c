// SPDX-License-Identifier: MPL-2.0

//! Decides what may leave before a keyframe.

use crate::flv::{Content, Tag, TagKind};

/// The gate's decision about one tag of media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GateAction {
    Pass,
    /// For audio of a stream whose video can't be decoded yet: it leaves with the keyframe.
    Hold,
    Drop,
}

/// Closed at the start of each publisher. A stream without video has no keyframes, and only its
/// first video shows that it has any: audio that arrives alone passes, and goes on passing.
#[derive(Debug)]
pub(super) struct KeyframeGate {
    enabled: bool,
    video: VideoState,
    audio_passes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum VideoState {
    Unknown,
    /// There is video, but no keyframe yet.
    Expected,
    Flowing,
}

impl KeyframeGate {
    pub(super) fn new(enabled: bool) -> Self {
        KeyframeGate {
            enabled,
            video: VideoState::Unknown,
            audio_passes: false,
        }
    }

    pub(super) fn close(&mut self) {
        *self = KeyframeGate::new(self.enabled);
    }

    /// Notes a video sequence header.
    pub(super) fn expect_keyframe(&mut self) {
        if self.video == VideoState::Unknown {
            self.video = VideoState::Expected;
        }
    }

    pub(super) fn check(&mut self, tag: &Tag) -> GateAction {
        if !self.enabled {
            return GateAction::Pass;
        }
        match (tag.kind, tag.info.content, self.video) {
            (_, _, VideoState::Flowing) => GateAction::Pass,
            (TagKind::Video, Content::Keyframe, _) => {
                self.video = VideoState::Flowing;
                GateAction::Pass
            }
            (TagKind::Video, ..) => {
                self.video = VideoState::Expected;
                GateAction::Drop
            }
            (_, _, VideoState::Expected) if !self.audio_passes => GateAction::Hold,
            _ => {
                self.audio_passes = true;
                GateAction::Pass
            }
        }
    }
}
