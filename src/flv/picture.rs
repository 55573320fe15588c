// SPDX-License-Identifier: MPL-2.0

//! The kind of a coded picture by its bitstream, and keyframe flags that agree with it.
//!
//! The flag in a tag's first byte is a claim: some encoders flag every frame as inter, some flag P
//! frames as key, and streams with intra refresh have recovery points instead of keyframes.

use super::body::{ExVideoContent, VideoBody, VideoPacket, VideoTrack};
use super::codes::{AvcPacketType, VideoCodecId, VideoFourCc};
use super::config::bits::{Bits, unescape};
use super::config::{PrefixedNals, is_annexb, is_hevc_in_disguise, nal_length_size};
use super::info::{Content, TagInfo};
use super::{Tag, TagKind, tracks};

/// Dependence of a coded picture on the pictures before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Picture {
    /// Decoding can start here: an IDR, a recovery point, an IRAP picture, a key frame.
    SyncPoint,
    /// Intra-coded, but later pictures may refer to those before it.
    Intra,
    /// Refers to pictures before it.
    Inter,
    /// The bitstream is malformed, of another codec, or has no picture.
    Unknown,
}

/// The coded data of one track in one tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodedPicture<'a> {
    pub codec: PictureCodec,
    /// Bytes of the length fields before NAL units.
    pub nal_length_size: u8,
    pub data: &'a [u8],
}

/// Codecs whose pictures can be classified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureCodec {
    Avc,
    Hevc,
    Vvc,
    Av1,
    Vp8,
    Vp9,
    SorensonH263,
    Vp6,
}

impl Picture {
    /// Classifies the coded data of one track in one tag. NAL units have length fields of
    /// `nal_length_size` bytes, or start codes.
    pub fn classify(codec: PictureCodec, nal_length_size: u8, data: &[u8]) -> Self {
        let classified = match codec {
            PictureCodec::Avc => avc(nal_length_size, data),
            PictureCodec::Hevc => hevc(nal_length_size, data),
            PictureCodec::Vvc => vvc(nal_length_size, data),
            PictureCodec::Av1 => av1(data),
            PictureCodec::Vp8 => vp8(data),
            PictureCodec::Vp9 => vp9(data),
            PictureCodec::SorensonH263 => sorenson_h263(data),
            PictureCodec::Vp6 => vp6(data),
        };
        classified.unwrap_or(Picture::Unknown)
    }
}

/// Payload type of the recovery point message, in AVC and HEVC.
const SEI_RECOVERY_POINT: u32 = 6;

/// Bytes of a slice header that hold its type.
const SLICE_HEADER: usize = 16;

fn avc(nal_length_size: u8, data: &[u8]) -> Option<Picture> {
    const SLICE: u8 = 1;
    const SLICE_PARTITION_A: u8 = 2;
    const IDR_SLICE: u8 = 5;
    const SEI: u8 = 6;
    let kind = |nal: &[u8]| nal.first().map_or(0, |first| first & 0x1F);
    let nals = || NalUnits::new(nal_length_size, data);
    if nals().any(|nal| kind(nal) == IDR_SLICE) {
        return Some(Picture::SyncPoint);
    }
    if nals().any(|nal| kind(nal) == SEI && has_recovery_point(&nal[1..])) {
        return Some(Picture::SyncPoint);
    }
    let slices = nals().filter(|nal| matches!(kind(nal), SLICE | SLICE_PARTITION_A));
    let mut picture = None;
    for slice in slices {
        let header = unescape(&slice[1..slice.len().min(SLICE_HEADER)]);
        let mut bits = Bits::new(&header);
        bits.ue()?;
        // Types from 5 on say that all slices of the picture have the same one.
        match bits.ue()? % 5 {
            2 | 4 => picture = Some(Picture::Intra),
            _ => return Some(Picture::Inter),
        }
    }
    picture
}

fn hevc(nal_length_size: u8, data: &[u8]) -> Option<Picture> {
    const IRAP: std::ops::RangeInclusive<u8> = 16..=23;
    const VCL: std::ops::Range<u8> = 0..32;
    const PREFIX_SEI: u8 = 39;
    const I_SLICE: u32 = 2;
    let kind = |nal: &[u8]| nal.first().map_or(u8::MAX, |first| first >> 1 & 0x3F);
    let nals = || NalUnits::new(nal_length_size, data).filter(|nal| nal.len() > 2);
    if nals().any(|nal| IRAP.contains(&kind(nal))) {
        return Some(Picture::SyncPoint);
    }
    if nals().any(|nal| kind(nal) == PREFIX_SEI && has_recovery_point(&nal[2..])) {
        return Some(Picture::SyncPoint);
    }
    let slice = nals().find(|nal| VCL.contains(&kind(nal)))?;
    let header = unescape(&slice[2..slice.len().min(SLICE_HEADER)]);
    let mut bits = Bits::new(&header);
    let is_first = bits.bit()?;
    bits.ue()?;
    // Only the first slice has its type here, in streams without extra bits in slice headers.
    let is_intra = is_first && bits.ue()? == I_SLICE;
    Some(if is_intra {
        Picture::Intra
    } else {
        Picture::Inter
    })
}

