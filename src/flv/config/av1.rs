// SPDX-License-Identifier: MPL-2.0

use super::Dimensions;
use super::bits::Bits;

const OBU_SEQUENCE_HEADER: u8 = 1;

/// The tag and length of an AV1 video descriptor ("Carriage of AV1 in MPEG-2 TS", 2.1).
const DESCRIPTOR_FRONT: [u8; 2] = [0x80, 4];

/// `AV1CodecConfigurationRecord`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Av1Config {
    pub profile: u8,
    pub bit_depth: u8,
    pub is_monochrome: bool,
    /// Chroma has as many samples as luma.
    pub is_full_chroma: bool,
    pub dimensions: Option<Dimensions>,
}

impl Av1Config {
    pub fn parse(record: &[u8]) -> Option<Self> {
        // A marker bit and version 1.
        let &[0x81, profile, flags, _, ref obus @ ..] = record else {
            return None;
        };
        let bit_depth = match (flags & 0x40 != 0, flags & 0x20 != 0) {
            (false, _) => 8,
            (true, false) => 10,
            (true, true) => 12,
        };
        Some(Av1Config {
            profile: profile >> 5,
            bit_depth,
            is_monochrome: flags & 0x10 != 0,
            is_full_chroma: flags & 0x1C == 0,
            dimensions: sequence_header(obus).and_then(picture),
        })
    }

    /// Converts a video descriptor of MPEG-2 TS to the record with the same contents.
    pub fn record_of_descriptor(descriptor: &[u8]) -> Option<[u8; 4]> {
        let (front, rest) = descriptor.split_first_chunk::<2>()?;
        let &[marker, profile, flags, delay, ..] = rest else {
            return None;
        };
        // The other bits in the byte of the delay belong to MPEG-2 TS alone.
        (*front == DESCRIPTOR_FRONT).then_some([marker, profile, flags, delay & 0x1F])
    }
}

/// Returns the types and payloads of OBUs, up to the first malformed one.
pub(in crate::flv) fn obus(data: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let (&header, after) = rest.split_first()?;
        let extension = usize::from(header & 4 != 0);
        let after = after.get(extension..)?;
        let (length, after) = if header & 2 != 0 {
            leb128(after)?
        } else {
            (after.len(), after)
        };
        let (payload, after) = after.split_at_checked(length)?;
        rest = after;
        Some((header >> 3 & 0x0F, payload))
    })
}

/// Returns the payload of the first sequence header among whole OBUs.
fn sequence_header(data: &[u8]) -> Option<&[u8]> {
    let mut headers = obus(data).filter(|(kind, _)| *kind == OBU_SEQUENCE_HEADER);
    headers.next().map(|(_, payload)| payload)
}

fn leb128(input: &[u8]) -> Option<(usize, &[u8])> {
    let mut number = 0;
    for (index, &byte) in input.iter().enumerate().take(4) {
        number |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((number, &input[index + 1..]));
        }
    }
    None
}

/// Parses a `sequence_header_obu` (AV1, 5.5.1) up to the largest frame.
fn picture(header: &[u8]) -> Option<Dimensions> {
    let mut bits = Bits::new(header);
    bits.skip(3 + 1)?;
    if bits.bit()? {
        // A reduced still picture header.
        bits.skip(5)?;
    } else {
        let mut delay_length = None;
        if bits.bit()? {
            bits.skip(64)?;
            if bits.bit()? {
                uvlc(&mut bits)?;
            }
            if bits.bit()? {
                delay_length = Some(bits.bits(5)? + 1);
                bits.skip(32 + 5 + 5)?;
            }
        }
        let has_initial_delay = bits.bit()?;
        for _ in 0..=bits.bits(5)? {
            bits.skip(12)?;
            if bits.bits(5)? > 7 {
                bits.bit()?;
            }
            if let Some(length) = delay_length
                && bits.bit()?
            {
                bits.skip(2 * length as usize + 1)?;
            }
            if has_initial_delay && bits.bit()? {
                bits.skip(4)?;
            }
        }
    }
    let width_bits = bits.bits(4)? + 1;
    let height_bits = bits.bits(4)? + 1;
    Dimensions::new(bits.bits(width_bits)? + 1, bits.bits(height_bits)? + 1)
}

fn uvlc(bits: &mut Bits<'_>) -> Option<()> {
    let mut zeros = 0;
    while !bits.bit()? {
        zeros += 1;
    }
    if zeros < 32 {
        bits.skip(zeros)?;
    }
    Some(())
}
