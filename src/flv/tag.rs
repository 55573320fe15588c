// SPDX-License-Identifier: MPL-2.0

use bytes::{Buf, BufMut, BytesMut};

use super::{Error, TagInfo};

/// The file header with the back pointer behind it: version 1, audio and video (E.2, E.3).
///
/// A live stream can't know which tracks will come, so it announces both.
pub const FILE_HEADER: [u8; 13] = *b"FLV\x01\x05\0\0\0\x09\0\0\0\0";

/// Bytes before the body of a tag.
pub const FRONT_LENGTH: usize = 11;

/// Bytes behind the body of a tag: the back pointer.
pub const TRAILER_LENGTH: usize = 4;

/// Tag types (E.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TagKind {
    Audio = 8,
    Video = 9,
    Script = 18,
}

/// A tag on its way through: a body that was looked at, in memory with room for the frame around
/// it, and the timestamp that its publisher gave it.
#[derive(Debug)]
pub struct Tag {
    pub kind: TagKind,
    pub info: TagInfo,
    /// Milliseconds, modulo 2^32.
    pub timestamp: u32,
    bytes: BytesMut,
    start: usize,
}

impl Tag {
    /// The body starts at `start` within `bytes`. Nothing has to be copied later when there are
    /// [`FRONT_LENGTH`] bytes before it and capacity for [`TRAILER_LENGTH`] behind it.
    pub fn new(
        kind: TagKind,
        timestamp: u32,
        bytes: BytesMut,
        start: usize,
    ) -> Result<Self, Error> {
        let info = TagInfo::of(kind, &bytes[start..])?;
        Ok(Tag {
            kind,
            info,
            timestamp,
            bytes,
            start,
        })
    }

    pub fn body(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Bytes of memory that the tag keeps.
    pub fn memory(&self) -> usize {
        self.bytes.capacity() + size_of::<Self>()
    }

    /// The whole tag with the back pointer behind it, stamped anew.
    pub fn into_bytes(mut self, timestamp: u32) -> BytesMut {
        if self.start < FRONT_LENGTH {
            let mut roomy = BytesMut::with_capacity(FRONT_LENGTH + self.bytes.len());
            roomy.put_bytes(0, FRONT_LENGTH);
            roomy.put_slice(self.body());
            self.bytes = roomy;
            self.start = FRONT_LENGTH;
        }
        let body_length = (self.bytes.len() - self.start) as u32;
        self.bytes.advance(self.start - FRONT_LENGTH);
        let front = front(self.kind, body_length, timestamp);
        self.bytes[..FRONT_LENGTH].copy_from_slice(&front);
        self.bytes.put_u32(body_length + FRONT_LENGTH as u32);
        self.bytes
    }
}

fn front(kind: TagKind, body_length: u32, timestamp: u32) -> [u8; FRONT_LENGTH] {
    let [_, l2, l1, l0] = body_length.to_be_bytes();
    // The high byte of the timestamp comes last.
    let [t3, t2, t1, t0] = timestamp.to_be_bytes();
    [kind as u8, l2, l1, l0, t2, t1, t0, t3, 0, 0, 0]
}
