// SPDX-License-Identifier: MPL-2.0

use super::time::RunningTime;
use crate::flv::{Content, Tag, TagKind};

/// Progress of the present publisher.
#[derive(Debug, Default)]
pub(super) struct PublisherProgress {
    /// Its first media has left.
    pub(super) is_flowing: bool,
    pub(super) has_video: bool,
    pub(super) lowest_video_track: Option<u8>,
    /// Its video is announced but missing, and audio no longer waits for it.
    pub(super) is_audio_alone: bool,
    /// The next tag that leaves does not continue the one before.
    pub(super) is_discont: bool,
    pub(super) decoding_start: DecodingStart,
}

/// The first tag with which decoding starts, of a publisher or after a changed sequence header.
#[derive(Debug, Clone, Copy)]
pub(super) enum DecodingStart {
    /// Awaited since the first media that has left, if any has.
    Awaited(Option<RunningTime>),
    /// None has arrived for the keyframe timeout: it is the next media.
    Overdue,
    Found,
}

impl Default for DecodingStart {
    fn default() -> Self {
        DecodingStart::Awaited(None)
    }
}

impl PublisherProgress {
    /// Returns the progress of a publisher that starts now.
    pub(super) fn starting() -> Self {
        PublisherProgress {
            is_discont: true,
            ..PublisherProgress::default()
        }
    }

    /// Notes which video tracks there are.
    pub(super) fn note_video(&mut self, tag: &Tag) {
        if tag.kind != TagKind::Video {
            return;
        }
        if tag.info.is_coded() || !self.is_audio_alone {
            self.has_video = true;
            self.is_audio_alone = false;
        }
        // ffmpeg sends colour metadata of any track without its number.
        if tag.info.is_coded() || tag.info.content == Content::SequenceHeader {
            let track = tag.lowest_track();
            let lowest = self.lowest_video_track.map_or(track, |it| it.min(track));
            self.lowest_video_track = Some(lowest);
        }
    }

    /// Returns true for a keyframe of the lowest video track, and for audio of a publisher without video:
    /// where there is video, decoding starts with it and not with audio.
    #[inline]
    pub(super) fn is_sync_point(&self, tag: &Tag) -> bool {
        match tag.info.content {
            Content::Keyframe => Some(tag.lowest_track()) == self.lowest_video_track,
            Content::Frame => tag.kind == TagKind::Audio && !self.has_video,
            _ => false,
        }
    }
}
