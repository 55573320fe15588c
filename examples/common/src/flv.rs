// SPDX-License-Identifier: MPL-2.0

//! FLV tags, as far as the programs look into them.
//!
//! Adobe, "Video File Format Specification", version 10.1, annex E, and Veovera, "Enhanced RTMP",
//! version 2.

/// Bytes before the body of a tag.
pub const HEADER_LENGTH: usize = 11;

/// Bytes after the body of a tag: its back pointer.
pub const TRAILER_LENGTH: usize = 4;

const FRAME_TYPE_COMMAND: u8 = 5;
const CODEC_AVC: u8 = 7;
/// Not in the specification: many encoders sent HEVC like this before there was a FourCC.
const CODEC_HEVC: u8 = 12;
const SOUND_AAC: u8 = 10;
const SOUND_EX_HEADER: u8 = 9;

/// Packet types that audio and video share.
const SEQUENCE_START: u8 = 0;
const CODED_FRAMES: u8 = 1;
const SEQUENCE_END: u8 = 2;
const MOD_EX: u8 = 7;

/// Packet types of video.
const CODED_FRAMES_X: u8 = 3;
const VIDEO_METADATA: u8 = 4;
const MPEG2_TS_SEQUENCE_START: u8 = 5;
const VIDEO_MULTITRACK: u8 = 6;

/// Packet types of audio.
const MULTICHANNEL_CONFIG: u8 = 4;
const AUDIO_MULTITRACK: u8 = 5;

/// The kind of multitrack whose only track has no size field.
const ONE_TRACK: u8 = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagKind {
    Audio,
    Video,
    Script,
}

impl TagKind {
    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            8 => TagKind::Audio,
            9 => TagKind::Video,
            18 => TagKind::Script,
            _ => return None,
        })
    }
}

/// A codec that a program treats in a way of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    Avc,
    Aac,
    /// Any other codec, and every tag with several tracks.
    Other,
}

/// The body of a tag; with several tracks, its first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    pub codec: Codec,
    pub content: Content<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// The decoder configuration.
    SequenceHeader(&'a [u8]),
    Frame {
        /// PTS - DTS in milliseconds.
        composition_time: i32,
        payload: &'a [u8],
    },
    EndOfSequence,
    /// Colour metadata or the channel layout of a track.
    TrackMetadata,
    /// A packet type that is not known.
    UnknownPacket,
    /// A video command: a seek mark of old players.
    Command,
    OnMetaData,
    /// Other script data.
    Script,
}

impl Content<'_> {
    /// Returns whether this is media, as opposed to its description.
    pub fn is_media(&self) -> bool {
        matches!(self, Content::Frame { .. } | Content::UnknownPacket)
    }
}

impl<'a> Packet<'a> {
    /// Reads the body of a tag. Returns `None` where no decoder can use it: it is cut short or
    /// empty.
    pub fn parse(kind: TagKind, body: &'a [u8]) -> Option<Self> {
        match kind {
            TagKind::Audio => audio(body),
            TagKind::Video => video(body),
            TagKind::Script => script(body),
        }
    }

    fn of_frame(codec: Codec, composition_time: i32, payload: &'a [u8]) -> Self {
        let content = Content::Frame {
            composition_time,
            payload,
        };
        Packet { codec, content }
    }
}

fn other(content: Content<'_>) -> Packet<'_> {
    Packet {
        codec: Codec::Other,
        content,
    }
}

fn script(body: &[u8]) -> Option<Packet<'_>> {
    const STRING: u8 = 2;
    let &[STRING, high, low, ref rest @ ..] = body else {
        return None;
    };
    let name = rest.get(..usize::from(u16::from_be_bytes([high, low])))?;
    Some(other(match name {
        b"onMetaData" => Content::OnMetaData,
        _ => Content::Script,
    }))
}

fn video(body: &[u8]) -> Option<Packet<'_>> {
    let (&first, rest) = body.split_first()?;
    if first & 0x80 != 0 {
        return ex_video(first, rest);
    }
    if first >> 4 == FRAME_TYPE_COMMAND {
        return Some(other(Content::Command));
    }
    let codec = match first & 0x0F {
        CODEC_AVC => Codec::Avc,
        CODEC_HEVC => Codec::Other,
        _ => return Some(Packet::of_frame(Codec::Other, 0, rest)),
    };
    let (&packet_type, rest) = rest.split_first()?;
    let (composition_time, payload) = signed_24(rest)?;
    let content = match packet_type {
        SEQUENCE_END => Content::EndOfSequence,
        _ if payload.is_empty() => return None,
        SEQUENCE_START => Content::SequenceHeader(payload),
        CODED_FRAMES => {
            return Some(Packet::of_frame(codec, composition_time, payload));
        }
        _ => Content::UnknownPacket,
    };
    Some(Packet { codec, content })
}

