// SPDX-License-Identifier: MPL-2.0

//! The end of the media that has left, track by track: standby continues there.

use bytes::Bytes;

use crate::feed::time::NANOS_PER_MILLI;
use crate::flv::{Content, Tag, TagInfo, TagKind};

/// Most tracks that are kept.
const MAX_TRACKS: usize = 32;

/// Duration in milliseconds of a frame that is the only one of its track.
const FIRST_FRAME: i64 = 20;

/// Longest step in milliseconds between two frames that counts as the duration of the first one.
const MAX_FRAME: i64 = 1000;

/// Bytes at the front of a body that tell codec and configuration, but for a long list of tracks.
const FRONT: usize = 64;

/// Longest time in milliseconds between the decoding of a picture and its showing. A longer one is
/// wrong, and would keep standby away for hours.
const MAX_COMPOSITION: i64 = 5000;

/// Returns the time in milliseconds from the decoding of media to its showing.
pub(in crate::feed) fn composition(info: &TagInfo) -> i64 {
    (info.composition_time / NANOS_PER_MILLI as i64).clamp(-MAX_COMPOSITION, MAX_COMPOSITION)
}

/// All times are milliseconds of the outgoing stream.
#[derive(Debug, Clone)]
pub(super) struct LastOfTrack {
    pub(super) kind: TagKind,
    pub(super) id: u8,
    pub(super) dts: i64,
    /// Latest presentation time.
    pub(super) pts: i64,
    /// Duration of the last frame.
    pub(super) frame: i64,
    /// Front of the last body.
    pub(super) front: Vec<u8>,
    /// The last keyframe, where pictures are kept.
    pub(super) picture: Option<Bytes>,
    /// The present publisher sends this track, or the last one has.
    pub(super) is_current: bool,
}

impl LastOfTrack {
    /// Returns the time at which the next frame is decoded.
    pub(super) fn end(&self) -> i64 {
        self.dts + self.frame
    }

    /// Returns the time at which the next frame is shown.
    pub(super) fn presentation_end(&self) -> i64 {
        self.pts + self.frame
    }
}

#[derive(Debug, Default)]
pub(super) struct LastMedia {
    keeps_pictures: bool,
    tracks: Vec<LastOfTrack>,
}

impl LastMedia {
    pub(super) fn new(keeps_pictures: bool) -> Self {
        LastMedia {
            keeps_pictures,
            tracks: Vec::new(),
        }
    }

    /// Forgets what has left, at the start of a publisher's media.
    pub(super) fn start_publisher(&mut self) {
        self.tracks.clear();
    }

    /// Notes media of the publisher that leaves at this time.
    pub(super) fn note(&mut self, tag: &Tag, time: i64) {
        let keeps_picture = self.keeps_pictures && tag.info.content == Content::Keyframe;
        let Some(track) = self.advance(tag, time) else {
            return;
        };
        track.is_current = true;
        let body = tag.body();
        track.front.clear();
        track
            .front
            .extend_from_slice(&body[..body.len().min(FRONT)]);
        if keeps_picture {
            track.picture = Some(Bytes::copy_from_slice(body));
        }
    }

    /// Notes media of the publisher or of standby that leaves at this time.
    pub(super) fn advance(&mut self, tag: &Tag, time: i64) -> Option<&mut LastOfTrack> {
        let key = (tag.kind, tag.lowest_track());
        let pts = time + composition(&tag.info);
        let known = self.tracks.iter().position(|t| (t.kind, t.id) == key);
        let index = match known {
            Some(index) => {
                let track = &mut self.tracks[index];
                let step = time - track.dts;
                if (1..=MAX_FRAME).contains(&step) {
                    track.frame = step;
                }
                track.dts = time;
                track.pts = track.pts.max(pts);
                index
            }
            None if self.tracks.len() == MAX_TRACKS => return None,
            None => {
                self.tracks.push(LastOfTrack {
                    kind: tag.kind,
                    id: key.1,
                    dts: time,
                    pts,
                    frame: FIRST_FRAME,
                    front: Vec::new(),
                    picture: None,
                    is_current: false,
                });
                self.tracks.len() - 1
            }
        };
        self.tracks.get_mut(index)
    }

    pub(super) fn of(&self, kind: TagKind) -> impl Iterator<Item = &LastOfTrack> {
        self.tracks.iter().filter(move |track| track.kind == kind)
    }

    pub(super) fn track(&self, kind: TagKind, id: u8) -> Option<&LastOfTrack> {
        self.of(kind).find(|track| track.id == id)
    }

    /// Returns the tracks of the present publisher, or of the last one.
    pub(super) fn current(&self) -> impl Iterator<Item = &LastOfTrack> {
        self.tracks.iter().filter(|track| track.is_current)
    }

    /// Returns the latest decoding time of any track.
    pub(super) fn latest(&self) -> Option<i64> {
        self.tracks.iter().map(|track| track.dts).max()
    }

    /// Returns the latest end of any track.
    pub(super) fn end(&self) -> Option<i64> {
        self.tracks.iter().map(LastOfTrack::end).max()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tracks.is_empty()
    }
}
