// SPDX-License-Identifier: MPL-2.0

//! The codec of media.

use crate::flv::TagKind;
use crate::flv::body::{AudioBody, ExVideoContent, VideoBody};
use crate::flv::codec::CodecName;
use crate::flv::codes::SoundFormat;

/// Returns the codec of a tag's first track.
pub(in crate::feed) fn codec_of(kind: TagKind, body: &[u8]) -> Option<CodecName> {
    match kind {
        TagKind::Script => None,
        TagKind::Audio => Some(match AudioBody::parse(body).ok()? {
            AudioBody::Legacy { format, .. } => format.name(),
            AudioBody::Aac { .. } => SoundFormat::Aac.name(),
            AudioBody::Ex(ex) => ex.tracks.iter().next()?.1.four_cc.name(),
        }),
        TagKind::Video => Some(match VideoBody::parse(body).ok()? {
            VideoBody::Command { codec, .. }
            | VideoBody::Plain { codec, .. }
            | VideoBody::Vp6 { codec, .. }
            | VideoBody::Avc { codec, .. } => codec.name(),
            VideoBody::Ex(ex) => match &ex.content {
                ExVideoContent::Tracks(tracks) => tracks.iter().next()?.1.four_cc.name(),
                ExVideoContent::Command { .. } => return None,
            },
        }),
    }
}