fn ex_video(first: u8, rest: &[u8]) -> Option<Packet<'_>> {
    let is_command = first >> 4 & 0x07 == FRAME_TYPE_COMMAND;
    let (packet_type, rest) = skip_mod_ex(first & 0x0F, rest)?;
    // Metadata is metadata with any frame type.
    if is_command && packet_type != VIDEO_METADATA {
        return Some(other(Content::Command));
    }
    let track = first_track(packet_type, rest, VIDEO_MULTITRACK)?;
    let codec = match (&track.four_cc, track.is_alone) {
        (b"avc1", true) => Codec::Avc,
        _ => Codec::Other,
    };
    let content = match track.packet_type {
        SEQUENCE_START | MPEG2_TS_SEQUENCE_START | CODED_FRAMES | CODED_FRAMES_X
            if track.body.is_empty() =>
        {
            return None;
        }
        SEQUENCE_START | MPEG2_TS_SEQUENCE_START => Content::SequenceHeader(track.body),
        SEQUENCE_END => Content::EndOfSequence,
        VIDEO_METADATA => Content::TrackMetadata,
        CODED_FRAMES if matches!(&track.four_cc, b"avc1" | b"hvc1" | b"vvc1") => {
            let (composition_time, payload) = signed_24(track.body)?;
            let is_empty = payload.is_empty();
            return (!is_empty).then(|| Packet::of_frame(codec, composition_time, payload));
        }
        CODED_FRAMES | CODED_FRAMES_X => return Some(Packet::of_frame(codec, 0, track.body)),
        _ => Content::UnknownPacket,
    };
    Some(Packet { codec, content })
}

fn audio(body: &[u8]) -> Option<Packet<'_>> {
    let (&first, rest) = body.split_first()?;
    match first >> 4 {
        SOUND_EX_HEADER => ex_audio(first & 0x0F, rest),
        SOUND_AAC => {
            let (&packet_type, payload) = rest.split_first()?;
            let content = match packet_type {
                _ if payload.is_empty() => return None,
                SEQUENCE_START => Content::SequenceHeader(payload),
                _ => return Some(Packet::of_frame(Codec::Aac, 0, payload)),
            };
            Some(Packet {
                codec: Codec::Aac,
                content,
            })
        }
        _ => Some(Packet::of_frame(Codec::Other, 0, rest)),
    }
}

fn ex_audio(packet_type: u8, rest: &[u8]) -> Option<Packet<'_>> {
    let (packet_type, rest) = skip_mod_ex(packet_type, rest)?;
    let track = first_track(packet_type, rest, AUDIO_MULTITRACK)?;
    let codec = match (&track.four_cc, track.is_alone) {
        (b"mp4a", true) => Codec::Aac,
        _ => Codec::Other,
    };
    // AC-3 and MP3 have no configuration, and their sequence start is rightly empty.
    let needs_configuration = matches!(&track.four_cc, b"mp4a" | b"Opus" | b"fLaC");
    let content = match track.packet_type {
        SEQUENCE_START if track.body.is_empty() && needs_configuration => return None,
        SEQUENCE_START => Content::SequenceHeader(track.body),
        CODED_FRAMES => return Some(Packet::of_frame(codec, 0, track.body)),
        SEQUENCE_END => Content::EndOfSequence,
        MULTICHANNEL_CONFIG => Content::TrackMetadata,
        _ => Content::UnknownPacket,
    };
    Some(Packet { codec, content })
}

/// Skips ModEx prefixes, each of which names the next packet type.
fn skip_mod_ex(mut packet_type: u8, mut rest: &[u8]) -> Option<(u8, &[u8])> {
    while packet_type == MOD_EX {
        let (&short, after) = rest.split_first()?;
        let (size, after) = match short {
            0xFF => {
                let (long, after) = after.split_first_chunk()?;
                (usize::from(u16::from_be_bytes(*long)), after)
            }
            _ => (usize::from(short), after),
        };
        let after = after.get(size + 1..)?;
        let (&kinds, after) = after.split_first()?;
        packet_type = kinds & 0x0F;
        rest = after;
    }
    Some((packet_type, rest))
}

struct Track<'a> {
    four_cc: [u8; 4],
    packet_type: u8,
    body: &'a [u8],
    /// The tag has no multitrack header.
    is_alone: bool,
}

fn first_track(packet_type: u8, rest: &[u8], multitrack: u8) -> Option<Track<'_>> {
    if packet_type != multitrack {
        let (four_cc, body) = rest.split_first_chunk()?;
        return Some(Track {
            four_cc: *four_cc,
            packet_type,
            body,
            is_alone: true,
        });
    }
    let (&kinds, rest) = rest.split_first()?;
    // The FourCC comes before all tracks or within each, and either way before the first id.
    let (four_cc, rest) = rest.split_first_chunk()?;
    let (_id, rest) = rest.split_first()?;
    let body = if kinds >> 4 == ONE_TRACK {
        rest
    } else {
        let (size, rest) = rest.split_first_chunk::<3>()?;
        rest.get(..u32::from_be_bytes([0, size[0], size[1], size[2]]) as usize)?
    };
    Some(Track {
        four_cc: *four_cc,
        packet_type: kinds & 0x0F,
        body,
        is_alone: false,
    })
}

