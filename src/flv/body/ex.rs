// SPDX-License-Identifier: MPL-2.0

//! The common part of enhanced audio and video: ModEx prefixes and multitrack.

use bytes::BufMut;
use nom::bytes::complete::take;
use nom::number::complete::{be_u8, be_u16, be_u24};

use super::{BodyError, MAX_MOD_EX, MAX_TRACKS, put_u24};
use crate::flv::codes::{MAX_NANOSECONDS, MOD_EX_TIMESTAMP_OFFSET_NANO, PACKET_MOD_EX, multitrack};

/// One prefix of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModEx<'a> {
    /// Four bits.
    pub kind: u8,
    /// 1 to 65,536 bytes.
    pub data: &'a [u8],
}

impl ModEx<'_> {
    /// Returns the nanoseconds to add to the presentation time, at most 999,999.
    pub fn nanoseconds(&self) -> Option<u32> {
        let &[a, b, c, ..] = self.data else {
            return None;
        };
        (self.kind == MOD_EX_TIMESTAMP_OFFSET_NANO)
            .then(|| u32::from_be_bytes([0, a, b, c]).min(MAX_NANOSECONDS))
    }
}

/// The tracks of a tag: each `T` is a FourCC and a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tracks<T> {
    /// One track without multitrack, the usual form of track 0.
    Unwrapped(T),
    /// One track and no size field.
    OneTrack(u8, T),
    /// Several tracks with one FourCC. Never empty, and all with one packet type.
    ManyTracks(Vec<(u8, T)>),
    /// Several tracks with a FourCC each. Never empty, and all with one packet type.
    ManyTracksManyCodecs(Vec<(u8, T)>),
}

impl<T> Tracks<T> {
    /// Returns track ids and tracks, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &T)> {
        let (one, many) = match self {
            Tracks::Unwrapped(track) => (Some((0, track)), &[][..]),
            Tracks::OneTrack(id, track) => (Some((*id, track)), &[][..]),
            Tracks::ManyTracks(tracks) | Tracks::ManyTracksManyCodecs(tracks) => {
                (None, &tracks[..])
            }
        };
        let many = many.iter().map(|(id, track)| (*id, track));
        one.into_iter().chain(many)
    }

    /// Removes tracks from a list of several. A single track stays.
    pub fn retain(&mut self, mut keep: impl FnMut(u8, &T) -> bool) {
        match self {
            Tracks::Unwrapped(_) | Tracks::OneTrack(..) => {}
            Tracks::ManyTracks(tracks) | Tracks::ManyTracksManyCodecs(tracks) => {
                tracks.retain(|(id, track)| keep(*id, track));
            }
        }
    }
}

/// A FourCC and a packet of audio or video.
pub(super) trait Coded<'a>: Sized {
    const MULTITRACK: u8;

    fn parse(four_cc: [u8; 4], packet_type: u8, body: &'a [u8]) -> Result<Self, BodyError>;
    /// A packet that can't be parsed.
    fn unknown(four_cc: [u8; 4], packet_type: u8, body: &'a [u8]) -> Self;
    fn four_cc(&self) -> [u8; 4];
    fn packet_type(&self) -> u8;
    fn write_body(&self, out: &mut impl BufMut);
}

type Step<'a, T> = Result<(&'a [u8], T), BodyError>;

/// Parses prefixes, each of which names the next packet type, and returns the type after the last.
pub(super) fn mod_ex(input: &[u8], packet_type: u8) -> Step<'_, (u8, Vec<ModEx<'_>>)> {
    let mut rest = input;
    let mut packet_type = packet_type;
    let mut prefixes = Vec::new();
    while packet_type == PACKET_MOD_EX {
        if prefixes.len() == MAX_MOD_EX {
            return Err(BodyError::TooManyModEx);
        }
        let (after, short) = be_u8::<_, ()>(rest)?;
        let (after, size) = match short {
            0xFF => {
                let (after, long) = be_u16::<_, ()>(after)?;
                (after, usize::from(long) + 1)
            }
            _ => (after, usize::from(short) + 1),
        };
        let (after, data) = take::<_, _, ()>(size)(after)?;
        let (after, kinds) = be_u8::<_, ()>(after)?;
        let kind = kinds >> 4;
        prefixes.push(ModEx { kind, data });
        packet_type = kinds & 0x0F;
        rest = after;
    }
    Ok((rest, (packet_type, prefixes)))
}