fn vvc(nal_length_size: u8, data: &[u8]) -> Option<Picture> {
    /// IDR, CRA and gradual decoding refresh.
    const RANDOM_ACCESS: std::ops::RangeInclusive<u8> = 7..=10;
    const VCL: std::ops::Range<u8> = 0..12;
    let mut kinds = NalUnits::new(nal_length_size, data).filter_map(|nal| Some(nal.get(1)? >> 3));
    let kind = kinds.find(|kind| VCL.contains(kind))?;
    Some(if RANDOM_ACCESS.contains(&kind) {
        Picture::SyncPoint
    } else {
        Picture::Inter
    })
}

/// Returns true if an SEI NAL unit, without its header, has a recovery point message.
fn has_recovery_point(sei: &[u8]) -> bool {
    let bytes = unescape(sei);
    let mut rest = &bytes[..];
    let number = |rest: &mut &[u8]| {
        let mut number = 0_u32;
        loop {
            let (&byte, after) = rest.split_first()?;
            *rest = after;
            number = number.saturating_add(byte.into());
            if byte != 0xFF {
                return Some(number);
            }
        }
    };
    // The last byte holds the trailing bits.
    while rest.len() > 1 {
        let (Some(kind), Some(size)) = (number(&mut rest), number(&mut rest)) else {
            return false;
        };
        if kind == SEI_RECOVERY_POINT {
            return true;
        }
        rest = rest.get(size as usize..).unwrap_or_default();
    }
    false
}

fn av1(data: &[u8]) -> Option<Picture> {
    const FRAME_HEADER: u8 = 3;
    const FRAME: u8 = 6;
    const KEY_FRAME: u8 = 0;
    const INTRA_ONLY_FRAME: u8 = 2;
    let mut obus = super::config::obus(data);
    let (_, frame) = obus.find(|(kind, _)| matches!(*kind, FRAME_HEADER | FRAME))?;
    let first = frame.first()?;
    let shows_existing_frame = first & 0x80 != 0;
    match first >> 5 & 3 {
        _ if shows_existing_frame => None,
        KEY_FRAME => Some(Picture::SyncPoint),
        INTRA_ONLY_FRAME => Some(Picture::Intra),
        _ => Some(Picture::Inter),
    }
}

fn vp8(data: &[u8]) -> Option<Picture> {
    const START_CODE: [u8; 3] = [0x9D, 0x01, 0x2A];
    let (tag, rest) = data.split_first_chunk::<3>()?;
    if tag[0] & 1 != 0 {
        return Some(Picture::Inter);
    }
    rest.starts_with(&START_CODE).then_some(Picture::SyncPoint)
}

fn vp9(data: &[u8]) -> Option<Picture> {
    const FRAME_MARKER: u32 = 2;
    let mut bits = Bits::new(data);
    if bits.bits(2)? != FRAME_MARKER {
        return None;
    }
    let profile = bits.bits(2)?;
    if profile == 3 && bits.bit()? {
        return None;
    }
    let shows_existing_frame = bits.bit()?;
    let is_inter = bits.bit()?;
    let is_shown = bits.bit()?;
    bits.bit()?;
    match (shows_existing_frame, is_inter) {
        (true, _) => None,
        (false, false) => Some(Picture::SyncPoint),
        (false, true) if !is_shown && bits.bit()? => Some(Picture::Intra),
        (false, true) => Some(Picture::Inter),
    }
}

/// The picture header of Sorenson H.263, up to the type of the picture.
fn sorenson_h263(data: &[u8]) -> Option<Picture> {
    const START_CODE: u32 = 1;
    let mut bits = Bits::new(data);
    if bits.bits(17)? != START_CODE {
        return None;
    }
    bits.skip(5 + 8)?;
    match bits.bits(3)? {
        0 => bits.skip(2 * 8)?,
        1 => bits.skip(2 * 16)?,
        _ => {}
    }
    match bits.bits(2)? {
        0 => Some(Picture::SyncPoint),
        1 | 2 => Some(Picture::Inter),
        _ => None,
    }
}

fn vp6(data: &[u8]) -> Option<Picture> {
    let first = data.first()?;
    Some(if first & 0x80 == 0 {
        Picture::SyncPoint
    } else {
        Picture::Inter
    })
}

