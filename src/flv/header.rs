// SPDX-License-Identifier: MPL-2.0

//! Parsing of the header of a tag body.

use super::error::Error;
use super::info::{Content, TagInfo};
use super::kind::TagKind;
use super::{audio, video};
use crate::amf0;

impl TagInfo {
    /// Parses the header of a tag body. A body that no decoder accepts is an error: an empty body,
    /// an empty decoder configuration, a truncated header.
    #[inline]
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
}
