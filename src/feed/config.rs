// SPDX-License-Identifier: MPL-2.0

//! Metadata and sequence headers in force.

use bytes::Bytes;

use crate::flv::{Content, FILE_HEADER, Tag, TagKind};
use crate::memory::Memory;

/// One of what a late client needs, of each kind and track.
#[derive(Debug)]
struct Entry {
    kind: TagKind,
    content: Content,
    track: u8,
    body: Bytes,
    /// Sent by the present publisher.
    current: bool,
}

/// Entries that are kept: more than a publisher has reason to send.
const MAX_ENTRIES: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Configuration {
    entries: Vec<Entry>,
}

impl Configuration {
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
    pub(super) fn update(&mut self, tag: &Tag) -> bool {
        let (kind, content, track) = (tag.kind, tag.info.content, tag.info.track);
        if matches!(content, Content::Script | Content::Command) {
            return false;
        }
        let known = self
            .entries
            .iter_mut()
            .find(|entry| (entry.kind, entry.content, entry.track) == (kind, content, track));
        if let Some(entry) = known {
            entry.current = true;
            if entry.body == tag.body() {
                return false;
            }
            entry.body = Bytes::copy_from_slice(tag.body());
            return content != Content::OnMetaData;
        }
        if self.entries.len() == MAX_ENTRIES {
            return false;
        }
        self.entries.push(Entry {
            kind,
            content,
            track,
            body: Bytes::copy_from_slice(tag.body()),
            current: true,
        });
        true
    }

    /// The file header, and each entry as a tag at time 0.
    pub(super) fn stream_header(&self) -> Vec<Bytes> {
        let header = Bytes::from_static(&FILE_HEADER);
        let metadata = self.entries.iter().filter(|e| e.kind == TagKind::Script);
        let tracks = self.entries.iter().filter(|e| e.kind != TagKind::Script);
        let tags = metadata.chain(tracks).filter_map(Entry::to_tag);
        [header].into_iter().chain(tags).collect()
    }
}

impl Entry {
    fn to_tag(&self) -> Option<Bytes> {
        let body = Memory::from_vec(self.body.to_vec(), 0);
        let tag = Tag::new(self.kind, 0, body).ok()?;
        Some(Bytes::copy_from_slice(&tag.into_bytes(0)))
    }
}