/// The NAL units of a picture, up to the first malformed one.
pub(super) enum NalUnits<'a> {
    Lengths(PrefixedNals<'a>),
    /// The rest of a picture in Annex B.
    StartCodes(&'a [u8]),
}

impl<'a> NalUnits<'a> {
    /// Encoders that know no other form send start codes.
    pub(super) fn new(length_size: u8, data: &'a [u8]) -> Self {
        let length_size = length_size.clamp(1, 4);
        match is_annexb(data, length_size) {
            true => NalUnits::StartCodes(data),
            false => NalUnits::Lengths(PrefixedNals::new(data, length_size)),
        }
    }
}

impl<'a> Iterator for NalUnits<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        match self {
            NalUnits::Lengths(nals) => nals.next(),
            NalUnits::StartCodes(rest) => next_by_start_code(rest),
        }
    }
}

fn next_by_start_code<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    const START_CODE: &[u8] = &[0, 0, 1];
    let find = |bytes: &[u8]| bytes.windows(3).position(|window| window == START_CODE);
    loop {
        let start = find(rest)? + START_CODE.len();
        let nal = &rest[start..];
        let end = find(nal).unwrap_or(nal.len());
        let (nal, after) = nal.split_at(end);
        match nal.first() {
            None => *rest = after,
            // The first bit of every NAL unit is 0.
            Some(first) if first & 0x80 == 0 => {
                *rest = after;
                return Some(nal);
            }
            Some(_) => return None,
        }
    }
}

/// Frames flagged as inter after which a publisher's flags are checked again: it may have flagged
/// its first keyframe and no other.
const MAX_UNCHECKED_FRAMES: u32 = 300;

/// Corrects the keyframe flags of one publisher.
///
/// Frames that are flagged as key are always checked; there are few. Frames that are flagged as
/// inter are checked until the first sync point, and for good after a wrong flag, so that a
/// publisher with right flags costs nothing.
#[derive(Debug, Clone, Default)]
pub struct KeyframeDetector {
    tracks: Vec<Track>,
}

#[derive(Debug, Clone)]
struct Track {
    id: u8,
    is_hevc: bool,
    nal_length_size: u8,
    flags: KeyframeFlags,
}

/// Corrects the keyframe flags of one track of one publisher.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyframeFlags {
    has_started: bool,
    has_wrong_flags: bool,
    /// Frames since the last one that was flagged as key.
    unchecked_frames: u32,
}

impl KeyframeFlags {
    /// Returns true if decoding can start with a picture, false if it refers to pictures before it.
    /// Where the bitstream does not say either, the flag counts.
    pub fn correct(&mut self, is_flagged: bool, picture: impl FnOnce() -> Picture) -> bool {
        if is_flagged {
            self.unchecked_frames = 0;
        } else if self.has_started && !self.has_wrong_flags {
            self.unchecked_frames += 1;
            if self.unchecked_frames <= MAX_UNCHECKED_FRAMES {
                return false;
            }
        }
        let is_key = match picture() {
            Picture::SyncPoint => true,
            Picture::Inter => false,
            Picture::Intra | Picture::Unknown => is_flagged,
        };
        self.has_started |= is_key;
        self.has_wrong_flags |= is_key != is_flagged;
        is_key
    }
}

impl KeyframeDetector {
    /// Corrects the content of a tag, see [`KeyframeDetector::correct_info`].
    #[inline]
    pub fn correct(&mut self, tag: &mut Tag) {
        if tag.kind != TagKind::Video {
            return;
        }
        let mut info = tag.info;
        self.correct_info(tag.kind, tag.body(), &mut info);
        tag.info = info;
    }

    /// Makes the content of a tag with this body [`Content::Keyframe`] if decoding can start with
    /// it, and [`Content::Frame`] if it refers to pictures before it. Where the bitstream does not
    /// say either, the flag counts.
    pub fn correct_info(&mut self, kind: TagKind, body: &[u8], info: &mut TagInfo) {
        if kind != TagKind::Video {
            return;
        }
        match info.content {
            Content::SequenceHeader => self.configure(body),
            Content::Keyframe | Content::Frame => {
                let track = self.track(tracks::lowest(kind, body, info.track));
                info.content = track.check(body, info.content);
            }
            _ => {}
        }
    }

