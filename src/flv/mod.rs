// SPDX-License-Identifier: MPL-2.0

//! FLV: the file format and tag bodies.
//!
//! Adobe, "Video File Format Specification", version 10.1, annex E, and Veovera, "Enhanced RTMP",
//! versions 1 and 2. [`TagInfo`] is the header of a tag, for code that sends tags on; [`body`]
//! reads and writes whole tag bodies, and [`config`] decoder configurations.
//!
//! This module knows neither GStreamer nor sockets, threads or the time.

mod audio;
pub mod body;
pub mod codec;
pub mod codes;
pub mod config;
pub mod description;
mod error;
mod ex;
mod header;
mod info;
mod kind;
mod picture;
mod silence;
mod tag;
pub mod time_of_day;
mod tracks;
mod video;

pub use error::{Error, MAX_BODY_LENGTH};
pub use info::{Content, TagInfo};
pub use kind::TagKind;
pub use picture::{CodedPicture, KeyframeDetector, KeyframeFlags, Picture, PictureCodec};
pub use silence::Silence;
pub use tag::{FILE_HEADER, FRONT_LENGTH, TRAILER_LENGTH, Tag};
pub use tracks::{TrackSet, lowest as lowest_track, split as split_tracks};
pub use video::shift_composition_time;

#[cfg(test)]
mod tests;