/// Parses tracks, with multitrack or without, to the end of the tag.
pub(super) fn tracks<'a, T: Coded<'a>>(
    input: &'a [u8],
    packet_type: u8,
) -> Result<Tracks<T>, BodyError> {
    if packet_type != T::MULTITRACK {
        let (body, code) = four_cc(input)?;
        return T::parse(code, packet_type, body).map(Tracks::Unwrapped);
    }
    let (rest, kinds) = be_u8::<_, ()>(input)?;
    let (kind, packet_type) = (kinds >> 4, kinds & 0x0F);
    if packet_type == T::MULTITRACK || packet_type == PACKET_MOD_EX {
        return Err(BodyError::Nested(packet_type));
    }
    match kind {
        multitrack::ONE_TRACK => {
            let (rest, code) = four_cc(rest)?;
            let (body, id) = be_u8::<_, ()>(rest)?;
            T::parse(code, packet_type, body).map(|track| Tracks::OneTrack(id, track))
        }
        multitrack::MANY_TRACKS => {
            let (rest, code) = four_cc(rest)?;
            many(rest, Some(code), packet_type).map(Tracks::ManyTracks)
        }
        multitrack::MANY_TRACKS_MANY_CODECS => {
            many(rest, None, packet_type).map(Tracks::ManyTracksManyCodecs)
        }
        unknown => Err(BodyError::UnknownMultitrack(unknown)),
    }
}

fn many<'a, T: Coded<'a>>(
    input: &'a [u8],
    common: Option<[u8; 4]>,
    packet_type: u8,
) -> Result<Vec<(u8, T)>, BodyError> {
    let mut tracks = Vec::new();
    let mut rest = input;
    while !rest.is_empty() {
        if tracks.len() == MAX_TRACKS {
            return Err(BodyError::TooManyTracks);
        }
        let (after, code) = match common {
            Some(code) => (rest, code),
            None => four_cc(rest)?,
        };
        let (after, id) = be_u8::<_, ()>(after)?;
        let (after, size) = be_u24::<_, ()>(after)?;
        let (after, body) = take::<_, _, ()>(size)(after)?;
        // A packet that is empty or cut short harms no other track.
        let track = T::parse(code, packet_type, body);
        let track = track.unwrap_or_else(|_| T::unknown(code, packet_type, body));
        tracks.push((id, track));
        rest = after;
    }
    if tracks.is_empty() {
        return Err(BodyError::Truncated);
    }
    Ok(tracks)
}

fn four_cc(input: &[u8]) -> Step<'_, [u8; 4]> {
    let (code, rest) = input.split_first_chunk().ok_or(BodyError::Truncated)?;
    Ok((rest, *code))
}

/// Writes the first byte, whose upper half is `upper`, and prefixes. `packet_type` ends the chain.
pub(super) fn write_front(
    out: &mut impl BufMut,
    upper: u8,
    prefixes: &[ModEx<'_>],
    packet_type: u8,
) {
    let first = if prefixes.is_empty() {
        packet_type
    } else {
        PACKET_MOD_EX
    };
    out.put_u8(upper | first);
    for (index, prefix) in prefixes.iter().enumerate() {
        let size = prefix.data.len().saturating_sub(1);
        if size < 0xFF {
            out.put_u8(size as u8);
        } else {
            out.put_u8(0xFF);
            out.put_u16(size as u16);
        }
        out.put_slice(prefix.data);
        let next = if index + 1 == prefixes.len() {
            packet_type
        } else {
            PACKET_MOD_EX
        };
        out.put_u8(prefix.kind << 4 | next);
    }
}

/// Returns the packet type in the ex-header of these tracks.
pub(super) fn outer_packet_type<'a, T: Coded<'a>>(tracks: &Tracks<T>) -> u8 {
    match tracks {
        Tracks::Unwrapped(track) => track.packet_type(),
        _ => T::MULTITRACK,
    }
}

pub(super) fn write_tracks<'a, T: Coded<'a>>(out: &mut impl BufMut, tracks: &Tracks<T>) {
    let front = |out: &mut dyn BufMut, kind: u8, track: Option<&T>| {
        let packet_type = track.map_or(0, Coded::packet_type);
        out.put_u8(kind << 4 | packet_type);
    };
    match tracks {
        Tracks::Unwrapped(track) => {
            out.put_slice(&track.four_cc());
            track.write_body(out);
        }
        Tracks::OneTrack(id, track) => {
            front(out, multitrack::ONE_TRACK, Some(track));
            out.put_slice(&track.four_cc());
            out.put_u8(*id);
            track.write_body(out);
        }
        Tracks::ManyTracks(tracks) => {
            let first = tracks.first().map(|(_, track)| track);
            front(out, multitrack::MANY_TRACKS, first);
            out.put_slice(&first.map_or([0; 4], Coded::four_cc));
            for (id, track) in tracks {
                write_sized(out, *id, track);
            }
        }
        Tracks::ManyTracksManyCodecs(tracks) => {
            let first = tracks.first().map(|(_, track)| track);
            front(out, multitrack::MANY_TRACKS_MANY_CODECS, first);
            for (id, track) in tracks {
                out.put_slice(&track.four_cc());
                write_sized(out, *id, track);
            }
        }
    }
}

fn write_sized<'a, T: Coded<'a>>(out: &mut impl BufMut, id: u8, track: &T) {
    let mut body = Vec::new();
    track.write_body(&mut body);
    out.put_u8(id);
    put_u24(out, body.len() as u32);
    out.put_slice(&body);
}
