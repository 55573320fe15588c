// SPDX-License-Identifier: MPL-2.0

//! The video tracks of a stream, and their presence in the media.

use super::configuration::QueuedTag;
use crate::flv::{Content, TagKind};

/// Time in milliseconds of other media after which a track that has sent frames counts as absent.
const MAX_PAUSE: u32 = 10_000;

/// Time in milliseconds of other media after which a track that has sent nothing but its
/// configuration counts as absent: some publishers announce a track that never comes.
const MAX_START: u32 = 2_000;

/// Time in milliseconds of video without any keyframe after which decoding may start at any frame:
/// a stream that never has a keyframe shows something at last.
const MAX_KEYFRAME_DELAY: i32 = 10_000;

#[derive(Debug)]
struct VideoTrack {
    id: u8,
    has_frames: bool,
    /// Timestamps of the first audio and the first other video since the last frame of this track.
    /// Each is compared with later ones of its kind, since the clocks of tracks may differ.
    audio_since: Option<u32>,
    video_since: Option<u32>,
    /// Milliseconds of other media since the last frame of this track.
    silence: u32,
}

impl VideoTrack {
    fn new(id: u8) -> Self {
        VideoTrack {
            id,
            has_frames: false,
            audio_since: None,
            video_since: None,
            silence: 0,
        }
    }

    fn is_present(&self) -> bool {
        let limit = if self.has_frames {
            MAX_PAUSE
        } else {
            MAX_START
        };
        self.silence <= limit
    }

    fn advance(&mut self, kind: TagKind, timestamp: u32) {
        let since = match kind {
            TagKind::Video => &mut self.video_since,
            _ => &mut self.audio_since,
        };
        let first = *since.get_or_insert(timestamp);
        match u32::try_from(timestamp.wrapping_sub(first) as i32) {
            Ok(elapsed) => self.silence = self.silence.max(elapsed),
            // The timestamps have restarted.
            Err(_) => *since = Some(timestamp),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct VideoTracks {
    tracks: Vec<VideoTrack>,
    has_keyframes: bool,
    /// Timestamp of the first frame while there has been no keyframe.
    first_frame: Option<u32>,
}

impl VideoTracks {
    /// Adds the track of a sequence header. The header's timestamp is no time of the stream: in
    /// `streamheader` it is 0.
    pub(super) fn announce(&mut self, id: u8) {
        if self.position(id).is_none() {
            self.tracks.push(VideoTrack::new(id));
        }
    }

    pub(super) fn forget(&mut self, id: u8) {
        self.tracks.retain(|track| track.id != id);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tracks.is_empty()
    }

    /// Notes a tag of media.
    pub(super) fn advance<T>(&mut self, tag: &QueuedTag<T>) {
        let is_video = tag.kind == TagKind::Video;
        if is_video {
            self.announce(tag.info.track);
            self.has_keyframes |= tag.info.content == Content::Keyframe;
            self.first_frame.get_or_insert(tag.timestamp);
        }
        for track in &mut self.tracks {
            if is_video && track.id == tag.info.track {
                *track = VideoTrack {
                    has_frames: true,
                    ..VideoTrack::new(track.id)
                };
            } else {
                track.advance(tag.kind, tag.timestamp);
            }
        }
    }

    pub(super) fn is_any_present(&self) -> bool {
        self.tracks.iter().any(VideoTrack::is_present)
    }

    /// True if decoding can start at this video tag: a keyframe of the lowest track that is
    /// present, which players show by default.
    pub(super) fn can_start<T>(&self, tag: &QueuedTag<T>) -> bool {
        let present = self.tracks.iter().filter(|track| track.is_present());
        let lowest = present.map(|track| track.id).min();
        let can_start = match tag.info.content {
            Content::Keyframe => true,
            Content::Frame => !self.has_keyframes && self.has_waited_for_keyframe(tag.timestamp),
            _ => false,
        };
        can_start && lowest.is_none_or(|id| id == tag.info.track)
    }

    fn has_waited_for_keyframe(&self, timestamp: u32) -> bool {
        let elapsed = |first: u32| timestamp.wrapping_sub(first) as i32;
        self.first_frame
            .is_some_and(|first| elapsed(first) >= MAX_KEYFRAME_DELAY)
    }

    fn position(&self, id: u8) -> Option<usize> {
        self.tracks.iter().position(|track| track.id == id)
    }
}
