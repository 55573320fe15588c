// SPDX-License-Identifier: MPL-2.0

//! The stream header: metadata and sequence headers in force.

use bytes::Bytes;

use crate::flv::{Content, FILE_HEADER, FRONT_LENGTH, TRAILER_LENGTH, Tag, TagKind};
use crate::memory::Memory;

/// One tag that a late client needs, for each kind and track.
#[derive(Debug)]
struct Entry {
    kind: TagKind,
    content: Content,
    track: u8,
    /// The whole tag, at time 0.
    bytes: Bytes,
    /// Sent by the present publisher.
    is_current: bool,
}

/// Effect of a tag on the stream header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderChange {
    None,
    /// A new entry.
    Added,
    /// An entry with other contents.
    Replaced,
}

/// Most entries, and most bytes of one: more than a publisher has reason to send. A larger tag
/// passes, but does not become part of the stream header.
const MAX_ENTRIES: usize = 64;
const MAX_ENTRY: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(super) struct StreamHeader {
    entries: Vec<Entry>,
}

impl StreamHeader {
    /// Entries of the publisher before hold until the next one has sent its own.
    pub(super) fn start_publisher(&mut self) {
        for entry in &mut self.entries {
            entry.is_current = false;
        }
    }

    /// Drops the entries that the present publisher did not send before its first media. Returns
    /// true if there were any.
    pub(super) fn finish_start(&mut self) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.is_current);
        self.entries.len() != before
    }

    /// Stores a tag that describes the stream, and returns its effect on the stream header. Metadata
    /// is advisory, and GStreamer's flvmux repeats it several times a second while its numbers
    /// settle: it leaves with the next change.
    pub(super) fn update(&mut self, tag: &Tag) -> HeaderChange {
        let (kind, content, track) = (tag.kind, tag.info.content, tag.info.track);
        let is_description = matches!(
            content,
            Content::OnMetaData | Content::SequenceHeader | Content::TrackMetadata
        );
        if !is_description || tag.body().len() > MAX_ENTRY {
            return HeaderChange::None;
        }
        let known = self
            .entries
            .iter_mut()
            .find(|entry| (entry.kind, entry.content, entry.track) == (kind, content, track));
        if let Some(entry) = known {
            entry.is_current = true;
            if entry.body() == tag.body() {
                return HeaderChange::None;
            }
            entry.bytes = stored(tag);
            return match content {
                Content::OnMetaData => HeaderChange::None,
                _ => HeaderChange::Replaced,
            };
        }
        if self.entries.len() == MAX_ENTRIES {
            return HeaderChange::None;
        }
        self.entries.push(Entry {
            kind,
            content,
            track,
            bytes: stored(tag),
            is_current: true,
        });
        HeaderChange::Added
    }

    /// Returns true if the present publisher has sent such an entry.
    pub(super) fn is_described(&self, tag: &Tag) -> bool {
        let key = (tag.kind, tag.info.content, tag.info.track);
        let is_same = |entry: &Entry| (entry.kind, entry.content, entry.track) == key;
        self.entries
            .iter()
            .any(|entry| entry.is_current && is_same(entry))
    }

    /// Returns the file header, and each entry as a tag at time 0.
    pub(super) fn to_tags(&self) -> Vec<Bytes> {
        let header = Bytes::from_static(&FILE_HEADER);
        let metadata = self.entries.iter().filter(|e| e.kind == TagKind::Script);
        let tracks = self.entries.iter().filter(|e| e.kind != TagKind::Script);
        let tags = metadata.chain(tracks).map(|entry| entry.bytes.clone());
        [header].into_iter().chain(tags).collect()
    }
}

impl Entry {
    fn body(&self) -> &[u8] {
        &self.bytes[FRONT_LENGTH..self.bytes.len() - TRAILER_LENGTH]
    }
}

fn stored(tag: &Tag) -> Bytes {
    let body = Memory::from_vec(tag.body().to_vec(), 0);
    Bytes::copy_from_slice(&Tag::frame(tag.kind, body, 0))
}
