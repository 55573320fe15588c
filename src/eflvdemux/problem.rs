// SPDX-License-Identifier: MPL-2.0

//! Reasons to skip a part of a stream.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    LostBytes,
    UnknownTag,
    BadTag,
    BadScript,
    UnknownCodec,
    UnknownPacket,
    BadConfiguration,
    NoConfiguration,
    Empty,
    CutShort,
}

impl Problem {
    pub(super) const ALL: [Problem; 10] = [
        Problem::LostBytes,
        Problem::UnknownTag,
        Problem::BadTag,
        Problem::BadScript,
        Problem::UnknownCodec,
        Problem::UnknownPacket,
        Problem::BadConfiguration,
        Problem::NoConfiguration,
        Problem::Empty,
        Problem::CutShort,
    ];

    /// Field of the property `stats`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Problem::LostBytes => "lost-bytes",
            Problem::UnknownTag => "unknown-tags",
            Problem::BadTag => "bad-tags",
            Problem::BadScript => "bad-scripts",
            Problem::UnknownCodec => "unknown-codecs",
            Problem::UnknownPacket => "unknown-packets",
            Problem::BadConfiguration => "bad-configurations",
            Problem::NoConfiguration => "without-configuration",
            Problem::Empty => "empty",
            Problem::CutShort => "cut-short",
        }
    }

    /// Text of the message on the bus. Empty frames are common and harmless, so they have none.
    pub(super) fn message(self) -> Option<&'static str> {
        match self {
            Problem::LostBytes => Some("Skipping bytes that are no FLV tag"),
            Problem::UnknownTag => Some("Skipping FLV tags of an unknown type"),
            Problem::BadTag => Some("Skipping broken FLV tags"),
            Problem::BadScript => Some("Skipping broken script data"),
            Problem::UnknownCodec => Some("Skipping packets of an unknown codec"),
            Problem::UnknownPacket => Some("Skipping packets of an unknown type"),
            Problem::BadConfiguration => Some("Skipping a broken decoder configuration"),
            Problem::NoConfiguration => {
                Some("Skipping packets that came before their decoder configuration")
            }
            Problem::Empty => None,
            Problem::CutShort => Some("The stream ends within a tag"),
        }
    }
}
