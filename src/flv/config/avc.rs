// SPDX-License-Identifier: MPL-2.0

use super::bits::{Bits, sized, unescape};
use super::dimensions::Dimensions;

const NAL_SPS: u8 = 7;
const NAL_PPS: u8 = 8;

/// `AVCDecoderConfigurationRecord` (ISO/IEC 14496-15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AvcConfig {
    pub profile: u8,
    pub constraints: u8,
    pub level: u8,
    pub nal_length_size: u8,
    pub has_parameter_sets: bool,
    pub dimensions: Option<Dimensions>,
    /// Length of half a frame, in units of a time scale.
    timing: Option<Timing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Timing {
    units: u32,
    scale: u32,
}

/// The part of a sequence parameter set that describes the picture.
#[derive(Debug, Default)]
struct Picture {
    dimensions: Option<Dimensions>,
    timing: Option<Timing>,
}

impl AvcConfig {
    /// Parses a record. Each parameter set in it must be of its announced type.
    pub fn parse(record: &[u8]) -> Option<Self> {
        let &[
            1,
            profile,
            constraints,
            level,
            length,
            sps_count,
            ref rest @ ..,
        ] = record
        else {
            return None;
        };
        let mut rest = rest;
        let mut first = Picture::default();
        let sps_count = sps_count & 0x1F;
        for index in 0..sps_count {
            let sps = sized(&mut rest)?;
            if sps.first()? & 0x1F != NAL_SPS || sps.len() < 4 {
                return None;
            }
            if index == 0 {
                first = picture(&sps[1..]).unwrap_or_default();
            }
        }
        let (&pps_count, mut rest) = rest.split_first()?;
        for _ in 0..pps_count {
            let pps = sized(&mut rest)?;
            if pps.first()? & 0x1F != NAL_PPS {
                return None;
            }
        }
        Some(AvcConfig {
            profile,
            constraints,
            level,
            nal_length_size: (length & 3) + 1,
            has_parameter_sets: sps_count > 0 && pps_count > 0,
            dimensions: first.dimensions,
            timing: first.timing,
        })
    }

    /// Returns the frames per second that the parameter set states. Many encoders leave them out.
    pub fn frame_rate(&self) -> Option<f64> {
        let Timing { units, scale } = self.timing?;
        let rate = f64::from(scale) / (2.0 * f64::from(units));
        (units > 0 && (0.1..=1000.0).contains(&rate)).then_some(rate)
    }
}

/// Parses `seq_parameter_set_data` (H.264, 7.3.2.1.1) up to the timing.
fn picture(sps: &[u8]) -> Option<Picture> {
    let bytes = unescape(sps);
    let mut bits = Bits::new(&bytes);
    let dimensions = dimensions(&mut bits)?;
    Some(Picture {
        dimensions,
        timing: timing(&mut bits),
    })
}

/// Parses the timing in the usability information (H.264, E.1.1).
fn timing(bits: &mut Bits<'_>) -> Option<Timing> {
    const EXTENDED_ASPECT_RATIO: u32 = 255;
    if !bits.bit()? {
        return None;
    }
    if bits.bit()? && bits.bits(8)? == EXTENDED_ASPECT_RATIO {
        bits.skip(32)?;
    }
    if bits.bit()? {
        bits.skip(1)?;
    }
    if bits.bit()? {
        bits.skip(4)?;
        if bits.bit()? {
            bits.skip(24)?;
        }
    }
    if bits.bit()? {
        bits.ue()?;
        bits.ue()?;
    }
    if !bits.bit()? {
        return None;
    }
    Some(Timing {
        units: bits.bits(32)?,
        scale: bits.bits(32)?,
    })
}

/// Parses the parameter set up to the cropping.
fn dimensions(bits: &mut Bits<'_>) -> Option<Option<Dimensions>> {
    let profile = bits.bits(8)?;
    bits.skip(16)?;
    bits.ue()?;
    let mut chroma_format = 1;
    if [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135].contains(&profile) {
        chroma_format = bits.ue()?;
        if chroma_format == 3 && bits.bit()? {
            // Separately coded planes have no common chroma unit.
            chroma_format = 0;
        }
        bits.ue()?;
        bits.ue()?;
        bits.bit()?;
        if bits.bit()? {
            let lists = if chroma_format == 3 { 12 } else { 8 };
            for index in 0..lists {
                if bits.bit()? {
                    scaling_list(bits, if index < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.ue()?;
    match bits.ue()? {
        0 => {
            bits.ue()?;
        }
        1 => {
            bits.bit()?;
            bits.se()?;
            bits.se()?;
            let count = bits.ue()?;
            if count > 255 {
                return None;
            }
            for _ in 0..count {
                bits.se()?;
            }
        }
        _ => {}
    }
    bits.ue()?;
    bits.bit()?;
    let width = bits.ue()?.checked_add(1)?.checked_mul(16)?;
    let height_units = bits.ue()?.checked_add(1)?;
    let frames_only = bits.bit()?;
    let fields = if frames_only { 1 } else { 2 };
    let height = height_units.checked_mul(16 * fields)?;
    if !frames_only {
        bits.bit()?;
    }
    bits.bit()?;
    if !bits.bit()? {
        return Some(Dimensions::new(width, height));
    }
    let (unit_x, unit_y) = match chroma_format {
        1 => (2, 2),
        2 => (2, 1),
        _ => (1, 1),
    };
    let mut crop = || bits.ue();
    let (left, right, top, bottom) = (crop()?, crop()?, crop()?, crop()?);
    let cropped = |length: u32, before: u32, after: u32, unit: u32| {
        length.checked_sub(before.checked_add(after)?.checked_mul(unit)?)
    };
    let size =
        cropped(width, left, right, unit_x).zip(cropped(height, top, bottom, unit_y * fields));
    Some(size.and_then(|(width, height)| Dimensions::new(width, height)))
}

fn scaling_list(bits: &mut Bits<'_>, size: u32) -> Option<()> {
    let (mut last, mut next) = (8_i64, 8_i64);
    for _ in 0..size {
        if next != 0 {
            next = (last + bits.se()?).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Some(())
}
