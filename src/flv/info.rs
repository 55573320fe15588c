// SPDX-License-Identifier: MPL-2.0

//! The header of a tag body, in the terms of the stream.

/// The role of a tag in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// The decoder configuration of a track.
    SequenceHeader,
    /// Properties of a track apart from its configuration: colour metadata, channel layout.
    TrackMetadata,
    /// The script data `onMetaData`.
    OnMetaData,
    /// Video that can be decoded without the frames before it.
    Keyframe,
    /// Audio, or video that refers to frames before it.
    Frame,
    EndOfSequence,
    /// Other script data.
    Script,
    /// A video command: seek marks of old players.
    Command,
}

/// The header of a tag body. In a tag with several tracks it describes the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TagInfo {
    pub content: Content,
    pub track: u8,
    /// PTS - DTS in nanoseconds; may be negative.
    pub composition_time: i64,
}

impl TagInfo {
    pub(super) fn new(content: Content, track: u8) -> Self {
        TagInfo {
            content,
            track,
            composition_time: 0,
        }
    }

    pub(super) fn with_composition_time(mut self, millis: i32, nanoseconds: u32) -> Self {
        self.composition_time = i64::from(millis) * 1_000_000 + i64::from(nanoseconds);
        self
    }

    /// Returns true for media, and false for its descriptions.
    pub fn is_coded(&self) -> bool {
        matches!(self.content, Content::Keyframe | Content::Frame)
    }
}
