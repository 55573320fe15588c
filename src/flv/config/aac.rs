// SPDX-License-Identifier: MPL-2.0

use super::bits::Bits;

/// ISO/IEC 14496-3, table 1.18.
const RATES: [u32; 13] = [
    96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350,
];

/// `AudioSpecificConfig` (ISO/IEC 14496-3, 1.6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioSpecificConfig {
    pub object_type: u8,
    /// Sampling rate of the core in Hz. With spectral band replication the output has twice that.
    pub rate: u32,
    pub channels: u8,
}

impl AudioSpecificConfig {
    pub fn parse(config: &[u8]) -> Option<Self> {
        let mut bits = Bits::new(config);
        let (object_type, rate, configuration) = core(&mut bits)?;
        let channels = match configuration {
            0 => program_channels(&mut bits)?,
            1..=6 => configuration,
            7 | 12 | 14 => 8,
            11 => 7,
            _ => return None,
        };
        Some(AudioSpecificConfig {
            object_type,
            rate,
            channels: u8::try_from(channels)
                .ok()
                .filter(|&channels| channels > 0)?,
        })
    }
}

/// Parses up to the channel configuration and the extension: object type and rate of the core, and the
/// channel configuration.
fn core(bits: &mut Bits<'_>) -> Option<(u8, u32, u32)> {
    let mut object_type = object_type(bits)?;
    let rate = rate(bits)?;
    let configuration = bits.bits(4)?;
    // Explicit signalling of an extension of the core.
    if object_type == 5 || object_type == 29 {
        self::rate(bits)?;
        object_type = self::object_type(bits)?;
    }
    Some((object_type, rate, configuration))
}

fn object_type(bits: &mut Bits<'_>) -> Option<u8> {
    let short = bits.bits(5)?;
    let number = match short {
        31 => 32 + bits.bits(6)?,
        _ => short,
    };
    u8::try_from(number).ok().filter(|&number| number > 0)
}

fn rate(bits: &mut Bits<'_>) -> Option<u32> {
    match bits.bits(4)? {
        15 => bits.bits(24).filter(|&rate| rate > 0),
        index => RATES.get(index as usize).copied(),
    }
}

/// A syntactic element of each frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::flv) enum Element {
    Single,
    Pair,
    LowFrequency,
}

/// Elements with their tags.
type Elements = Vec<(Element, u32)>;

/// Counts the channels in the program config element of a `GASpecificConfig`.
fn program_channels(bits: &mut Bits<'_>) -> Option<u32> {
    frame_is_short(bits)?;
    let (elements, low_frequency) = program_elements(bits)?;
    let pairs = elements
        .iter()
        .filter(|(element, _)| *element == Element::Pair);
    Some((elements.len() + pairs.count()) as u32 + low_frequency)
}

/// Parses the start of a `GASpecificConfig`, which has true for frames of 960 samples.
fn frame_is_short(bits: &mut Bits<'_>) -> Option<bool> {
    let is_short = bits.bit()?;
    if bits.bit()? {
        bits.skip(14)?;
    }
    bits.bit()?;
    Some(is_short)
}

/// Returns the elements of a program config element up to those of low frequencies, and the number of
/// these, which follow.
fn program_elements(bits: &mut Bits<'_>) -> Option<(Elements, u32)> {
    bits.skip(4 + 2 + 4)?;
    let full = bits.bits(4)? + bits.bits(4)? + bits.bits(4)?;
    let low_frequency = bits.bits(2)?;
    bits.skip(3 + 4)?;
    for length in [4, 4, 3] {
        if bits.bit()? {
            bits.skip(length)?;
        }
    }
    let mut elements = Vec::new();
    for _ in 0..full {
        let element = match bits.bit()? {
            true => Element::Pair,
            false => Element::Single,
        };
        elements.push((element, bits.bits(4)?));
    }
    Some((elements, low_frequency))
}

/// Returns the elements of each frame with their tags, and true for frames of 960 samples.
pub(in crate::flv) fn frame_elements(config: &[u8]) -> Option<(Elements, bool)> {
    let mut bits = Bits::new(config);
    let (_, _, configuration) = core(&mut bits)?;
    let is_short = frame_is_short(&mut bits)?;
    use Element::{LowFrequency as Lfe, Pair, Single};
    let elements: &[(Element, u32)] = match configuration {
        0 => {
            let (mut elements, low_frequency) = program_elements(&mut bits)?;
            for _ in 0..low_frequency {
                elements.push((Lfe, bits.bits(4)?));
            }
            return Some((elements, is_short));
        }
        1 => &[(Single, 0)],
        2 => &[(Pair, 0)],
        3 => &[(Single, 0), (Pair, 0)],
        4 => &[(Single, 0), (Pair, 0), (Single, 1)],
        5 => &[(Single, 0), (Pair, 0), (Pair, 1)],
        6 => &[(Single, 0), (Pair, 0), (Pair, 1), (Lfe, 0)],
        7 | 12 => &[(Single, 0), (Pair, 0), (Pair, 1), (Pair, 2), (Lfe, 0)],
        11 => &[(Single, 0), (Pair, 0), (Pair, 1), (Single, 1), (Lfe, 0)],
        14 => &[(Single, 0), (Pair, 0), (Pair, 1), (Lfe, 0), (Pair, 2)],
        _ => return None,
    };
    Some((elements.to_vec(), is_short))
}

/// The header of an ADTS frame. Some encoders know no other AAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdtsHeader {
    /// The equivalent configuration.
    pub config: [u8; 2],
    pub length: usize,
}

impl AdtsHeader {
    /// Parses the header of an ADTS frame that fills `frame`. No raw AAC starts like one: its first
    /// three bits would be the end of the frame.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let &[0xFF, second, third, fourth, fifth, sixth, _, ..] = frame else {
            return None;
        };
        let length =
            usize::from(fourth & 3) << 11 | usize::from(fifth) << 3 | usize::from(sixth >> 5);
        if second & 0xF6 != 0xF0 || length != frame.len() {
            return None;
        }
        let header = if second & 1 == 0 { 9 } else { 7 };
        let (object_type, rate) = ((third >> 6) + 1, third >> 2 & 0x0F);
        let channels = (third & 1) << 2 | fourth >> 6;
        let config = [
            object_type << 3 | rate >> 1,
            (rate & 1) << 7 | channels << 3,
        ];
        AudioSpecificConfig::parse(&config)?;
        (frame.len() > header).then_some(AdtsHeader {
            config,
            length: header,
        })
    }
}
