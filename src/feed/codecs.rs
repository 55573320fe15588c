// SPDX-License-Identifier: MPL-2.0

//! Drops tracks in codecs that are not accepted.

use crate::flv::body::{AudioBody, AudioTrack, ExVideoContent, Tracks, VideoBody};
use crate::flv::codec::{AcceptedCodecs, CodecName};
use crate::flv::codes::{AvcPacketType, VideoCodecId};
use crate::flv::config::is_hevc_in_disguise;
use crate::flv::{FRONT_LENGTH, TRAILER_LENGTH, Tag, TagKind};
use crate::memory::Memory;

/// Most refusals of one publisher that are reported: each costs a message, and a client can invent
/// codecs without end. Further ones are only counted.
const MAX_REPORTED: usize = 64;

/// A track in a codec that is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedTrack {
    /// Audio or video.
    pub kind: TagKind,
    pub track: u8,
    pub codec: CodecName,
}

/// A tag after its unaccepted tracks were removed.
#[derive(Debug)]
enum Filtered {
    Unchanged,
    Dropped,
    /// A new body of the remaining tracks, with room for the frame around it.
    Rewritten(Vec<u8>),
}

#[derive(Debug, Default)]
pub(super) struct CodecFilter {
    accepted: AcceptedCodecs,
    /// The publisher sends HEVC with the codec id of AVC.
    is_disguised: bool,
    /// Refusals of the present publisher.
    reported: Vec<RefusedTrack>,
    /// Number of the last of them that the caller has not taken yet.
    unreported: usize,
    /// Packets: a tag has one for each of its tracks.
    dropped: u64,
}

impl CodecFilter {
    pub(super) fn new(accepted: AcceptedCodecs) -> Self {
        CodecFilter {
            accepted,
            ..CodecFilter::default()
        }
    }

    pub(super) fn start_publisher(&mut self) {
        self.is_disguised = false;
        self.reported.clear();
        self.unreported = 0;
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Returns the refusals since the last call.
    pub(super) fn take_refusals(&mut self) -> impl Iterator<Item = RefusedTrack> {
        let known = self.reported.len() - std::mem::take(&mut self.unreported);
        self.reported[known..].iter().copied()
    }

    /// Returns true where [`CodecFilter::filter`] changes nothing.
    pub(super) fn accepts_all(&self) -> bool {
        self.accepted.is_all()
    }

    /// Returns the tag without its unaccepted tracks, if it has others.
    pub(super) fn filter(&mut self, tag: Tag) -> Option<Tag> {
        if self.accepted.is_all() {
            return Some(tag);
        }
        let filtered = match tag.kind {
            TagKind::Video => self.video(tag.body()),
            TagKind::Audio => self.audio(tag.body()),
            TagKind::Script => Filtered::Unchanged,
        };
        match filtered {
            Filtered::Unchanged => Some(tag),
            Filtered::Dropped => None,
            Filtered::Rewritten(bytes) => {
                let body = Memory::from_vec(bytes, FRONT_LENGTH);
                let mut rest = Tag::new(tag.kind, tag.timestamp, body).ok()?;
                rest.time_of_day = tag.time_of_day;
                // The detector of keyframes has seen the lowest track.
                if rest.lowest_track() == tag.lowest_track() {
                    rest.info.content = tag.info.content;
                }
                Some(rest)
            }
        }
    }

    fn video(&mut self, bytes: &[u8]) -> Filtered {
        let Ok(mut body) = VideoBody::parse(bytes) else {
            return self.unreadable();
        };
        if let VideoBody::Ex(ex) = &mut body {
            let selection = match &mut ex.content {
                // A command has no codec.
                ExVideoContent::Command { .. } if self.accepted.accepts_video() => Selection::All,
                ExVideoContent::Command { .. } => Selection::None,
                ExVideoContent::Tracks(tracks) => {
                    self.tracks(TagKind::Video, tracks, |track| track.four_cc.name())
                }
            };
            return selection.apply(bytes.len(), |out| body.write(out));
        }
        let Some(mut codec) = body.codec() else {
            return self.unreadable();
        };
        if let VideoBody::Avc {
            codec: id,
            packet_type,
            payload,
            ..
        } = &body
        {
            let is_avc = *id == VideoCodecId::Avc;
            if *packet_type == AvcPacketType::SequenceHeader {
                self.is_disguised = is_avc && is_hevc_in_disguise(payload);
            }
            if is_avc && self.is_disguised {
                codec = VideoCodecId::Hevc.name();
            }
        }
        self.check(TagKind::Video, 0, codec).apply(0, |_| {})
    }

    fn audio(&mut self, bytes: &[u8]) -> Filtered {
        let Ok(mut body) = AudioBody::parse(bytes) else {
            return self.unreadable();
        };
        if let AudioBody::Ex(ex) = &mut body {
            let name = |track: &AudioTrack<'_>| track.four_cc.name();
            let selection = self.tracks(TagKind::Audio, &mut ex.tracks, name);
            return selection.apply(bytes.len(), |out| body.write(out));
        }
        match body.codec() {
            Some(codec) => self.check(TagKind::Audio, 0, codec).apply(0, |_| {}),
            None => self.unreadable(),
        }
    }

    /// Drops a tag whose codecs can't be determined.
    fn unreadable(&mut self) -> Filtered {
        self.dropped += 1;
        Filtered::Dropped
    }

    fn tracks<T>(
        &mut self,
        kind: TagKind,
        tracks: &mut Tracks<T>,
        codec: impl Fn(&T) -> CodecName,
    ) -> Selection {
        let count = tracks.iter().count();
        let refused: Vec<bool> = tracks
            .iter()
            .map(|(id, track)| self.check(kind, id, codec(track)) == Selection::None)
            .collect();
        match refused.iter().filter(|refused| **refused).count() {
            0 => Selection::All,
            all if all == count => Selection::None,
            _ => {
                let mut refused = refused.into_iter();
                tracks.retain(|_, _| !refused.next().unwrap_or_default());
                Selection::Some
            }
        }
    }

    fn check(&mut self, kind: TagKind, track: u8, codec: CodecName) -> Selection {
        if self.accepted.accepts(codec) {
            return Selection::All;
        }
        self.dropped += 1;
        let refusal = RefusedTrack { kind, track, codec };
        if self.reported.len() < MAX_REPORTED && !self.reported.contains(&refusal) {
            self.reported.push(refusal);
            self.unreported += 1;
        }
        Selection::None
    }
}

/// The accepted tracks of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Selection {
    All,
    Some,
    None,
}

impl Selection {
    /// Writes a new body where some tracks go. `length` is the length of the old body.
    fn apply(self, length: usize, write: impl FnOnce(&mut Vec<u8>)) -> Filtered {
        match self {
            Selection::All => Filtered::Unchanged,
            Selection::None => Filtered::Dropped,
            Selection::Some => {
                let mut bytes = Vec::with_capacity(FRONT_LENGTH + length + TRAILER_LENGTH);
                bytes.resize(FRONT_LENGTH, 0);
                write(&mut bytes);
                Filtered::Rewritten(bytes)
            }
        }
    }
}
