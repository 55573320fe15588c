// SPDX-License-Identifier: MPL-2.0

//! Decoder configurations, parsed as far as a receiver needs them to announce a stream.
//!
//! A configuration that no decoder accepts is `None`. The description of the picture is optional.

mod aac;
mod ac3;
mod av1;
mod avc;
pub(super) mod bits;
mod dimensions;
mod flac;
mod hevc;
mod mp3;
mod opus;
mod profile;
mod repair;
mod vpx;

pub use aac::{AdtsHeader, AudioSpecificConfig};
pub(super) use aac::{Element, frame_elements};
pub use ac3::Ac3Header;
pub use av1::Av1Config;
pub(super) use av1::obus;
pub use avc::AvcConfig;
pub use dimensions::Dimensions;
pub use flac::{FlacConfig, STREAM_INFO_LENGTH};
pub use hevc::HevcConfig;
pub use mp3::Mp3Header;
pub use opus::OpusHead;
pub(super) use repair::PrefixedNals;
pub use repair::{
    NalCodec, frame_of_annexb, frame_with_long_lengths, is_annexb, is_odd_length_size,
    may_be_annexb, record_of_frame, record_with_long_lengths, repaired_record,
};
pub use vpx::VpxConfig;

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

#[cfg(test)]
mod tests;
