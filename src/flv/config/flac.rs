// SPDX-License-Identifier: MPL-2.0

use super::bits::Bits;

pub const STREAM_INFO_LENGTH: usize = 34;

/// The `STREAMINFO` of FLAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlacConfig {
    pub stream_info: [u8; STREAM_INFO_LENGTH],
    pub rate: u32,
    pub channels: u8,
    pub bits: u8,
}

impl FlacConfig {
    /// Parses a `STREAMINFO` with the signature and the block header before it as specified, with
    /// the block header alone, or bare as ffmpeg 9 writes it. Blocks after it are ignored.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let stream_info = match header {
            [b'f', b'L', b'a', b'C', kind, 0, 0, 34, rest @ ..] if kind & 0x7F == 0 => rest,
            [kind, 0, 0, 34, rest @ ..] if kind & 0x7F == 0 && rest.len() >= STREAM_INFO_LENGTH => {
                rest
            }
            bare => bare,
        };
        let stream_info: [u8; STREAM_INFO_LENGTH] =
            stream_info.get(..STREAM_INFO_LENGTH)?.try_into().ok()?;
        let mut bits = Bits::new(&stream_info[10..]);
        let rate = bits.bits(20)?;
        let channels = bits.bits(3)? + 1;
        let depth = bits.bits(5)? + 1;
        (rate > 0 && depth >= 4).then_some(FlacConfig {
            stream_info,
            rate,
            channels: channels as u8,
            bits: depth as u8,
        })
    }
}
