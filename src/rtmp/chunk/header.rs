// SPDX-License-Identifier: MPL-2.0

//! Chunk headers on the wire (section 5.3.1). Streaming parsers: nom's Incomplete means that more
//! bytes are needed, and no other error is possible at this level.

use nom::IResult;
use nom::Parser;
use nom::number::streaming::{be_u8, be_u24, be_u32, le_u16, le_u32};

/// Maximum bytes of basic header, message header and extended timestamp together.
pub(super) const MAX_LENGTH: usize = 3 + 11 + 4;

/// Value of a timestamp field whose real value is in the extended timestamp.
pub(super) const EXTENDED: u32 = 0xFF_FFFF;

/// Chunk type and chunk stream id (section 5.3.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BasicHeader {
    pub fmt: u8,
    pub csid: u32,
}

impl BasicHeader {
    #[inline(always)]
    pub(super) fn parse(input: &[u8]) -> IResult<&[u8], Self, ()> {
        let (rest, first) = be_u8(input)?;
        let fmt = first >> 6;
        let (rest, csid) = match first & 0x3F {
            0 => {
                let (rest, id) = be_u8(rest)?;
                (rest, 64 + u32::from(id))
            }
            1 => {
                let (rest, id) = le_u16(rest)?;
                (rest, 64 + u32::from(id))
            }
            id => (rest, u32::from(id)),
        };
        Ok((rest, BasicHeader { fmt, csid }))
    }

    /// Appends the shortest form of this header.
    pub fn write(self, out: &mut Vec<u8>) {
        let fmt = self.fmt << 6;
        match self.csid {
            2..=63 => out.push(fmt | self.csid as u8),
            64..=319 => out.extend_from_slice(&[fmt, (self.csid - 64) as u8]),
            _ => {
                out.push(fmt | 1);
                out.extend_from_slice(&((self.csid - 64) as u16).to_le_bytes());
            }
        }
    }
}

/// The message header of a chunk of type 0, 1 or 2, with the fields that its type has
/// (section 5.3.1.2). `time` has the value of the extended timestamp (section 5.3.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MessageHeader {
    /// A timestamp in type 0, a timestamp delta in types 1 and 2.
    pub time: u32,
    /// True where `time` is in the extended timestamp field.
    pub extended: bool,
    /// Present in types 0 and 1.
    pub length_and_type: Option<(u32, u8)>,
    /// Present in type 0.
    pub msid: Option<u32>,
}

impl MessageHeader {
    #[inline(always)]
    pub(super) fn parse(fmt: u8, input: &[u8]) -> IResult<&[u8], Self, ()> {
        let (mut rest, time) = be_u24(input)?;
        let mut header = MessageHeader {
            time,
            extended: time == EXTENDED,
            ..MessageHeader::default()
        };
        if fmt <= 1 {
            let (after, length_and_type) = (be_u24, be_u8).parse(rest)?;
            header.length_and_type = Some(length_and_type);
            rest = after;
        }
        if fmt == 0 {
            let (after, msid) = le_u32(rest)?;
            header.msid = Some(msid);
            rest = after;
        }
        if header.extended {
            let (after, time) = be_u32(rest)?;
            header.time = time;
            rest = after;
        }
        Ok((rest, header))
    }

    /// Appends the header. Its fields determine its type.
    pub fn write(self, out: &mut Vec<u8>) {
        let field = if self.extended { EXTENDED } else { self.time };
        out.extend_from_slice(&field.to_be_bytes()[1..]);
        if let Some((length, type_id)) = self.length_and_type {
            out.extend_from_slice(&length.to_be_bytes()[1..]);
            out.push(type_id);
        }
        if let Some(msid) = self.msid {
            out.extend_from_slice(&msid.to_le_bytes());
        }
        if self.extended {
            out.extend_from_slice(&self.time.to_be_bytes());
        }
    }
}
