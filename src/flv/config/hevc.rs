// SPDX-License-Identifier: MPL-2.0

use super::bits::{Bits, sized, unescape};
use super::dimensions::Dimensions;

const NAL_VPS: u8 = 32;
const NAL_SPS: u8 = 33;
const NAL_PPS: u8 = 34;

/// `HEVCDecoderConfigurationRecord` (ISO/IEC 14496-15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HevcConfig {
    pub profile: u8,
    pub is_high_tier: bool,
    pub level: u8,
    pub bit_depth: u8,
    pub nal_length_size: u8,
    pub has_parameter_sets: bool,
    pub dimensions: Option<Dimensions>,
}

impl HevcConfig {
    /// Parses a record. Each parameter set in it must be of its announced type.
    pub fn parse(record: &[u8]) -> Option<Self> {
        let (fixed, arrays) = record.split_first_chunk::<23>()?;
        // A draft had version 0.
        if fixed[0] > 1 {
            return None;
        }
        let mut rest = arrays;
        let mut dimensions = None;
        let (mut has_sps, mut has_pps) = (false, false);
        for _ in 0..fixed[22] {
            let &[kind, high, low, ref after @ ..] = rest else {
                return None;
            };
            rest = after;
            let kind = kind & 0x3F;
            for _ in 0..u16::from_be_bytes([high, low]) {
                let nal = sized(&mut rest)?;
                if matches!(kind, NAL_VPS..=NAL_PPS) && nal.first()? >> 1 & 0x3F != kind {
                    return None;
                }
                has_pps |= kind == NAL_PPS;
                if kind == NAL_SPS && !has_sps {
                    has_sps = true;
                    dimensions = HevcSps::parse(nal.get(2..)?).and_then(|sps| sps.dimensions);
                }
            }
        }
        Some(HevcConfig {
            profile: fixed[1] & 0x1F,
            is_high_tier: fixed[1] & 0x20 != 0,
            level: fixed[12],
            bit_depth: (fixed[17] & 7) + 8,
            nal_length_size: (fixed[21] & 3) + 1,
            has_parameter_sets: has_sps && has_pps,
            dimensions,
        })
    }
}

/// `seq_parameter_set_rbsp` (H.265, 7.3.2.2.1) up to the bit depths.
#[derive(Debug, Clone, Copy)]
pub(super) struct HevcSps {
    /// Profile space, tier, profile, compatibility, constraints and level, as in a record.
    pub(super) profile_tier_level: [u8; 12],
    pub(super) temporal_layers: u8,
    pub(super) is_temporal_nested: bool,
    pub(super) chroma_format: u8,
    pub(super) bit_depth_luma: u8,
    pub(super) bit_depth_chroma: u8,
    dimensions: Option<Dimensions>,
}

impl HevcSps {
    /// Parses the payload of the NAL unit.
    pub(super) fn parse(sps: &[u8]) -> Option<Self> {
        let bytes = unescape(sps);
        let (&first, rest) = bytes.split_first()?;
        let profile_tier_level = *rest.first_chunk()?;
        let mut bits = Bits::new(&bytes);
        bits.skip(8)?;
        let sub_layers = u32::from(first >> 1 & 7);
        self::profile_tier_level(&mut bits, sub_layers)?;
        bits.ue()?;
        let chroma_format = u8::try_from(bits.ue()?)
            .ok()
            .filter(|&chroma| chroma <= 3)?;
        if chroma_format == 3 {
            bits.bit()?;
        }
        let dimensions = dimensions(&mut bits, chroma_format)?;
        let mut bit_depth = || {
            let depth = u8::try_from(bits.ue()?).ok()?;
            (depth <= 7).then(|| depth + 8)
        };
        Some(HevcSps {
            profile_tier_level,
            temporal_layers: sub_layers as u8 + 1,
            is_temporal_nested: first & 1 != 0,
            chroma_format,
            bit_depth_luma: bit_depth()?,
            bit_depth_chroma: bit_depth()?,
            dimensions,
        })
    }
}

/// The size of the picture within the conformance window.
fn dimensions(bits: &mut Bits<'_>, chroma_format: u8) -> Option<Option<Dimensions>> {
    let (width, height) = (bits.ue()?, bits.ue()?);
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
    let size = cropped(width, left, right, unit_x).zip(cropped(height, top, bottom, unit_y));
    Some(size.and_then(|(width, height)| Dimensions::new(width, height)))
}

fn profile_tier_level(bits: &mut Bits<'_>, sub_layers: u32) -> Option<()> {
    bits.skip(88 + 8)?;
    let mut present = Vec::new();
    for _ in 0..sub_layers {
        present.push((bits.bit()?, bits.bit()?));
    }
    if sub_layers > 0 {
        bits.skip(2 * (8 - sub_layers as usize))?;
    }
    for (profile, level) in present {
        bits.skip(if profile { 88 } else { 0 })?;
        bits.skip(if level { 8 } else { 0 })?;
    }
    Some(())
}
