// SPDX-License-Identifier: MPL-2.0

const RATES: [u32; 3] = [44100, 48000, 32000];

/// The header of an MPEG audio frame (ISO/IEC 11172-3, 2.4.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mp3Header {
    pub layer: u8,
    pub rate: u32,
    pub channels: u8,
}

impl Mp3Header {
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let &[0xFF, second, third, fourth, ..] = frame else {
            return None;
        };
        let layer = 4 - (second >> 1 & 3);
        // MPEG 2.5, 2 and 1.
        let divisor = match second >> 3 & 3 {
            0 => 4,
            2 => 2,
            3 => 1,
            _ => return None,
        };
        if second & 0xE0 != 0xE0 || layer == 4 {
            return None;
        }
        Some(Mp3Header {
            layer,
            rate: RATES.get(usize::from(third >> 2 & 3))? / divisor,
            channels: if fourth >> 6 == 3 { 1 } else { 2 },
        })
    }
}
