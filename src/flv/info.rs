// SPDX-License-Identifier: MPL-2.0

use super::{Error, TagKind, audio, video};
use crate::amf0;

/// What a tag is to the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// Decoder configuration.
    SequenceHeader,
    /// Of a track too, but apart from its configuration: colour metadata, channel layout.
    TrackMetadata,
    /// The script data `onMetaData`.
    OnMetaData,
    /// Video that can be decoded without what came before.
    Keyframe,
    /// Audio, or video that refers to what came before.
    Frame,
    EndOfSequence,
    /// Other script data.
    Script,
    /// A video command: seek marks of old players.
    Command,
}

/// What the header of a tag body says. Where a tag has several tracks, this is the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TagInfo {
    pub content: Content,
    pub track: u8,
    /// PTS - DTS in nanoseconds; may be negative.
    pub composition_time: i64,
}

impl TagInfo {
    /// Looks at a tag body. What can't be decoded by anyone is an error: an empty body, an empty
    /// decoder configuration, a header that is cut short.
    pub fn of(kind: TagKind, body: &[u8]) -> Result<Self, Error> {
        match kind {
            TagKind::Audio => audio::parse(body),
            TagKind::Video => video::parse(body),
            TagKind::Script => {
                let content = match amf0::read_name(body) {
                    Some((b"onMetaData", _)) => Content::OnMetaData,
                    Some(_) => Content::Script,
                    None => return Err(Error::Truncated),
                };
                Ok(TagInfo::new(content, 0))
            }
        }
    }

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

    /// Whether this is media, as opposed to what describes it.
    pub fn is_coded(&self) -> bool {
        matches!(self.content, Content::Keyframe | Content::Frame)
    }
}
