// SPDX-License-Identifier: MPL-2.0

//! Headers of tags and files in bytes that may be anything.

use std::ops::Range;

use crate::flv::{FRONT_LENGTH, TRAILER_LENGTH, TagKind};

const SIGNATURE: &[u8] = b"FLV";

/// A file header is believed within other bytes if all of it is as usual: version 1, no flags but
/// those of audio and video, and its usual length.
const FILE_HEADER_LENGTH: usize = 9;

/// A tag that a search finds has to be at hand whole. Without this limit noise would make the
/// search wait for 16 MiB.
const MAX_DOUBTFUL_LENGTH: usize = 1024 * 1024;

/// Difference of the timestamps of neighbours, in milliseconds, within which they prove each other.
const MAX_STEP: u32 = 10_000;

/// Stream ids that are accepted without proof. The id should be 0, but some writers number their
/// tracks.
const MAX_STREAM_ID: u32 = 0xFF;

/// The answer to whether bytes are a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    Yes,
    /// Yes, unless a file starts within the tag.
    Weak,
    No,
    /// This many bytes are needed for an answer.
    Open(usize),
}

/// The start of a tag.
#[derive(Debug, Clone, Copy)]
pub(super) struct TagHeader {
    pub(super) type_code: u8,
    pub(super) body_length: usize,
    /// Milliseconds, modulo 2^32.
    pub(super) timestamp: u32,
    pub(super) stream_id: u32,
}

impl TagHeader {
    /// Reads the header at the start of at least [`FRONT_LENGTH`] bytes.
    #[inline]
    pub(super) fn read(bytes: &[u8]) -> Self {
        let bytes = &bytes[..FRONT_LENGTH];
        TagHeader {
            type_code: bytes[0],
            body_length: u32::from_be_bytes([0, bytes[1], bytes[2], bytes[3]]) as usize,
            timestamp: u32::from_be_bytes([bytes[7], bytes[4], bytes[5], bytes[6]]),
            stream_id: u32::from_be_bytes([0, bytes[8], bytes[9], bytes[10]]),
        }
    }

    pub(super) fn kind(&self) -> Option<TagKind> {
        const AUDIO: u8 = TagKind::Audio as u8;
        const VIDEO: u8 = TagKind::Video as u8;
        const SCRIPT: u8 = TagKind::Script as u8;
        match self.type_code {
            AUDIO => Some(TagKind::Audio),
            VIDEO => Some(TagKind::Video),
            SCRIPT => Some(TagKind::Script),
            _ => None,
        }
    }

    /// Length up to the back pointer.
    pub(super) fn end(&self) -> usize {
        FRONT_LENGTH + self.body_length
    }

    /// Returns true if nothing contradicts that this is a tag. `stream_id` is the usual one.
    pub(super) fn is_certain(&self, stream_id: u32) -> bool {
        self.type_code & 0xC0 == 0
            && self.type_code != 0
            && (self.stream_id <= MAX_STREAM_ID || self.stream_id == stream_id)
    }

    /// Returns true if this can be the tag after `other` in the same file.
    fn may_follow(&self, other: &TagHeader) -> bool {
        let step = self.timestamp.wrapping_sub(other.timestamp);
        self.kind().is_some()
            && self.body_length <= MAX_DOUBTFUL_LENGTH
            && (self.stream_id == other.stream_id
                || self.stream_id.max(other.stream_id) <= MAX_STREAM_ID)
            && step.min(step.wrapping_neg()) <= MAX_STEP
    }
}

pub(super) fn starts_with_signature(bytes: &[u8]) -> bool {
    bytes.starts_with(SIGNATURE)
}

fn is_file_header(bytes: &[u8]) -> bool {
    matches!(bytes, [b'F', b'L', b'V', 1, flags, 0, 0, 0, 9, ..] if flags & !5 == 0)
}

