// SPDX-License-Identifier: MPL-2.0

//! Audio tag headers (E.4.2; Enhanced RTMP v2, "Enhanced Audio").

use super::error::Error;
use super::ex;
use super::info::{Content, TagInfo};

use super::codes::{AacPacketType, AudioFourCc, SoundFormat, audio_packet as packet};

const AAC_SEQUENCE_HEADER: u8 = AacPacketType::SequenceHeader.code();

#[inline]
pub(super) fn parse(body: &[u8]) -> Result<TagInfo, Error> {
    let (&first, rest) = body.split_first().ok_or(Error::Empty)?;
    match SoundFormat::from_code(first >> 4) {
        SoundFormat::ExHeader => enhanced(first & 0x0F, rest),
        SoundFormat::Aac => match rest.split_first() {
            None => Err(Error::Truncated),
            Some((&AAC_SEQUENCE_HEADER, [])) => Err(Error::EmptyConfiguration),
            Some((&AAC_SEQUENCE_HEADER, _)) => Ok(TagInfo::new(Content::SequenceHeader, 0)),
            Some((_, [])) => Err(Error::Empty),
            Some(_) => Ok(TagInfo::new(Content::Frame, 0)),
        },
        _ => Ok(TagInfo::new(Content::Frame, 0)),
    }
}

fn enhanced(packet_type: u8, rest: &[u8]) -> Result<TagInfo, Error> {
    let header = ex::parse(rest, packet_type, packet::MULTITRACK);
    let header = header.ok_or(Error::Truncated)?;
    let needs_configuration = AudioFourCc::from_code(header.four_cc).has_configuration();
    let content = match header.packet_type {
        packet::SEQUENCE_START if header.body.is_empty() && needs_configuration => {
            return Err(Error::EmptyConfiguration);
        }
        packet::SEQUENCE_START => Content::SequenceHeader,
        packet::SEQUENCE_END => Content::EndOfSequence,
        packet::MULTICHANNEL_CONFIG => Content::TrackMetadata,
        _ => Content::Frame,
    };
    let info = TagInfo::new(content, header.track);
    Ok(info.with_composition_time(0, header.nanoseconds))
}
