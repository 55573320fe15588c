// SPDX-License-Identifier: MPL-2.0

//! Tags that wait for the first media that can leave.

use std::collections::VecDeque;

use super::source_clocks::SourceTime;
use super::time::RunningTime;
use crate::flv::{Content, Tag};

/// Memory for descriptions, in bytes: a publisher may never send media, and describe it for ever.
const MAX_DESCRIPTIONS: usize = 1024 * 1024;

/// Memory for media that waits for a keyframe, in bytes. Enough for more than 60 s of audio at
/// 128 kbit/s.
const MAX_MEDIA: usize = 1024 * 1024;

/// A tag, its time on the publisher's clock if it is media, and its arrival.
#[derive(Debug)]
pub(super) struct PendingTag {
    pub(super) tag: Tag,
    pub(super) source: Option<SourceTime>,
    pub(super) arrival: RunningTime,
}

/// Tags that a publisher sent before the first media that can leave, in order: descriptions of
/// its stream, and audio if its video can't be decoded yet.
#[derive(Debug, Default)]
pub(super) struct PendingTags {
    tags: VecDeque<PendingTag>,
    description_bytes: usize,
    media_bytes: usize,
}

impl PendingTags {
    /// Keeps a description. It replaces an earlier one of the same kind, unless media waits between
    /// them that needs the earlier one. Returns the number of tags that found no room.
    pub(super) fn describe(&mut self, tag: Tag, arrival: RunningTime) -> u64 {
        let key = |tag: &Tag| (tag.kind, tag.info.content, tag.info.track);
        let is_configuration = !matches!(tag.info.content, Content::Script | Content::Command);
        let earlier = self.tags.iter().rposition(|t| key(&t.tag) == key(&tag));
        if let Some(index) = earlier.filter(|_| is_configuration) {
            if self.tags[index].tag.body() == tag.body() {
                return 0;
            }
            let needs_earlier = |t: &PendingTag| {
                t.source.is_some() && (t.tag.kind, t.tag.info.track) == (tag.kind, tag.info.track)
            };
            if !self.tags.range(index..).any(needs_earlier)
                && let Some(old) = self.tags.remove(index)
            {
                self.description_bytes -= old.tag.memory();
            }
        }
        if self.description_bytes + tag.memory() > MAX_DESCRIPTIONS {
            return 1;
        }
        self.description_bytes += tag.memory();
        self.tags.push_back(PendingTag {
            tag,
            source: None,
            arrival,
        });
        0
    }

    /// Keeps media, and drops the oldest where it is too much. Returns the number of dropped tags.
    pub(super) fn hold(&mut self, tag: Tag, source: SourceTime, arrival: RunningTime) -> u64 {
        self.push(tag, source, arrival);
        let mut dropped = 0;
        while self.media_bytes > MAX_MEDIA
            && let Some(index) = self.tags.iter().position(|t| t.source.is_some())
            && let Some(oldest) = self.tags.remove(index)
        {
            self.media_bytes -= oldest.tag.memory();
            dropped += 1;
        }
        dropped
    }

    /// Appends media that ends the wait, and therefore has no limit.
    pub(super) fn push(&mut self, tag: Tag, source: SourceTime, arrival: RunningTime) {
        self.media_bytes += tag.memory();
        self.tags.push_back(PendingTag {
            tag,
            source: Some(source),
            arrival,
        });
    }

    pub(super) fn has_media(&self) -> bool {
        self.media_bytes > 0
    }

    pub(super) fn into_tags(self) -> VecDeque<PendingTag> {
        self.tags
    }
}