/// Returns the place of a file header that starts in this range.
pub(super) fn find_file_header(bytes: &[u8], range: Range<usize>) -> Option<usize> {
    let last = range
        .end
        .min((bytes.len() + 1).saturating_sub(FILE_HEADER_LENGTH));
    let mut at = range.start;
    while at < last {
        at += bytes[at..last].iter().position(|&byte| byte == b'F')?;
        if is_file_header(&bytes[at..]) {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// Returns the back pointer of a tag whose header ends in `bytes`, if it is there.
fn back_pointer(bytes: &[u8], end: usize) -> Option<usize> {
    let back = bytes.get(end..end + TRAILER_LENGTH)?;
    back.first_chunk()
        .map(|back| u32::from_be_bytes(*back) as usize)
}

/// Verifies a tag that is expected at the start of `bytes`: its back pointer agrees, or something
/// that looks like a tag or a file follows it. `is_end`: no more bytes will come.
pub(super) fn verify(bytes: &[u8], header: &TagHeader, stream_id: u32, is_end: bool) -> Proof {
    let end = header.end();
    match back_pointer(bytes, end) {
        Some(back) if back == end => return Proof::Yes,
        Some(_) => {}
        // The last tag may be without its back pointer.
        None if is_end && bytes.len() >= end => return Proof::Yes,
        None if is_end => return Proof::No,
        None => return Proof::Open(end + TRAILER_LENGTH),
    }
    let after = end + TRAILER_LENGTH;
    match bytes.get(after..after + FRONT_LENGTH) {
        Some(next) if starts_with_signature(next) => Proof::Weak,
        Some(next) if TagHeader::read(next).is_certain(stream_id) => Proof::Weak,
        Some(_) => Proof::No,
        None if is_end => Proof::Weak,
        None => Proof::Open(after + FRONT_LENGTH),
    }
}

/// Proves a tag that may start anywhere: its back pointer agrees, or two more tags follow it.
fn prove(bytes: &[u8], header: &TagHeader, is_end: bool) -> Proof {
    if header.kind().is_none() || header.body_length > MAX_DOUBTFUL_LENGTH {
        return Proof::No;
    }
    let open = |wanted| {
        if is_end {
            Proof::No
        } else {
            Proof::Open(wanted)
        }
    };
    let end = header.end();
    match back_pointer(bytes, end) {
        Some(back) if back == end => return Proof::Yes,
        Some(_) => {}
        None => return open(end + TRAILER_LENGTH),
    }
    let mut last = *header;
    let mut at = end + TRAILER_LENGTH;
    for _ in 0..2 {
        let Some(next) = bytes.get(at..at + FRONT_LENGTH) else {
            return open(at + FRONT_LENGTH);
        };
        let next = TagHeader::read(next);
        if !next.may_follow(&last) {
            return Proof::No;
        }
        at += next.end() + TRAILER_LENGTH;
        last = next;
    }
    Proof::Yes
}

/// Returns the number of bytes before the next tag or file header that is proved and, if that is
/// still open, the number of bytes from there on that settle it.
pub(super) fn search(bytes: &[u8], is_end: bool) -> (usize, Option<usize>) {
    let mut at = 0;
    while bytes.len() - at >= FRONT_LENGTH {
        let last = bytes.len() - FRONT_LENGTH;
        let mut starts = bytes[at..=last].iter();
        match starts.position(|byte| matches!(byte, 8 | 9 | 18 | b'F')) {
            Some(skip) => at += skip,
            None => {
                at = last + 1;
                break;
            }
        }
        let rest = &bytes[at..];
        if rest[0] == b'F' {
            if is_file_header(rest) {
                return (at, None);
            }
        } else {
            match prove(rest, &TagHeader::read(rest), is_end) {
                Proof::Yes | Proof::Weak => return (at, None),
                Proof::Open(wanted) => return (at, Some(wanted)),
                Proof::No => {}
            }
        }
        at += 1;
    }
    (at, Some(FRONT_LENGTH))
}
