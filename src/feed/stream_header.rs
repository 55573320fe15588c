// SPDX-License-Identifier: MPL-2.0

//! Metadata and sequence headers in force.

use bytes::Bytes;

use crate::flv::{Content, FILE_HEADER, FRONT_LENGTH, TRAILER_LENGTH, Tag, TagKind};
use crate::memory::Memory;

/// One of what a late client needs, of each kind and track.
#[derive(Debug)]
struct Entry {
    kind: TagKind,
    content: Content,
    track: u8,
    /// The whole tag, at time 0.
    bytes: Bytes,
    /// Sent by the present publisher.
    current: bool,
}

/// What a tag means for the stream header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// Something that was not there.
    Added,
    /// What was in force before is not any more.
    Replaced,
}

/// Entries that are kept, and their size: more than a publisher has reason to send. What is larger
/// passes, but is not part of the stream header.
const MAX_ENTRIES: usize = 64;
const MAX_ENTRY: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(super) struct StreamHeader {
    entries: Vec<Entry>,
}

impl StreamHeader {
    /// What the publisher before sent holds until the next one has sent its own.
    pub(super) fn start_publisher(&mut self) {
        for entry in &mut self.entries {
            entry.current = false;
        }
    }

    /// The present publisher has started: drops what it did not send. Says whether there was any.
    pub(super) fn finish_start(&mut self) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.current);
        self.entries.len() != before
    }

    /// Takes note of a tag, and says whether the stream header has to change for it. Metadata is
    /// advisory, and GStreamer's flvmux repeats it several times a second while its numbers settle:
    /// it goes along with the next change.
    pub(super) fn update(&mut self, tag: &Tag) -> Change {
        let (kind, content, track) = (tag.kind, tag.info.content, tag.info.track);
        let describes = matches!(
            content,
            Content::OnMetaData | Content::SequenceHeader | Content::TrackMetadata
        );
        if !describes || tag.body().len() > MAX_ENTRY {
            return Change::None;
        }
        let known = self
            .entries
            .iter_mut()
            .find(|entry| (entry.kind, entry.content, entry.track) == (kind, content, track));
        if let Some(entry) = known {
            entry.current = true;
            if entry.body() == tag.body() {
                return Change::None;
            }
            entry.bytes = stored(tag);
            return match content {
                Content::OnMetaData => Change::None,
                _ => Change::Replaced,
            };
        }
        if self.entries.len() == MAX_ENTRIES {
            return Change::None;
        }
        self.entries.push(Entry {
            kind,
            content,
            track,
            bytes: stored(tag),
            current: true,
        });
        Change::Added
    }

    /// The file header, and each entry as a tag at time 0.
    pub(super) fn stream_header(&self) -> Vec<Bytes> {
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
