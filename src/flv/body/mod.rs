// SPDX-License-Identifier: MPL-2.0

//! Parser and writer of whole tag bodies.
//!
//! Where [`super::TagInfo`] is only the header, these types hold everything in a tag body, legacy
//! and enhanced; payloads are slices of the tag. A value that is written and parsed again is the
//! same value. No input panics or takes more than a small multiple of its size.

mod audio;
mod color;
mod ex;
mod metadata;
mod script;
mod video;

pub use audio::{
    AudioBody, AudioPacket, AudioTrack, ChannelOrder, ExAudio, MultichannelConfig, Sound,
};
pub use color::{ColorConfig, ColorInfo, ContentLight, DisplayPrimaries, MasteringDisplay};
pub use ex::{ModEx, Tracks};
pub use metadata::Metadata;
pub use script::Script;
pub use video::{ExVideo, ExVideoContent, VideoBody, VideoPacket, VideoTrack};

use crate::amf0;

/// Most ModEx prefixes in one tag. There is one kind today; a chain of prefixes of three bytes
/// would cost eight times its size.
pub const MAX_MOD_EX: usize = 16;

/// Most tracks in one tag: the number of track ids.
pub const MAX_TRACKS: usize = 256;

/// Most AMF properties in a script tag, unless it is so long that all could be numbers: recorders
/// put an index of all keyframes into `onMetaData`.
pub const MAX_SCRIPT_PROPERTIES: usize = 100_000;

/// The reason why bytes are no tag body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("tag body is empty")]
    Empty,
    #[error("tag body is cut short")]
    Truncated,
    #[error("multitrack type {0} is unknown")]
    UnknownMultitrack(u8),
    #[error("packet type {0} within a track")]
    Nested(u8),
    #[error("over {MAX_MOD_EX} ModEx prefixes")]
    TooManyModEx,
    #[error("over {MAX_TRACKS} tracks in a tag")]
    TooManyTracks,
    #[error("script data has no name")]
    NoName,
    #[error("{0}")]
    Amf(#[from] amf0::Error),
}

impl From<nom::Err<()>> for BodyError {
    /// Bodies are complete, so the only possible error is their end.
    fn from(_: nom::Err<()>) -> Self {
        BodyError::Truncated
    }
}

/// Writes the lower 24 bits of a number.
fn put_u24(out: &mut impl bytes::BufMut, number: u32) {
    out.put_slice(&number.to_be_bytes()[1..]);
}

#[cfg(test)]
mod tests;
