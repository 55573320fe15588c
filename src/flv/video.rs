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
