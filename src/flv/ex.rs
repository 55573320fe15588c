// SPDX-License-Identifier: MPL-2.0

//! The common part of audio and video ex-headers (Enhanced RTMP v2, "Enhanced Audio" and "Enhanced
//! Video"): ModEx prefixes, multitrack and the FourCC.

use nom::bytes::complete::take;
use nom::number::complete::{be_u8, be_u16, be_u24};
use nom::{IResult, Parser};

use super::codes::multitrack::{MANY_TRACKS_MANY_CODECS, ONE_TRACK};
use super::codes::{MAX_NANOSECONDS, MOD_EX_TIMESTAMP_OFFSET_NANO, PACKET_MOD_EX};

/// An ex-header up to the body of its first track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ExHeader<'a> {
    /// Never multitrack or ModEx: those are resolved.
    pub packet_type: u8,
    pub nanoseconds: u32,
    pub four_cc: [u8; 4],
    /// 0 where there is no multitrack.
    pub track: u8,
    pub body: &'a [u8],
}

/// Parses the bytes after the first one, whose lower half is `packet_type`.
pub(super) fn parse(input: &[u8], packet_type: u8, multitrack: u8) -> Option<ExHeader<'_>> {
    let (rest, (packet_type, nanoseconds)) = mod_ex(input, packet_type).ok()?;
    let header = if packet_type == multitrack {
        multitrack_header(rest, nanoseconds)
    } else {
        four_cc(rest).map(|(body, four_cc)| {
            let header = ExHeader {
                packet_type,
                nanoseconds,
                four_cc,
                track: 0,
                body,
            };
            (body, header)
        })
    };
    header.ok().map(|(_, header)| header)
}

/// Skips ModEx prefixes, each of which names the next packet type.
pub(super) fn mod_ex(input: &[u8], packet_type: u8) -> IResult<&[u8], (u8, u32), ()> {
    let mut rest = input;
    let mut packet_type = packet_type;
    let mut nanoseconds = 0;
    while packet_type == PACKET_MOD_EX {
        let (after, short) = be_u8(rest)?;
        let (after, size) = match short {
            0xFF => be_u16(after).map(|(after, size)| (after, u32::from(size) + 1))?,
            _ => (after, u32::from(short) + 1),
        };
        let (after, data) = take(size)(after)?;
        let (after, kinds) = be_u8(after)?;
        // An offset that is too short says nothing.
        if kinds >> 4 == MOD_EX_TIMESTAMP_OFFSET_NANO
            && let Ok((_, offset)) = be_u24::<_, ()>(data)
        {
            nanoseconds = offset.min(MAX_NANOSECONDS);
        }
        packet_type = kinds & 0x0F;
        rest = after;
    }
    Ok((rest, (packet_type, nanoseconds)))
}

fn multitrack_header(input: &[u8], nanoseconds: u32) -> IResult<&[u8], ExHeader<'_>, ()> {
    let (rest, kinds) = be_u8(input)?;
    let (kind, packet_type) = (kinds >> 4, kinds & 0x0F);
    // The FourCC comes before all tracks or within each, and either way before the first id.
    let (rest, (mut code, mut track)) = (four_cc, be_u8).parse(rest)?;
    let (mut rest, mut body) = if kind == ONE_TRACK {
        (&rest[rest.len()..], rest)
    } else {
        let (rest, size) = be_u24(rest)?;
        take(size)(rest)?
    };
    // An empty track says nothing about the others.
    while body.is_empty() && !rest.is_empty() {
        if kind == MANY_TRACKS_MANY_CODECS {
            (rest, code) = four_cc(rest)?;
        }
        (rest, track) = be_u8(rest)?;
        let (after, size) = be_u24(rest)?;
        (rest, body) = take(size)(after)?;
    }
    let header = ExHeader {
        packet_type,
        nanoseconds,
        four_cc: code,
        track,
        body,
    };
    Ok((rest, header))
}

/// Tracks in a tag of several, with their bodies. Ends where the rest is cut short.
#[derive(Debug, Clone, Copy)]
pub(super) struct TrackList<'a> {
    rest: &'a [u8],
    /// Each track has a FourCC of its own.
    has_codes: bool,
}

impl<'a> Iterator for TrackList<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut rest = self.rest;
        if self.has_codes {
            (rest, _) = four_cc(rest).ok()?;
        }
        let (after, (id, size)) = (be_u8::<_, ()>, be_u24).parse(rest).ok()?;
        let (after, body) = take::<_, _, ()>(size)(after).ok()?;
        self.rest = after;
        Some((id, body))
    }
}

/// Returns the tracks after the first byte of a tag, if it has a list of them.
pub(super) fn track_list(input: &[u8], packet_type: u8, multitrack: u8) -> Option<TrackList<'_>> {
    let (rest, (packet_type, _)) = mod_ex(input, packet_type).ok()?;
    if packet_type != multitrack {
        return None;
    }
    let (rest, kinds) = be_u8::<_, ()>(rest).ok()?;
    match kinds >> 4 {
        ONE_TRACK => None,
        MANY_TRACKS_MANY_CODECS => Some(TrackList {
            rest,
            has_codes: true,
        }),
        _ => four_cc(rest).ok().map(|(rest, _)| TrackList {
            rest,
            has_codes: false,
        }),
    }
}

fn four_cc(input: &[u8]) -> IResult<&[u8], [u8; 4], ()> {
    let (rest, code) = take(4usize)(input)?;
    Ok((rest, [code[0], code[1], code[2], code[3]]))
}
