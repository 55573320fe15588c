// SPDX-License-Identifier: MPL-2.0

//! Tags as the queue sees them, and the metadata and decoder configuration of a stream.

use crate::flv::{Content, TagInfo, TagKind};

/// The content of a tag, which the queue does not interpret.
pub(super) trait Payload: Clone {
    /// True if both tags have the same body, whatever their timestamps.
    fn has_same_body(&self, other: &Self) -> bool;

    /// Returns tags of single tracks for a tag of several.
    fn split(&self) -> Vec<(u8, Self)> {
        Vec::new()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QueuedTag<T> {
    pub(super) payload: T,
    pub(super) bytes: usize,
    pub(super) kind: TagKind,
    pub(super) info: TagInfo,
    /// Milliseconds, modulo 2^32.
    pub(super) timestamp: u32,
}

impl<T> QueuedTag<T> {
    /// True for metadata and decoder configuration, which a server needs before any media.
    pub(super) fn is_configuration(&self) -> bool {
        matches!(
            self.info.content,
            Content::OnMetaData | Content::SequenceHeader | Content::TrackMetadata
        )
    }

    /// True if this tag of one track takes the place of `other`: the same kind of configuration of
    /// the same track.
    fn replaces(&self, other: &Self) -> bool {
        let key = |tag: &Self| (tag.kind, tag.info.content, tag.info.track);
        key(self) == key(other)
    }
}

impl<T: Payload> QueuedTag<T> {
    /// Returns tags of single tracks: what this tag of several consists of, or itself.
    pub(super) fn by_track(&self) -> Vec<Self> {
        let with = |(track, payload)| QueuedTag {
            payload,
            info: TagInfo { track, ..self.info },
            ..*self
        };
        let tags: Vec<Self> = self.payload.split().into_iter().map(with).collect();
        if tags.is_empty() {
            return vec![self.clone()];
        }
        tags
    }
}

/// The configuration in effect at some place of the stream.
#[derive(Debug, Clone)]
pub(super) struct Configuration<T> {
    /// One for each kind and track.
    tags: Vec<QueuedTag<T>>,
    /// Incremented by each change that a server has to learn of.
    version: u64,
    /// The video is absent: its configuration is kept, but servers do not get it, since players
    /// would wait for the video.
    is_video_hidden: bool,
}

impl<T> Default for Configuration<T> {
    fn default() -> Self {
        Configuration {
            tags: Vec::new(),
            version: 0,
            is_video_hidden: false,
        }
    }
}

impl<T: Payload> Configuration<T> {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Returns the tags that a server needs.
    pub(super) fn tags(&self) -> Vec<QueuedTag<T>> {
        let is_visible = |tag: &&QueuedTag<T>| !self.is_video_hidden || tag.kind != TagKind::Video;
        self.tags.iter().filter(is_visible).cloned().collect()
    }

    /// True if all of the tag is in effect.
    pub(super) fn contains(&self, tag: &QueuedTag<T>) -> bool {
        let is_known = |tag: &QueuedTag<T>| {
            let mut same = self.tags.iter().filter(|known| tag.replaces(known));
            same.any(|known| known.payload.has_same_body(&tag.payload))
        };
        tag.by_track().iter().all(is_known)
    }

    /// Adds a tag, or replaces those before it of its tracks. Metadata comes first.
    pub(super) fn apply(&mut self, tag: &QueuedTag<T>) {
        self.version += 1;
        for tag in tag.by_track() {
            match self.tags.iter_mut().find(|known| tag.replaces(known)) {
                Some(known) => *known = tag,
                None if tag.kind == TagKind::Script => self.tags.insert(0, tag),
                None => self.tags.push(tag),
            }
        }
    }

    /// Forgets the tags that have no counterpart in `headers`. Returns the forgotten ones. A server
    /// cannot be told, so the version stays.
    pub(super) fn retain(&mut self, headers: &[QueuedTag<T>]) -> Vec<QueuedTag<T>> {
        let headers: Vec<_> = headers.iter().flat_map(QueuedTag::by_track).collect();
        let has_counterpart =
            |tag: &QueuedTag<T>| headers.iter().any(|header| header.replaces(tag));
        let all = std::mem::take(&mut self.tags);
        let (kept, forgotten) = all.into_iter().partition(has_counterpart);
        self.tags = kept;
        forgotten
    }

    pub(super) fn is_video_hidden(&self) -> bool {
        self.is_video_hidden
    }

    pub(super) fn hide_video(&mut self) {
        self.is_video_hidden = true;
    }

    /// Servers that were connected while the video was hidden have to learn of it.
    pub(super) fn show_video(&mut self) {
        if std::mem::take(&mut self.is_video_hidden) {
            self.version += 1;
        }
    }
}
