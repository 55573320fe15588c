// SPDX-License-Identifier: MPL-2.0

//! Video tag headers (E.4.3; Enhanced RTMP v2, "Enhanced Video").

use nom::Parser;
use nom::number::complete::{be_i24, be_u8};

use super::error::Error;
use super::ex;
use super::info::{Content, TagInfo};

use super::codes::{FrameType, VideoCodecId, VideoFourCc, video_packet as packet};

pub(super) fn parse(body: &[u8]) -> Result<TagInfo, Error> {
    let (&first, rest) = body.split_first().ok_or(Error::Empty)?;
    if first & 0x80 != 0 {
        return enhanced(first, rest);
    }
    let frame_type = FrameType::from_code(first >> 4);
    if frame_type == FrameType::Command {
        return Ok(TagInfo::new(Content::Command, 0));
    }
    let coded = coded(frame_type);
    let codec = VideoCodecId::from_code(first & 0x0F);
    if !matches!(codec, VideoCodecId::Avc | VideoCodecId::Hevc) {
        return Ok(TagInfo::new(coded, 0));
    }
    let parsed = (be_u8::<_, ()>, be_i24).parse(rest);
    let (payload, (packet_type, composition_time)) = parsed.map_err(|_| Error::Truncated)?;
    match packet_type {
        packet::SEQUENCE_START if payload.is_empty() => Err(Error::EmptyConfiguration),
        packet::SEQUENCE_START => Ok(TagInfo::new(Content::SequenceHeader, 0)),
        packet::SEQUENCE_END => Ok(TagInfo::new(Content::EndOfSequence, 0)),
        _ if payload.is_empty() => Err(Error::Empty),
        _ => Ok(TagInfo::new(coded, 0).with_composition_time(composition_time, 0)),
    }
}

fn coded(frame_type: FrameType) -> Content {
    if frame_type.is_key() {
        Content::Keyframe
    } else {
        Content::Frame
    }
}

fn enhanced(first: u8, rest: &[u8]) -> Result<TagInfo, Error> {
    let frame_type = FrameType::from_code(first >> 4 & 0x07);
    let parsed = ex::mod_ex(rest, first & 0x0F);
    let (_, (packet_type, _)) = parsed.map_err(|_| Error::Truncated)?;
    // With a frame type of command there is one byte of command and no FourCC, except that
    // metadata is metadata whatever the frame type.
    if frame_type == FrameType::Command && packet_type != packet::METADATA {
        return Ok(TagInfo::new(Content::Command, 0));
    }
    let header = ex::parse(rest, first & 0x0F, packet::MULTITRACK);
    let header = header.ok_or(Error::Truncated)?;
    let content = match header.packet_type {
        packet::SEQUENCE_START | packet::MPEG2_TS_SEQUENCE_START if header.body.is_empty() => {
            return Err(Error::EmptyConfiguration);
        }
        packet::SEQUENCE_START | packet::MPEG2_TS_SEQUENCE_START => Content::SequenceHeader,
        packet::SEQUENCE_END => Content::EndOfSequence,
        packet::METADATA => Content::TrackMetadata,
        packet::CODED_FRAMES | packet::CODED_FRAMES_X if header.body.is_empty() => {
            return Err(Error::Empty);
        }
        _ => coded(frame_type),
    };
    let info = TagInfo::new(content, header.track);
    let four_cc = VideoFourCc::from_code(header.four_cc);
    if header.packet_type != packet::CODED_FRAMES || !four_cc.has_composition_time() {
        return Ok(info.with_composition_time(0, header.nanoseconds));
    }
    let (payload, composition_time) = be_i24::<_, ()>(header.body).map_err(|_| Error::Truncated)?;
    if payload.is_empty() {
        return Err(Error::Empty);
    }
    Ok(info.with_composition_time(composition_time, header.nanoseconds))
}

/// Adds milliseconds to the composition time of a frame in a tag of one track. Returns false where it
/// has none.
pub fn shift_composition_time(body: &mut [u8], millis: i64) -> bool {
    let at = match *body {
        [first, 1, ..] if first & 0x80 == 0 => {
            let codec = VideoCodecId::from_code(first & 0x0F);
            matches!(codec, VideoCodecId::Avc | VideoCodecId::Hevc).then_some(2)
        }
        [first, a, b, c, d, ..] if first & 0x8F == 0x80 | packet::CODED_FRAMES => {
            let four_cc = VideoFourCc::from_code([a, b, c, d]);
            four_cc.has_composition_time().then_some(5)
        }
        _ => None,
    };
    let Some(field) = at.and_then(|at| body.get_mut(at..at + 3)) else {
        return false;
    };
    let present = i32::from_be_bytes([field[0], field[1], field[2], 0]) >> 8;
    let shifted = (i64::from(present) + millis).clamp(-0x80_0000, 0x7F_FFFF);
    field.copy_from_slice(&shifted.to_be_bytes()[5..]);
    true
}

#[cfg(test)]
mod shift_tests {
    use super::*;

    #[test]
    fn composition_time_is_shifted_where_there_is_one() {
        let shifted = |body: &[u8], millis| {
            let mut body = body.to_vec();
            let had_one = shift_composition_time(&mut body, millis);
            had_one.then(|| parse(&body).unwrap().composition_time / 1_000_000)
        };
        let legacy = [0x27, 1, 0, 0, 80, 9];
        assert_eq!(shifted(&legacy, -30), Some(50));
        assert_eq!(shifted(&legacy, -100), Some(-20));
        assert_eq!(shifted(&legacy, 1 << 40), Some(0x7F_FFFF));
        assert_eq!(shifted(b"\xA1hvc1\0\0\x50\x09", 7), Some(87));
        for body in [
            &b"\xA3hvc1\x09"[..],
            &[0x22, 9],
            &[0x17, 0, 0, 0, 0, 1],
            b"\xA1av01\x09",
        ] {
            assert_eq!(shifted(body, 7), None);
        }
    }
}
