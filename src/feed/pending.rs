// SPDX-License-Identifier: MPL-2.0

//! Tags that wait for the first media that can leave.

use std::collections::VecDeque;

use super::source_clocks::SourceTime;
use super::time::RunningTime;
use crate::flv::{Content, Tag, TrackSet};

/// Memory for descriptions, in bytes: a publisher may never send media, and describe it for ever.
const MAX_DESCRIPTIONS: usize = 1024 * 1024;

/// Memory for media that waits for a keyframe, in bytes. Enough for more than 60 s of audio at
/// 128 kbit/s.
const MAX_MEDIA: usize = 1024 * 1024;

/// A tag, its tracks, its time on the publisher's clock if it is media, and its arrival.
#[derive(Debug)]
pub(super) struct PendingTag {
    pub(super) tag: Tag,
    tracks: TrackSet,
    pub(super) source: Option<SourceTime>,
    pub(super) arrival: RunningTime,
    /// A description that has left before, and is sent again with the next media.
    is_repeated: bool,
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
    /// Keeps a description. It replaces earlier ones of the same kind and no other tracks, unless media
    /// waits after them that needs them. Returns the number of tags that found no room.
    pub(super) fn describe(&mut self, tag: Tag, arrival: RunningTime) -> u64 {
        let tracks = TrackSet::of(&tag);
        if !matches!(tag.info.content, Content::Script | Content::Command) {
            let is_earlier =
                |t: &&PendingTag| is_same_kind(&t.tag, &tag) && t.tracks.intersects(tracks);
            let earlier = self.tags.iter().rev().find(is_earlier);
            if earlier.is_some_and(|earlier| earlier.tag.body() == tag.body()) {
                return 0;
            }
            self.drop_replaced(&tag, tracks);
        }
        if self.description_bytes + tag.memory() > MAX_DESCRIPTIONS {
            return 1;
        }
        self.description_bytes += tag.memory();
        self.tags.push_back(PendingTag {
            tag,
            tracks,
            source: None,
            arrival,
            is_repeated: false,
        });
        0
    }

    /// Keeps descriptions that have left already.
    pub(super) fn repeat(&mut self, descriptions: Vec<Tag>, arrival: RunningTime) {
        for tag in descriptions {
            self.describe(tag, arrival);
        }
        for pending in &mut self.tags {
            pending.is_repeated = pending.source.is_none();
        }
    }

    /// Returns the number of tags that never left.
    pub(super) fn unsent(&self) -> u64 {
        self.tags.iter().filter(|tag| !tag.is_repeated).count() as u64
    }

    /// Drops the descriptions that a new one replaces.
    fn drop_replaced(&mut self, tag: &Tag, tracks: TrackSet) {
        // Tracks of media after the present one.
        let mut needed = TrackSet::default();
        for index in (0..self.tags.len()).rev() {
            let earlier = &self.tags[index];
            if earlier.source.is_some() && earlier.tag.kind == tag.kind {
                needed.add(earlier.tracks);
            }
            let is_replaced = is_same_kind(&earlier.tag, tag)
                && tracks.contains_all(earlier.tracks)
                && !needed.intersects(earlier.tracks);
            if is_replaced && let Some(earlier) = self.tags.remove(index) {
                self.description_bytes -= earlier.tag.memory();
            }
        }
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
            tracks: TrackSet::of(&tag),
            tag,
            source: Some(source),
            arrival,
            is_repeated: false,
        });
    }

    /// Returns the media that waits.
    pub(super) fn media(&self) -> impl DoubleEndedIterator<Item = &PendingTag> {
        self.tags.iter().filter(|tag| tag.source.is_some())
    }

    /// Returns the descriptions that wait.
    pub(super) fn descriptions(&self) -> impl Iterator<Item = &Tag> {
        let descriptions = self.tags.iter().filter(|tag| tag.source.is_none());
        descriptions.map(|pending| &pending.tag)
    }

    /// Drops media that is not to be kept, and returns its number of tags.
    pub(super) fn retain_media(&mut self, keeps: impl Fn(&Tag, SourceTime) -> bool) -> u64 {
        let before = self.tags.len();
        let mut bytes = 0;
        self.tags.retain(|pending| {
            let Some(source) = pending.source else {
                return true;
            };
            let is_kept = keeps(&pending.tag, source);
            bytes += if is_kept { 0 } else { pending.tag.memory() };
            is_kept
        });
        self.media_bytes -= bytes;
        (before - self.tags.len()) as u64
    }

    pub(super) fn has_media(&self) -> bool {
        self.media_bytes > 0
    }

    pub(super) fn into_tags(self) -> VecDeque<PendingTag> {
        self.tags
    }
}

fn is_same_kind(one: &Tag, other: &Tag) -> bool {
    (one.kind, one.info.content) == (other.kind, other.info.content)
}
