// SPDX-License-Identifier: MPL-2.0

//! What is in a codec that is not wanted goes, track by track.

use crate::flv::body::{AudioBody, AudioTrack, ExVideoContent, Tracks, VideoBody};
use crate::flv::codec::{AcceptedCodecs, CodecName};
use crate::flv::codes::{AvcPacketType, SoundFormat, VideoCodecId};
use crate::flv::config::is_hevc_in_disguise;
use crate::flv::{FRONT_LENGTH, TRAILER_LENGTH, Tag, TagKind};
use crate::memory::Memory;

/// Refusals of one publisher that are told: each costs a message, and a client can make up codecs
/// without end. Those beyond are counted.
const MAX_TOLD: usize = 64;

/// A track that is in a codec which is not wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedTrack {
    /// Audio or video.
    pub kind: TagKind,
    pub track: u8,
    pub codec: CodecName,
}

/// What is left of a tag.
#[derive(Debug)]
enum Left {
    All,
    Nothing,
    /// Some of its tracks: the body anew, with room for the frame around it.
    Some(Vec<u8>),
}

#[derive(Debug, Default)]
pub(super) struct CodecFilter {
    accepted: AcceptedCodecs,
    /// HEVC comes as AVC.
    is_disguised: bool,
    /// What was told of the present publisher.
    told: Vec<RefusedTrack>,
    /// Of those, how many the caller has not seen.
    untold: usize,
    /// Packets, where a tag has one of each of its tracks.
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
        self.told.clear();
        self.untold = 0;
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What was refused and has not been told.
    pub(super) fn news(&mut self) -> impl Iterator<Item = RefusedTrack> {
        let known = self.told.len() - std::mem::take(&mut self.untold);
        self.told[known..].iter().copied()
    }

    /// Gives what is left of a tag, if anything.
    pub(super) fn pass(&mut self, tag: Tag) -> Option<Tag> {
        if self.accepted.is_all() {
            return Some(tag);
        }
        let left = match tag.kind {
            TagKind::Video => self.video(tag.body()),
            TagKind::Audio => self.audio(tag.body()),
            TagKind::Script => Left::All,
        };
        match left {
            Left::All => Some(tag),
            Left::Nothing => None,
            Left::Some(bytes) => {
                let body = Memory::from_vec(bytes, FRONT_LENGTH);
                Tag::new(tag.kind, tag.timestamp, body).ok()
            }
        }
    }

    fn video(&mut self, bytes: &[u8]) -> Left {
        let Ok(mut body) = VideoBody::parse(bytes) else {
            return self.unreadable();
        };
        let codec = match &mut body {
            VideoBody::Command { codec, .. }
            | VideoBody::Plain { codec, .. }
            | VideoBody::Vp6 { codec, .. } => codec.name(),
            VideoBody::Avc {
                codec,
                packet_type,
                payload,
                ..
            } => {
                if *packet_type == AvcPacketType::SequenceHeader {
                    self.is_disguised = *codec == VideoCodecId::Avc && is_hevc_in_disguise(payload);
                }
                match codec {
                    VideoCodecId::Avc if self.is_disguised => VideoCodecId::Hevc.name(),
                    codec => codec.name(),
                }
            }
            VideoBody::Ex(ex) => {
                let kept = match &mut ex.content {
                    // It has no codec.
                    ExVideoContent::Command { .. } if self.accepted.accepts_video() => Kept::All,
                    ExVideoContent::Command { .. } => Kept::Nothing,
                    ExVideoContent::Tracks(tracks) => {
                        self.tracks(TagKind::Video, tracks, |track| track.four_cc.name())
                    }
                };
                return kept.of(bytes.len(), |out| body.write(out));
            }
        };
        self.judge(TagKind::Video, 0, codec).of(0, |_| {})
    }

    fn audio(&mut self, bytes: &[u8]) -> Left {
        let Ok(mut body) = AudioBody::parse(bytes) else {
            return self.unreadable();
        };
        let codec = match &mut body {
            AudioBody::Legacy { format, .. } => format.name(),
            AudioBody::Aac { .. } => SoundFormat::Aac.name(),
            AudioBody::Ex(ex) => {
                let name = |track: &AudioTrack<'_>| track.four_cc.name();
                let kept = self.tracks(TagKind::Audio, &mut ex.tracks, name);
                return kept.of(bytes.len(), |out| body.write(out));
            }
        };
        self.judge(TagKind::Audio, 0, codec).of(0, |_| {})
    }

    /// Nobody can say what is in it, and so whether it is wanted.
    fn unreadable(&mut self) -> Left {
        self.dropped += 1;
        Left::Nothing
    }

    fn tracks<T>(
        &mut self,
        kind: TagKind,
        tracks: &mut Tracks<T>,
        codec: impl Fn(&T) -> CodecName,
    ) -> Kept {
        let count = tracks.iter().count();
        let refused: Vec<bool> = tracks
            .iter()
            .map(|(id, track)| self.judge(kind, id, codec(track)) == Kept::Nothing)
            .collect();
        match refused.iter().filter(|refused| **refused).count() {
            0 => Kept::All,
            all if all == count => Kept::Nothing,
            _ => {
                let mut refused = refused.into_iter();
                tracks.retain(|_, _| !refused.next().unwrap_or_default());
                Kept::Some
            }
        }
    }

    fn judge(&mut self, kind: TagKind, track: u8, codec: CodecName) -> Kept {
        if self.accepted.accepts(codec) {
            return Kept::All;
        }
        self.dropped += 1;
        let refusal = RefusedTrack { kind, track, codec };
        if self.told.len() < MAX_TOLD && !self.told.contains(&refusal) {
            self.told.push(refusal);
            self.untold += 1;
        }
        Kept::Nothing
    }
}

/// How much of a tag is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    All,
    Some,
    Nothing,
}

impl Kept {
    /// `length` is that of the whole body.
    fn of(self, length: usize, write: impl FnOnce(&mut Vec<u8>)) -> Left {
        match self {
            Kept::All => Left::All,
            Kept::Nothing => Left::Nothing,
            Kept::Some => {
                let mut bytes = Vec::with_capacity(FRONT_LENGTH + length + TRAILER_LENGTH);
                bytes.resize(FRONT_LENGTH, 0);
                write(&mut bytes);
                Left::Some(bytes)
            }
        }
    }
}
