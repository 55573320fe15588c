// SPDX-License-Identifier: MPL-2.0

//! Decides what may leave before a keyframe, and for how long media waits for one.

use super::time::RunningTime;
use crate::flv::{Content, Tag, TagKind, TrackSet};

/// The gate's decision about one tag of media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GateAction {
    Pass,
    /// For media that leaves with the keyframe: audio of a stream whose video can't be decoded yet, and
    /// further video tracks from their own keyframes on.
    Hold,
    Drop,
}

/// The end of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitEnd {
    /// Announced video has not arrived. Audio passes alone, and video starts with a keyframe.
    AudioAlone,
    /// No keyframe has arrived in this time, in nanoseconds. All media passes.
    NoKeyframe(u64),
}

/// Times in nanoseconds after which media no longer waits, 0 for never.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WaitLimits {
    /// For a keyframe.
    pub(super) keyframe: u64,
    /// For audio, until the first frame of announced video.
    pub(super) video: u64,
}

/// Time in nanoseconds for which audio waits for video while standby plays, where nothing else says.
const MAX_REPLACED_WAIT: RunningTime = 2_000_000_000;

/// Closed at the start of each publisher. A stream without video has no keyframes, and only its
/// first video shows that it has any: audio that arrives alone passes, and goes on passing.
#[derive(Debug)]
pub(super) struct KeyframeGate {
    is_enabled: bool,
    limits: WaitLimits,
    /// Something else leaves meanwhile, so that it can wait.
    is_replaced: bool,
    video: VideoState,
    audio_passes: bool,
    /// Video tracks whose keyframe is held.
    held_tracks: TrackSet,
    /// Arrival of the first media that has to wait.
    waiting_since: Option<RunningTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum VideoState {
    Unknown,
    /// There is a sequence header, but no frame yet.
    Announced,
    /// There are frames, but no keyframe yet.
    Undecodable,
    Flowing,
}

impl KeyframeGate {
    pub(super) fn new(is_enabled: bool, limits: WaitLimits) -> Self {
        KeyframeGate {
            is_enabled,
            limits,
            is_replaced: false,
            video: VideoState::Unknown,
            audio_passes: false,
            held_tracks: TrackSet::default(),
            waiting_since: None,
        }
    }

    pub(super) fn close(&mut self) {
        *self = KeyframeGate::new(self.is_enabled, self.limits);
    }

    /// Closes while something else leaves: decoding starts with a keyframe in any case. Audio alone
    /// waits for video for a while, if that may come.
    pub(super) fn close_for_standby(&mut self, may_have_video: bool) {
        self.close();
        self.is_replaced = true;
        if may_have_video {
            self.video = VideoState::Announced;
        }
    }

    /// Lets video pass from here on.
    pub(super) fn open(&mut self) {
        self.video = VideoState::Flowing;
        self.waiting_since = None;
    }

    /// Notes a video sequence header.
    pub(super) fn expect_keyframe(&mut self) {
        if self.video == VideoState::Unknown {
            self.video = VideoState::Announced;
        }
    }

    /// Decides about a tag. `is_sync_point` says that decoding can start with it.
    pub(super) fn check(
        &mut self,
        tag: &Tag,
        is_sync_point: bool,
        arrival: RunningTime,
    ) -> GateAction {
        if !self.is_enabled && !self.is_replaced {
            return GateAction::Pass;
        }
        match (tag.kind, tag.info.content, self.video) {
            (_, _, VideoState::Flowing) => GateAction::Pass,
            (TagKind::Video, ..) if is_sync_point => {
                self.video = VideoState::Flowing;
                self.waiting_since = None;
                GateAction::Pass
            }
            (TagKind::Video, content, _) => {
                self.video = VideoState::Undecodable;
                self.waiting_since.get_or_insert(arrival);
                let tracks = TrackSet::of(tag);
                if self.held_tracks.contains_all(tracks) {
                    return GateAction::Hold;
                }
                if content != Content::Keyframe {
                    return GateAction::Drop;
                }
                self.held_tracks.add(tracks);
                GateAction::Hold
            }
            (_, _, VideoState::Announced | VideoState::Undecodable) if !self.audio_passes => {
                self.waiting_since.get_or_insert(arrival);
                GateAction::Hold
            }
            _ => {
                self.audio_passes = true;
                GateAction::Pass
            }
        }
    }

    /// Returns true while media waits for a keyframe.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting_since.is_some()
    }