fn signed_24(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let (&[high, middle, low], rest) = bytes.split_first_chunk()?;
    Some((i32::from_be_bytes([high, middle, low, 0]) >> 8, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(kind: TagKind, body: &[u8]) -> Option<(Codec, Content<'_>)> {
        Packet::parse(kind, body).map(|packet| (packet.codec, packet.content))
    }

    fn frame(composition_time: i32, payload: &[u8]) -> Content<'_> {
        Content::Frame {
            composition_time,
            payload,
        }
    }

    #[test]
    fn legacy_tags_are_read() {
        let video = |body| content(TagKind::Video, body);
        let header = Some((Codec::Avc, Content::SequenceHeader(&[1, 2])));
        assert_eq!(video(&[0x17, 0, 0, 0, 0, 1, 2]), header);
        let early = Some((Codec::Avc, frame(-2, &[9])));
        assert_eq!(video(&[0x27, 1, 0xFF, 0xFF, 0xFE, 9]), early);
        let end = Some((Codec::Avc, Content::EndOfSequence));
        assert_eq!(video(&[0x17, 2, 0, 0, 0]), end);
        assert_eq!(video(&[0x12, 9]), Some((Codec::Other, frame(0, &[9]))));
        assert_eq!(video(&[0x57, 0]), Some((Codec::Other, Content::Command)));
        let audio = |body| content(TagKind::Audio, body);
        let header = Some((Codec::Aac, Content::SequenceHeader(&[0x11, 0x90])));
        assert_eq!(audio(&[0xAF, 0, 0x11, 0x90]), header);
        assert_eq!(audio(&[0xAF, 1, 7]), Some((Codec::Aac, frame(0, &[7]))));
        assert_eq!(audio(&[0x2F, 7]), Some((Codec::Other, frame(0, &[7]))));
        let script = |body| content(TagKind::Script, body);
        let metadata = Some((Codec::Other, Content::OnMetaData));
        assert_eq!(script(b"\x02\0\x0aonMetaData\x08"), metadata);
        assert_eq!(
            script(b"\x02\0\x02on"),
            Some((Codec::Other, Content::Script))
        );
    }

    #[test]
    fn enhanced_tags_are_read() {
        let video = |body| content(TagKind::Video, body);
        let header = Some((Codec::Avc, Content::SequenceHeader(&[1])));
        assert_eq!(video(b"\x90avc1\x01"), header);
        let late = Some((Codec::Avc, frame(40, &[9])));
        assert_eq!(video(b"\x91avc1\0\0\x28\x09"), late);
        assert_eq!(video(b"\x93avc1\x09"), Some((Codec::Avc, frame(0, &[9]))));
        assert_eq!(video(b"\x91av01\x09"), Some((Codec::Other, frame(0, &[9]))));
        // A ModEx prefix with nanoseconds before coded frames.
        assert_eq!(
            video(b"\x97\x02\0\0\x01\x03avc1\x09"),
            Some((Codec::Avc, frame(0, &[9])))
        );
        // Two tracks of AVC are not AVC alone.
        let several = Some((Codec::Other, frame(0, &[9])));
        assert_eq!(
            video(b"\x96\x13avc1\0\0\0\x01\x09\x01\0\0\x01\x08"),
            several
        );
        assert_eq!(video(b"\x96\x03avc1\0\x09"), several);
        assert_eq!(
            video(b"\xd4hvc1\x02"),
            Some((Codec::Other, Content::TrackMetadata))
        );
        assert_eq!(video(b"\xd1\0"), Some((Codec::Other, Content::Command)));
        let audio = |body| content(TagKind::Audio, body);
        assert_eq!(audio(b"\x91mp4a\x07"), Some((Codec::Aac, frame(0, &[7]))));
        assert_eq!(
            audio(b"\x90ac-3"),
            Some((Codec::Other, Content::SequenceHeader(&[])))
        );
        assert_eq!(
            audio(b"\x94Opus\x01\x06"),
            Some((Codec::Other, Content::TrackMetadata))
        );
    }

    #[test]
    fn tags_that_no_decoder_can_use_are_none() {
        let whole: [(TagKind, &[u8]); 9] = [
            (TagKind::Video, &[0x17, 0, 0, 0, 0, 1]),
            (TagKind::Video, &[0x27, 1, 0, 0, 0, 9]),
            (TagKind::Video, b"\x90hvc1\x01"),
            (TagKind::Video, b"\x91avc1\0\0\0\x09"),
            (TagKind::Video, b"\x97\x02\0\0\x01\x03avc1\x09"),
            (TagKind::Audio, &[0xAF, 0, 0x11]),
            (TagKind::Audio, &[0xAF, 1, 7]),
            (TagKind::Audio, b"\x90Opus\x01"),
            (TagKind::Script, b"\x02\0\x02on"),
        ];
        for (kind, body) in whole {
            assert!(Packet::parse(kind, body).is_some(), "{body:?}");
            for length in 0..body.len() {
                assert_eq!(Packet::parse(kind, &body[..length]), None, "{body:?}");
            }
        }
    }
}
