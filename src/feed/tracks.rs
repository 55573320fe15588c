// SPDX-License-Identifier: MPL-2.0

//! The tracks of a tag, and its descriptions of them one by one.

use crate::flv::body::{
    AudioBody, AudioPacket, ExAudio, ExVideo, ExVideoContent, Tracks, VideoBody, VideoPacket,
};
use crate::flv::{Tag, TagKind};

/// Track ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TrackSet([u64; 4]);

impl TrackSet {
    /// Returns the tracks in a tag. Script data counts as track 0.
    pub(super) fn of(tag: &Tag) -> Self {
        let mut tracks = TrackSet::default();
        tracks.insert(tag.info.track);
        for (id, _) in split(tag).unwrap_or_default() {
            tracks.insert(id);
        }
        tracks
    }

    fn insert(&mut self, id: u8) {
        self.0[usize::from(id >> 6)] |= 1 << (id & 63);
    }

    pub(super) fn add(&mut self, other: TrackSet) {
        for (word, other) in self.0.iter_mut().zip(other.0) {
            *word |= other;
        }
    }

    pub(super) fn intersects(&self, other: TrackSet) -> bool {
        self.0
            .iter()
            .zip(other.0)
            .any(|(word, other)| word & other != 0)
    }

    pub(super) fn contains_all(&self, other: TrackSet) -> bool {
        self.0
            .iter()
            .zip(other.0)
            .all(|(word, other)| other & !word == 0)
    }
}

/// Splits a tag into bodies of single tracks. Returns `None` for a tag without multitrack, and for
/// one that can't be read as a whole. Empty tracks are left out: they say nothing.
pub(super) fn split(tag: &Tag) -> Option<Vec<(u8, Vec<u8>)>> {
    let mut bodies = Vec::new();
    match tag.kind {
        TagKind::Video => {
            let VideoBody::Ex(ex) = VideoBody::parse(tag.body()).ok()? else {
                return None;
            };
            let ExVideoContent::Tracks(tracks) = &ex.content else {
                return None;
            };
            for (id, track) in several(tracks)? {
                if !is_empty_video(&track.packet) {
                    let single = ExVideo {
                        content: ExVideoContent::Tracks(Tracks::OneTrack(id, *track)),
                        mod_ex: ex.mod_ex.clone(),
                        ..ex
                    };
                    let mut body = Vec::new();
                    VideoBody::Ex(single).write(&mut body);
                    bodies.push((id, body));
                }
            }
        }
        TagKind::Audio => {
            let AudioBody::Ex(ex) = AudioBody::parse(tag.body()).ok()? else {
                return None;
            };
            for (id, track) in several(&ex.tracks)? {
                if !is_empty_audio(&track.packet) {
                    let single = ExAudio {
                        tracks: Tracks::OneTrack(id, *track),
                        mod_ex: ex.mod_ex.clone(),
                    };
                    let mut body = Vec::new();
                    AudioBody::Ex(single).write(&mut body);
                    bodies.push((id, body));
                }
            }
        }
        TagKind::Script => return None,
    }
    Some(bodies)
}

/// Returns the tracks of a list, which may have one entry.
fn several<T>(tracks: &Tracks<T>) -> Option<impl Iterator<Item = (u8, &T)>> {
    let is_list = matches!(
        tracks,
        Tracks::ManyTracks(_) | Tracks::ManyTracksManyCodecs(_)
    );
    is_list.then(|| tracks.iter())
}

fn is_empty_video(packet: &VideoPacket<'_>) -> bool {
    match packet {
        VideoPacket::SequenceStart(body)
        | VideoPacket::CodedFramesX(body)
        | VideoPacket::Metadata(body)
        | VideoPacket::Mpeg2TsSequenceStart(body)
        | VideoPacket::CodedFrames { payload: body, .. }
        | VideoPacket::Unknown { body, .. } => body.is_empty(),
        VideoPacket::SequenceEnd => true,
    }
}

fn is_empty_audio(packet: &AudioPacket<'_>) -> bool {
    match packet {
        AudioPacket::SequenceStart(body)
        | AudioPacket::CodedFrames(body)
        | AudioPacket::Unknown { body, .. } => body.is_empty(),
        AudioPacket::MultichannelConfig(_) => false,
        AudioPacket::SequenceEnd => true,
    }
}
