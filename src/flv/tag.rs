// SPDX-License-Identifier: MPL-2.0

use std::num::NonZeroU64;

use super::codes::{SoundFormat, VideoCodecId};
use super::config::is_hevc_in_disguise;
use super::error::{Error, MAX_BODY_LENGTH};
use super::info::{Content, TagInfo};
use super::kind::TagKind;
use crate::memory::Memory;

/// The file header and the back pointer after it: version 1, audio and video (E.2, E.3).
///
/// The tracks of a live stream are not known in advance, so it announces both.
pub const FILE_HEADER: [u8; 13] = *b"FLV\x01\x05\0\0\0\x09\0\0\0\0";

/// Length in bytes of the tag header, before the body.
pub const FRONT_LENGTH: usize = 11;

/// Length in bytes of the back pointer, after the body.
pub const TRAILER_LENGTH: usize = 4;

/// A tag without its frame: a body with a parsed header, in memory with room for the frame, and the
/// publisher's timestamp.
#[derive(Debug)]
pub struct Tag {
    pub kind: TagKind,
    pub info: TagInfo,
    /// Milliseconds, modulo 2^32.
    pub timestamp: u32,
    /// The time of day that the publisher states with this tag, in nanoseconds since the Unix epoch.
    pub time_of_day: Option<NonZeroU64>,
    body: Memory,
}

impl Tag {
    /// Parses the header of a body. Framing copies nothing if there are [`FRONT_LENGTH`] free bytes
    /// before the body and capacity for [`TRAILER_LENGTH`] after it.
    #[inline]
    pub fn new(kind: TagKind, timestamp: u32, body: Memory) -> Result<Self, Error> {
        let info = Tag::check(kind, &body)?;
        Ok(Tag::checked(kind, info, timestamp, body))
    }

    /// Parses the header of a body, which may become a tag.
    #[inline]
    pub fn check(kind: TagKind, body: &[u8]) -> Result<TagInfo, Error> {
        if body.len() > MAX_BODY_LENGTH {
            return Err(Error::TooLong);
        }
        TagInfo::of(kind, body)
    }

    /// Makes a tag of a body with this header.
    #[inline]
    pub fn checked(kind: TagKind, info: TagInfo, timestamp: u32, body: Memory) -> Self {
        Tag {
            kind,
            info,
            timestamp,
            time_of_day: None,
            body,
        }
    }

    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Returns true for a form or a codec that demuxers of plain FLV do not know: that of Enhanced RTMP,
    /// of which they end on any tag, and HEVC from before it.
    pub fn is_enhanced(&self) -> bool {
        let first = self.body.first().copied().unwrap_or(0);
        match self.kind {
            TagKind::Video => {
                first & 0x80 != 0
                    || first & 0x0F == VideoCodecId::Hevc.code()
                    || self.has_disguised_hevc()
            }
            TagKind::Audio => first >> 4 == SoundFormat::ExHeader.code(),
            TagKind::Script => false,
        }
    }

    fn has_disguised_hevc(&self) -> bool {
        self.info.content == Content::SequenceHeader
            && self.body.get(5..).is_some_and(is_hevc_in_disguise)
    }

    /// Returns the memory of the tag in bytes.
    pub fn memory(&self) -> usize {
        self.body.capacity() + size_of::<Self>()
    }

    /// Returns the framed tag and its back pointer, with this timestamp.
    #[inline]
    pub fn into_bytes(self, timestamp: u32) -> Memory {
        Tag::frame(self.kind, self.body, timestamp)
    }

    /// Frames a body as a tag with its back pointer.
    #[inline]
    pub fn frame(kind: TagKind, mut body: Memory, timestamp: u32) -> Memory {
        let body_length = body.len() as u32;
        body.prepend(&front(kind, body_length, timestamp));
        body.extend(&(body_length + FRONT_LENGTH as u32).to_be_bytes());
        body
    }
}

#[inline]
fn front(kind: TagKind, body_length: u32, timestamp: u32) -> [u8; FRONT_LENGTH] {
    let [_, l2, l1, l0] = body_length.to_be_bytes();
    // The high byte of the timestamp comes last.
    let [t3, t2, t1, t0] = timestamp.to_be_bytes();
    [kind as u8, l2, l1, l0, t2, t1, t0, t3, 0, 0, 0]
}
