// SPDX-License-Identifier: MPL-2.0

//! FLV: the file format and tag bodies.
//!
//! Adobe, "Video File Format Specification", version 10.1, annex E, and Veovera, "Enhanced RTMP",
//! versions 1 and 2. [`TagInfo`] is the header of a tag, for code that sends tags on; [`body`] reads
//! and writes whole tag bodies, and [`config`] decoder configurations.
//!
//! This module knows neither GStreamer nor sockets, threads or the time.

mod audio;
pub mod body;
pub mod codec;
pub mod codes;
pub mod config;
mod ex;
mod info;
mod picture;
mod tag;
mod video;

pub use info::{Content, TagInfo};
pub use picture::{KeyframeDetector, Picture, PictureCodec};
pub use tag::{FILE_HEADER, FRONT_LENGTH, MAX_BODY_LENGTH, TRAILER_LENGTH, Tag, TagKind};

/// The reason why a tag body can't be sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("tag body is empty")]
    Empty,
    #[error("tag body is cut short")]
    Truncated,
    #[error("decoder configuration is empty")]
    EmptyConfiguration,
    #[error("tag body is longer than {MAX_BODY_LENGTH} bytes")]
    TooLong,
}

#[cfg(test)]
mod tests;
