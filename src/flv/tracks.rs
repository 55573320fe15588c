// SPDX-License-Identifier: MPL-2.0

//! The tracks of a tag, and its descriptions of them one by one.

use super::body::{
    AudioBody, AudioPacket, ExAudio, ExVideo, ExVideoContent, Tracks, VideoBody, VideoPacket,
};
use super::codes::{SoundFormat, audio_packet, video_packet};
use super::ex::{self, TrackList};
use super::{Tag, TagKind};

impl Tag {
    /// Returns the lowest track in a tag of several, and otherwise the track of the tag.
    #[inline]
    pub fn lowest_track(&self) -> u8 {
        lowest(self.kind, self.body(), self.info.track)
    }
}

/// Track ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrackSet([u64; 4]);

impl TrackSet {
    /// Returns the tracks in a tag. Script data counts as track 0.
    pub fn of(tag: &Tag) -> Self {
        let mut tracks = TrackSet::default();
        tracks.insert(tag.info.track);
        for id in filled(tag.kind, tag.body()) {
            tracks.insert(id);
        }
        tracks
    }

    fn insert(&mut self, id: u8) {
        self.0[usize::from(id >> 6)] |= 1 << (id & 63);
    }

    pub fn add(&mut self, other: TrackSet) {
        for (word, other) in self.0.iter_mut().zip(other.0) {
            *word |= other;
        }
    }

    pub fn intersects(&self, other: TrackSet) -> bool {
        self.0
            .iter()
            .zip(other.0)
            .any(|(word, other)| word & other != 0)
    }

    pub fn contains_all(&self, other: TrackSet) -> bool {
        self.0
            .iter()
            .zip(other.0)
            .all(|(word, other)| other & !word == 0)
    }
}

/// Returns the lowest track in a body of several, which players show by default. `first` is that of
/// its [`TagInfo`](super::TagInfo), and the result for a body of one track.
#[inline]
pub fn lowest(kind: TagKind, body: &[u8], first: u8) -> u8 {
    match may_list_tracks(kind, body) {
        true => filled(kind, body).min().unwrap_or(first),
        false => first,
    }
}

/// Returns false for a body that is not of Enhanced FLV, and so of one track.
#[inline]
fn may_list_tracks(kind: TagKind, body: &[u8]) -> bool {
    let Some(&first) = body.first() else {
        return false;
    };
    match kind {
        TagKind::Video => first & 0x80 != 0,
        TagKind::Audio => SoundFormat::from_code(first >> 4) == SoundFormat::ExHeader,
        TagKind::Script => false,
    }
}

/// Returns the ids in a list of tracks. Empty tracks are left out: they say nothing.
fn filled(kind: TagKind, body: &[u8]) -> impl Iterator<Item = u8> {
    let tracks = list(kind, body).into_iter().flatten();
    tracks
        .filter(|(_, body)| !body.is_empty())
        .map(|(id, _)| id)
}

/// Returns the list of tracks in a body. Most bodies have none.
fn list(kind: TagKind, body: &[u8]) -> Option<TrackList<'_>> {
    if !may_list_tracks(kind, body) {
        return None;
    }
    let multitrack = match kind {
        TagKind::Video => video_packet::MULTITRACK,
        TagKind::Audio => audio_packet::MULTITRACK,
        TagKind::Script => return None,
    };
    let (&first, rest) = body.split_first()?;
    ex::track_list(rest, first & 0x0F, multitrack)
}

/// Splits a body into bodies of single tracks. Returns `None` for one without multitrack, and for
/// one that can't be read as a whole. Empty tracks are left out.
pub fn split(kind: TagKind, body: &[u8]) -> Option<Vec<(u8, Vec<u8>)>> {
    let mut bodies = Vec::new();
    match kind {
        TagKind::Video => {
            let VideoBody::Ex(ex) = VideoBody::parse(body).ok()? else {
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
            let AudioBody::Ex(ex) = AudioBody::parse(body).ok()? else {
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

pub(super) fn is_empty_video(packet: &VideoPacket<'_>) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    /// A video body of tracks with this kind of multitrack.
    fn video(multitrack: u8, tracks: &[(u8, &[u8])]) -> Vec<u8> {
        let mut body = vec![0x96, multitrack << 4 | 3];
        for (index, (id, payload)) in tracks.iter().enumerate() {
            if index == 0 || multitrack == 2 {
                body.extend(b"vp09");
            }
            body.push(*id);
            if multitrack > 0 {
                body.extend(&(payload.len() as u32).to_be_bytes()[1..]);
            }
            body.extend(*payload);
        }
        body
    }

    fn ids(body: &[u8]) -> (u8, Vec<u8>) {
        let body = Memory::from_vec(body.to_vec(), 0);
        let tag = Tag::new(TagKind::Video, 0, body).unwrap();
        let set = TrackSet::of(&tag);
        let has = |id: &u8| {
            let mut one = TrackSet::default();
            one.insert(*id);
            set.intersects(one)
        };
        (tag.lowest_track(), (0..=255).filter(has).collect())
    }

    #[test]
    fn tracks_of_a_list_are_found_in_any_order() {
        for multitrack in [1, 2] {
            let tracks: [(u8, &[u8]); 3] = [(200, b"a"), (7, b"b"), (64, b"c")];
            let body = video(multitrack, &tracks);
            assert_eq!(ids(&body), (7, vec![7, 64, 200]));
            // With a prefix of nanoseconds.
            let prefix = [0x97, 2, 0, 1, 2, 0x06];
            assert_eq!(ids(&[&prefix, &body[1..]].concat()), (7, vec![7, 64, 200]));
            let empty: [(u8, &[u8]); 3] = [(9, b"a"), (3, b""), (5, b"c")];
            assert_eq!(ids(&video(multitrack, &empty)), (5, vec![5, 9]));
            let one: [(u8, &[u8]); 1] = [(9, b"a")];
            assert_eq!(ids(&video(multitrack, &one)), (9, vec![9]));
        }
        assert_eq!(ids(&video(0, &[(9, b"abc")])), (9, vec![9]));
        assert_eq!(ids(b"\x93vp09a"), (0, vec![0]));
        assert_eq!(ids(b"\x17\x01\0\0\0a"), (0, vec![0]));
    }

    #[test]
    fn a_list_that_is_cut_short_has_the_tracks_before_the_cut() {
        let tracks: [(u8, &[u8]); 3] = [(8, b"abc"), (2, b"def"), (1, b"ghi")];
        let body = video(1, &tracks);
        for (end, expected) in [(body.len(), 1), (body.len() - 1, 2), (body.len() - 8, 8)] {
            assert_eq!(lowest(TagKind::Video, &body[..end], 8), expected, "{end}");
        }
    }

    #[test]
    fn audio_tracks_are_found_too() {
        let body = b"\x95\x11Opus\x05\0\0\x01a\x02\0\0\x01b";
        assert_eq!(lowest(TagKind::Audio, body, 5), 2);
        assert_eq!(lowest(TagKind::Audio, b"\xAF\x01a", 0), 0);
        assert_eq!(lowest(TagKind::Script, body, 0), 0);
    }
}
