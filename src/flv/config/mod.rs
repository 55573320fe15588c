// SPDX-License-Identifier: MPL-2.0

//! Decoder configurations, parsed as far as a receiver needs them to announce a stream.
//!
//! A configuration that no decoder accepts is `None`. The description of the picture is optional.

mod aac;
mod ac3;
mod av1;
mod avc;
pub(super) mod bits;
mod flac;
mod hevc;
mod mp3;
mod opus;
mod repair;
mod vpx;

pub use aac::{AdtsHeader, AudioSpecificConfig};
pub use ac3::Ac3Header;
pub use av1::Av1Config;
pub(super) use av1::obus;
pub use avc::AvcConfig;
pub use flac::{FlacConfig, STREAM_INFO_LENGTH};
pub use hevc::HevcConfig;
pub use mp3::Mp3Header;
pub use opus::OpusHead;
pub use repair::{NalCodec, frame_of_annexb, record_of_frame, repaired_record};
pub use vpx::VpxConfig;

/// The size of the displayed picture in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimensions {
    pub width: u32,
    pub height: u32,
}

impl Dimensions {
    /// No decoder accepts a larger picture.
    const MAX: u32 = 1 << 16;

    fn new(width: u32, height: u32) -> Option<Self> {
        let sane = |length| (1..=Dimensions::MAX).contains(&length);
        (sane(width) && sane(height)).then_some(Dimensions { width, height })
    }
}

/// Returns true if an AVC configuration is really an HEVC configuration: old encoders had no other
/// codec id for it.
pub fn is_hevc_in_disguise(record: &[u8]) -> bool {
    !AvcConfig::parse(record).is_some_and(|config| config.has_parameter_sets)
        && HevcConfig::parse(record).is_some_and(|config| config.has_parameter_sets)
}

/// Returns the size of the length fields before NAL units, if the record is one.
pub(super) fn nal_length_size(record: &[u8], is_hevc: bool) -> Option<u8> {
    if is_hevc {
        HevcConfig::parse(record).map(|config| config.nal_length_size)
    } else {
        AvcConfig::parse(record).map(|config| config.nal_length_size)
    }
}

/// Reads a 16-bit length and as many bytes.
fn sized<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let (nal, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    *rest = after;
    Some(nal)
}

#[cfg(test)]
mod tests;