    /// Returns the running time at which the present wait ends without a keyframe.
    pub(super) fn deadline(&self) -> Option<RunningTime> {
        let since = self.waiting_since?;
        let limit = match self.limits.video {
            0 if self.is_replaced => MAX_REPLACED_WAIT,
            limit => limit,
        };
        let video = (self.video == VideoState::Announced).then_some(limit);
        let limits = [Some(self.limits.keyframe), video];
        let limit = limits
            .into_iter()
            .flatten()
            .filter(|limit| *limit > 0)
            .min();
        limit.map(|limit| since.saturating_add(limit))
    }

    /// Ends a wait whose deadline has passed.
    pub(super) fn expire(&mut self, now: RunningTime) -> Option<WaitEnd> {
        self.deadline().filter(|deadline| now >= *deadline)?;
        let since = self.waiting_since.take()?;
        self.audio_passes = true;
        if self.video == VideoState::Announced {
            return Some(WaitEnd::AudioAlone);
        }
        self.video = VideoState::Flowing;
        Some(WaitEnd::NoKeyframe(now.saturating_sub(since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use GateAction::{Drop, Hold, Pass};

    const SECOND: u64 = 1_000_000_000;

    const LIMITS: WaitLimits = WaitLimits {
        keyframe: 10 * SECOND,
        video: 2 * SECOND,
    };

    fn tag(kind: TagKind, body: &[u8]) -> Tag {
        Tag::new(kind, 0, Memory::from_vec(body.to_vec(), 0)).unwrap()
    }

    fn audio() -> Tag {
        tag(TagKind::Audio, &[0xAF, 1, 9])
    }

    fn frame() -> Tag {
        tag(TagKind::Video, &[0x27, 1, 0, 0, 0, 9])
    }

    fn keyframe() -> Tag {
        tag(TagKind::Video, &[0x17, 1, 0, 0, 0, 9])
    }

    #[test]
    fn audio_waits_for_announced_video_for_a_while_and_video_for_its_keyframe() {
        let mut gate = KeyframeGate::new(true, LIMITS);
        gate.expect_keyframe();
        assert_eq!(gate.deadline(), None);
        assert_eq!(gate.check(&audio(), false, SECOND), Hold);
        assert_eq!(gate.check(&audio(), false, 2 * SECOND), Hold);
        assert_eq!(gate.deadline(), Some(3 * SECOND));
        assert_eq!(gate.expire(3 * SECOND - 1), None);
        assert_eq!(gate.expire(3 * SECOND), Some(WaitEnd::AudioAlone));
        assert_eq!(gate.deadline(), None);
        assert_eq!(gate.check(&audio(), false, 3 * SECOND), Pass);
        assert_eq!(gate.check(&frame(), false, 60 * SECOND), Drop);
        assert_eq!(gate.check(&audio(), false, 61 * SECOND), Pass);
        assert_eq!(gate.deadline(), Some(70 * SECOND));
        assert_eq!(gate.check(&keyframe(), true, 62 * SECOND), Pass);
        assert_eq!(gate.check(&frame(), false, 62 * SECOND), Pass);
        assert_eq!(gate.deadline(), None);
    }

    #[test]
    fn a_keyframe_that_never_comes_is_awaited_for_the_timeout() {
        let mut gate = KeyframeGate::new(true, LIMITS);
        gate.expect_keyframe();
        assert_eq!(gate.check(&audio(), false, SECOND), Hold);
        assert_eq!(gate.check(&frame(), false, 2 * SECOND), Drop);
        assert_eq!(gate.check(&audio(), false, 5 * SECOND), Hold);
        assert_eq!(gate.expire(11 * SECOND - 1), None);
        let end = Some(WaitEnd::NoKeyframe(10 * SECOND));
        assert_eq!(gate.expire(11 * SECOND), end);
        assert_eq!(gate.check(&frame(), false, 11 * SECOND), Pass);
        gate.close();
        assert_eq!(gate.check(&frame(), false, 12 * SECOND), Drop);
    }

    #[test]
    fn a_timeout_of_zero_waits_for_ever() {
        let limits = WaitLimits::default();
        let mut gate = KeyframeGate::new(true, limits);
        gate.expect_keyframe();
        assert_eq!(gate.check(&audio(), false, 0), Hold);
        assert_eq!(gate.check(&frame(), false, 0), Drop);
        assert_eq!(gate.expire(u64::MAX), None);
        // Without the shorter limit, the keyframe's holds for audio alone too.
        let mut gate = KeyframeGate::new(true, WaitLimits { video: 0, ..LIMITS });
        gate.expect_keyframe();
        assert_eq!(gate.check(&audio(), false, 0), Hold);
        assert_eq!(gate.expire(10 * SECOND), Some(WaitEnd::AudioAlone));
    }
}
