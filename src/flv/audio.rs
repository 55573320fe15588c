// SPDX-License-Identifier: MPL-2.0

//! Audio tag headers (E.4.2; Enhanced RTMP v2, "Enhanced Audio").

use super::info::{Content, TagInfo};
use super::{Error, ex};

/// Sound formats with a header of their own kind.
mod format {
    pub(super) const EX_HEADER: u8 = 9;
    pub(super) const AAC: u8 = 10;
}

const AAC_SEQUENCE_HEADER: u8 = 0;

mod packet {
    pub(super) const SEQUENCE_START: u8 = 0;
    pub(super) const SEQUENCE_END: u8 = 2;
    pub(super) const MULTICHANNEL_CONFIG: u8 = 4;
}

pub(super) fn parse(body: &[u8]) -> Result<TagInfo, Error> {
    let (&first, rest) = body.split_first().ok_or(Error::Empty)?;
    match first >> 4 {
        format::EX_HEADER => enhanced(first & 0x0F, rest),
        format::AAC => match rest.split_first() {
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
    let header = ex::parse(rest, packet_type, ex::PACKET_MULTITRACK_AUDIO);
    let header = header.ok_or(Error::Truncated)?;
    // AC-3 and MP3 have no configuration, and their sequence start is empty by rights.
    let needs_configuration = [b"mp4a", b"Opus", b"fLaC"].contains(&&header.four_cc);
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
