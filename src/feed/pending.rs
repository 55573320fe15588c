// SPDX-License-Identifier: MPL-2.0

//! Tags that wait for the first media that can leave.

use std::collections::VecDeque;

use super::RunningTime;
use crate::flv::{Content, Tag};

/// Memory for descriptions, in bytes: a publisher may never send media, and describe it for ever.
const MAX_DESCRIPTIONS: usize = 1024 * 1024;

/// Memory for audio that waits for a keyframe, in bytes. Enough for more than 60 s at 128 kbit/s.
const MAX_MEDIA: usize = 1024 * 1024;

/// Tags that a publisher sent before the first media that can leave, in order: descriptions of
/// its stream, and audio if its video can't be decoded yet.
#[derive(Debug, Default)]
pub(super) struct PendingTags {
    tags: VecDeque<(Tag, RunningTime)>,
    description_bytes: usize,
    media_bytes: usize,
}

impl PendingTags {
    /// Keeps a description, which replaces an earlier one of the same kind. Returns the number of
    /// tags that found no room.
    pub(super) fn describe(&mut self, tag: Tag, arrival: RunningTime) -> u64 {
        let key = |tag: &Tag| (tag.kind, tag.info.content, tag.info.track);
        let is_configuration = !matches!(tag.info.content, Content::Script | Content::Command);
        let earlier = self.tags.iter().position(|(t, _)| key(t) == key(&tag));
        if let Some(index) = earlier.filter(|_| is_configuration)
            && let Some((old, _)) = self.tags.remove(index)
        {
            self.description_bytes -= old.memory();
        }
        if self.description_bytes + tag.memory() > MAX_DESCRIPTIONS {
            return 1;
        }
        self.description_bytes += tag.memory();
        self.tags.push_back((tag, arrival));
        0
    }

    /// Keeps media, and drops the oldest where it is too much. Returns the number of dropped tags.
    pub(super) fn hold(&mut self, tag: Tag, arrival: RunningTime) -> u64 {
        self.push(tag, arrival);
        let mut dropped = 0;
        while self.media_bytes > MAX_MEDIA
            && let Some(index) = self.tags.iter().position(|(tag, _)| tag.info.is_coded())
            && let Some((oldest, _)) = self.tags.remove(index)
        {
            self.media_bytes -= oldest.memory();
            dropped += 1;
        }
        dropped
    }

    /// Appends media that ends the wait, and therefore has no limit.
    pub(super) fn push(&mut self, tag: Tag, arrival: RunningTime) {
        self.media_bytes += tag.memory();
        self.tags.push_back((tag, arrival));
    }

    pub(super) fn has_media(&self) -> bool {
        self.media_bytes > 0
    }

    pub(super) fn into_tags(self) -> VecDeque<(Tag, RunningTime)> {
        self.tags
    }
}
