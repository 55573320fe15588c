// SPDX-License-Identifier: MPL-2.0

//! The codec of media.

use crate::flv::TagKind;
use crate::flv::body::{AudioBody, ExVideoContent, VideoBody};
use crate::flv::codec::CodecName;

/// Returns the codec of a tag's first track.
pub(in crate::feed) fn codec_of(kind: TagKind, body: &[u8]) -> Option<CodecName> {
    match kind {
        TagKind::Script => None,
        TagKind::Audio => {
            let body = AudioBody::parse(body).ok()?;
            let AudioBody::Ex(ex) = &body else {
                return body.codec();
            };
            let (_, track) = ex.tracks.iter().next()?;
            Some(track.four_cc.name())
        }
        TagKind::Video => {
            let body = VideoBody::parse(body).ok()?;
            let VideoBody::Ex(ex) = &body else {
                return body.codec();
            };
            let ExVideoContent::Tracks(tracks) = &ex.content else {
                return None;
            };
            let (_, track) = tracks.iter().next()?;
            Some(track.four_cc.name())
        }
    }
}
