// SPDX-License-Identifier: MPL-2.0

//! The stream header: metadata and sequence headers in force.

use bytes::Bytes;

use crate::flv::{Content, FILE_HEADER, FRONT_LENGTH, TRAILER_LENGTH, Tag, TagKind, split_tracks};
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
        let entries = Entry::all_of(tag).into_iter();
        let changes = entries.map(|entry| self.store(entry));
        changes.max().unwrap_or(HeaderChange::None)
    }

    /// Stores the descriptions in a tag whose kind and track the present publisher has not described
    /// yet. Returns true if that changes the stream header.
    pub(super) fn add_missing(&mut self, tag: &Tag) -> bool {
        let mut changed = false;
        for entry in Entry::all_of(tag) {
            let known = self.entries.iter().find(|known| known.key() == entry.key());
            if known.is_none_or(|known| !known.is_current) {
                changed |= self.store(entry) != HeaderChange::None;
            }
        }
        changed
    }

    fn store(&mut self, entry: Entry) -> HeaderChange {
        let mut entries = self.entries.iter_mut();
        if let Some(known) = entries.find(|known| known.key() == entry.key()) {
            known.is_current = true;
            if known.bytes == entry.bytes {
                return HeaderChange::None;
            }
            known.bytes = entry.bytes;
            return match known.content {
                Content::OnMetaData => HeaderChange::None,
                _ => HeaderChange::Replaced,
            };
        }
        if self.entries.len() == MAX_ENTRIES {
            return HeaderChange::None;
        }
        self.entries.push(entry);
        HeaderChange::Added
    }

    /// Returns each entry as a tag.
    pub(super) fn descriptions(&self) -> Vec<Tag> {
        let tags = self.entries.iter().filter_map(|entry| {
            let body = entry.bytes.get(FRONT_LENGTH..)?;
            let body = &body[..body.len().checked_sub(TRAILER_LENGTH)?];
            Tag::new(entry.kind, 0, Memory::from_vec(body.to_vec(), 0)).ok()
        });
        tags.collect()
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
    /// Returns an entry for each track that a tag describes.
    fn all_of(tag: &Tag) -> Vec<Entry> {
        let is_description = matches!(
            tag.info.content,
            Content::OnMetaData | Content::SequenceHeader | Content::TrackMetadata
        );
        if !is_description {
            return Vec::new();
        }
        let Some(bodies) = split_tracks(tag.kind, tag.body()) else {
            return Vec::from_iter(Entry::new(tag, tag.info.track, tag.body()));
        };
        let mut entries: Vec<Entry> = Vec::new();
        for (track, body) in &bodies {
            // The last description of a track is the one in force.
            entries.retain(|entry| entry.track != *track);
            entries.extend(Entry::new(tag, *track, body));
        }
        entries
    }

    fn new(tag: &Tag, track: u8, body: &[u8]) -> Option<Entry> {
        let body = (body.len() <= MAX_ENTRY).then(|| Memory::from_vec(body.to_vec(), 0))?;
        Some(Entry {
            kind: tag.kind,
            content: tag.info.content,
            track,
            bytes: Bytes::copy_from_slice(&Tag::frame(tag.kind, body, 0)),
            is_current: true,
        })
    }

    fn key(&self) -> (TagKind, Content, u8) {
        (self.kind, self.content, self.track)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use HeaderChange::{Added, None, Replaced};

    /// A sequence header of several H.264 tracks, or of several Opus tracks, with these records.
    fn several(kind: TagKind, tracks: &[(u8, u8)]) -> Tag {
        let front: &[u8] = match kind {
            TagKind::Video => b"\x96\x10avc1",
            _ => b"\x95\x10Opus",
        };
        let tracks = tracks
            .iter()
            .flat_map(|(id, record)| [*id, 0, 0, 1, *record]);
        let body = front.iter().copied().chain(tracks).collect();
        Tag::new(kind, 0, Memory::from_vec(body, 0)).unwrap()
    }

    fn single(kind: TagKind, track: u8, record: u8) -> Tag {
        let body = match kind {
            TagKind::Video => [&b"\x96\x00avc1"[..], &[track, record]].concat(),
            _ => [&b"\x95\x00Opus"[..], &[track, record]].concat(),
        };
        Tag::new(kind, 0, Memory::from_vec(body, 0)).unwrap()
    }

    /// Track ids and records in the stream header.
    fn records(header: &StreamHeader) -> Vec<(u8, u8)> {
        let tags = header.to_tags();
        let bodies = tags[1..].iter().map(|tag| &tag[FRONT_LENGTH..]);
        bodies.map(|body| (body[6], body[7])).collect()
    }

    #[test]
    fn a_header_of_some_tracks_replaces_those_alone() {
        for kind in [TagKind::Video, TagKind::Audio] {
            let mut header = StreamHeader::default();
            let all = [(0, 5), (1, 6), (2, 7)];
            assert_eq!(header.update(&several(kind, &all)), Added);
            assert_eq!(records(&header), all);
            assert_eq!(header.update(&several(kind, &all)), None);
            assert_eq!(header.update(&several(kind, &[(0, 5), (2, 9)])), Replaced);
            assert_eq!(records(&header), [(0, 5), (1, 6), (2, 9)]);
            // In the other form too.
            assert_eq!(header.update(&single(kind, 1, 6)), None);
            assert_eq!(header.update(&single(kind, 1, 8)), Replaced);
            assert_eq!(records(&header), [(0, 5), (1, 8), (2, 9)]);
            assert_eq!(header.update(&several(kind, &[(2, 9), (3, 1)])), Added);
            assert_eq!(records(&header), [(0, 5), (1, 8), (2, 9), (3, 1)]);
        }
    }

    #[test]
    fn tracks_of_the_publisher_before_are_dropped_one_by_one() {
        let mut header = StreamHeader::default();
        header.update(&several(TagKind::Video, &[(1, 6), (2, 7)]));
        header.start_publisher();
        assert!(!header.add_missing(&several(TagKind::Video, &[(2, 7)])));
        // Another description of a track is a change later on.
        assert!(header.add_missing(&several(TagKind::Video, &[(2, 8), (3, 9)])));
        assert!(header.finish_start());
        assert_eq!(records(&header), [(2, 7), (3, 9)]);
    }

    #[test]
    fn the_last_of_two_records_of_a_track_in_one_tag_holds() {
        let mut header = StreamHeader::default();
        let twice = several(TagKind::Audio, &[(1, 6), (1, 7)]);
        assert_eq!(header.update(&twice), Added);
        assert_eq!(records(&header), [(1, 7)]);
        assert_eq!(header.update(&twice), None);
    }

    #[test]
    fn an_empty_track_replaces_nothing() {
        let mut header = StreamHeader::default();
        header.update(&several(TagKind::Video, &[(0, 5), (1, 6)]));
        let body = b"\x96\x10avc1\x00\0\0\0\x01\0\0\x01\x09".to_vec();
        let tag = Tag::new(TagKind::Video, 0, Memory::from_vec(body, 0)).unwrap();
        assert_eq!(header.update(&tag), Replaced);
        assert_eq!(records(&header), [(0, 5), (1, 9)]);
    }

    #[test]
    fn the_number_of_tracks_is_bounded() {
        let mut header = StreamHeader::default();
        let all: Vec<(u8, u8)> = (0..=255).map(|id| (id, 1)).collect();
        assert_eq!(header.update(&several(TagKind::Video, &all)), Added);
        assert_eq!(records(&header).len(), MAX_ENTRIES);
    }
}