    /// Returns the coded data of the lowest track in a video tag that was corrected.
    pub fn coded_picture<'a>(&self, tag: &'a Tag) -> Option<CodedPicture<'a>> {
        let track = self
            .tracks
            .iter()
            .find(|track| track.id == tag.lowest_track())?;
        track.coded_picture(tag.body())
    }

    /// Handles the configurations in a sequence header.
    fn configure(&mut self, body: &[u8]) {
        match VideoBody::parse(body) {
            Ok(VideoBody::Ex(ex)) => {
                if let ExVideoContent::Tracks(tracks) = &ex.content {
                    for (id, track) in tracks.iter() {
                        if let Some((codec, record)) = coded_part(track) {
                            self.track(id).configure(codec, record);
                        }
                    }
                }
            }
            Ok(body) => {
                if let Some((codec, record)) = legacy_part(&body) {
                    self.track(0).configure(codec, record);
                }
            }
            Err(_) => {}
        }
    }

    fn track(&mut self, id: u8) -> &mut Track {
        let known = self.tracks.iter().position(|track| track.id == id);
        let index = known.unwrap_or_else(|| {
            self.tracks.push(Track {
                id,
                is_hevc: false,
                nal_length_size: 4,
                flags: KeyframeFlags::default(),
            });
            self.tracks.len() - 1
        });
        &mut self.tracks[index]
    }
}

impl Track {
    fn configure(&mut self, codec: PictureCodec, record: &[u8]) {
        if record.is_empty() {
            return;
        }
        self.is_hevc = codec == PictureCodec::Avc && is_hevc_in_disguise(record);
        let is_hevc = self.is_hevc || codec == PictureCodec::Hevc;
        self.nal_length_size = match codec {
            PictureCodec::Vvc => 4,
            _ => nal_length_size(record, is_hevc).unwrap_or(4),
        };
    }

    fn check(&mut self, body: &[u8], flagged: Content) -> Content {
        let mut flags = std::mem::take(&mut self.flags);
        let is_key = flags.correct(flagged == Content::Keyframe, || self.picture(body));
        self.flags = flags;
        if is_key {
            Content::Keyframe
        } else {
            Content::Frame
        }
    }

    fn picture(&self, body: &[u8]) -> Picture {
        let picture = self.coded_picture(body);
        picture.map_or(Picture::Unknown, |picture| {
            Picture::classify(picture.codec, picture.nal_length_size, picture.data)
        })
    }

    fn coded_picture<'a>(&self, body: &'a [u8]) -> Option<CodedPicture<'a>> {
        let (codec, data) = lowest_part(body)?;
        Some(CodedPicture {
            codec: match codec {
                PictureCodec::Avc if self.is_hevc => PictureCodec::Hevc,
                codec => codec,
            },
            nal_length_size: self.nal_length_size,
            data,
        })
    }
}

/// Returns the codec and the coded data of the lowest track in a tag body.
fn lowest_part(body: &[u8]) -> Option<(PictureCodec, &[u8])> {
    match VideoBody::parse(body).ok()? {
        VideoBody::Ex(ex) => {
            let ExVideoContent::Tracks(tracks) = &ex.content else {
                return None;
            };
            let filled = tracks
                .iter()
                .filter(|(_, track)| !tracks::is_empty_video(&track.packet));
            let (_, lowest) = filled.min_by_key(|(id, _)| *id)?;
            coded_part(lowest)
        }
        body => legacy_part(&body),
    }
}

/// Returns the codec, and the configuration or the coded data, of a body without a FourCC.
fn legacy_part<'a>(body: &VideoBody<'a>) -> Option<(PictureCodec, &'a [u8])> {
    match *body {
        VideoBody::Plain { codec, payload, .. } => match codec {
            VideoCodecId::SorensonH263 => Some((PictureCodec::SorensonH263, payload)),
            _ => None,
        },
        // With alpha the picture follows a field of 24 bits.
        VideoBody::Vp6 { codec, payload, .. } => match codec {
            VideoCodecId::Vp6 => Some((PictureCodec::Vp6, payload)),
            _ => Some((PictureCodec::Vp6, payload.get(3..)?)),
        },
        VideoBody::Avc {
            codec,
            packet_type,
            payload,
            ..
        } => match (codec, packet_type) {
            (_, AvcPacketType::EndOfSequence) => None,
            (VideoCodecId::Hevc, _) => Some((PictureCodec::Hevc, payload)),
            _ => Some((PictureCodec::Avc, payload)),
        },
        VideoBody::Command { .. } | VideoBody::Ex(_) => None,
    }
}

/// Returns the codec, and the configuration or the coded data, of a track.
fn coded_part<'a>(track: &VideoTrack<'a>) -> Option<(PictureCodec, &'a [u8])> {
    let codec = match track.four_cc {
        VideoFourCc::Vp8 => PictureCodec::Vp8,
        VideoFourCc::Vp9 => PictureCodec::Vp9,
        VideoFourCc::Av1 => PictureCodec::Av1,
        VideoFourCc::Avc => PictureCodec::Avc,
        VideoFourCc::Hevc => PictureCodec::Hevc,
        VideoFourCc::Vvc => PictureCodec::Vvc,
        VideoFourCc::Unknown(_) => return None,
    };
    match track.packet {
        VideoPacket::SequenceStart(data)
        | VideoPacket::CodedFrames { payload: data, .. }
        | VideoPacket::CodedFramesX(data) => Some((codec, data)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
