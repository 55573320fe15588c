// SPDX-License-Identifier: MPL-2.0

use super::bits::Bits;

const RATES: [u32; 3] = [48000, 44100, 32000];
const CHANNELS: [u8; 8] = [2, 1, 2, 3, 3, 4, 4, 5];

/// The header of an AC-3 or E-AC-3 frame: these codecs have no configuration (ATSC A/52).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ac3Header {
    pub rate: u32,
    pub channels: u8,
}

impl Ac3Header {
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let rest = frame.strip_prefix(&[0x0B, 0x77])?;
        let version = rest.get(3)? >> 3;
        if version > 10 {
            return enhanced(rest);
        }
        let mut bits = Bits::new(rest);
        bits.skip(16)?;
        let rate = RATES.get(bits.bits(2)? as usize).copied()?;
        bits.skip(6 + 5 + 3)?;
        let mode = bits.bits(3)?;
        // Mix levels, where there is something to mix.
        if mode & 1 != 0 && mode != 1 {
            bits.skip(2)?;
        }
        if mode & 4 != 0 {
            bits.skip(2)?;
        }
        if mode == 2 {
            bits.skip(2)?;
        }
        let channels = CHANNELS[mode as usize] + u8::from(bits.bit()?);
        Some(Ac3Header { rate, channels })
    }
}

fn enhanced(frame: &[u8]) -> Option<Ac3Header> {
    let mut bits = Bits::new(frame);
    // A dependent frame only adds channels to the one before, and does not describe the stream.
    const DEPENDENT: u32 = 1;
    if bits.bits(2)? == DEPENDENT {
        return None;
    }
    bits.skip(3 + 11)?;
    let rate = match bits.bits(2)? {
        3 => RATES.get(bits.bits(2)? as usize)? / 2,
        code => {
            bits.skip(2)?;
            RATES[code as usize]
        }
    };
    let mode = bits.bits(3)?;
    let channels = CHANNELS[mode as usize] + u8::from(bits.bit()?);
    Some(Ac3Header { rate, channels })
}
