// SPDX-License-Identifier: MPL-2.0

//! Tags that wait for the first media that can leave.

use std::collections::VecDeque;

use super::source_clocks::SourceTime;
use super::time::RunningTime;
use crate::flv::{Content, Tag, TrackSet};
use crate::steps;

/// Memory for metadata and sequence headers, in bytes, and as much for script data: a publisher may
/// never send media, and describe it for ever.
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
    /// Number in the order of all tags.
    order: u64,
    /// A description that has left before, and is sent again with the next media.
    is_repeated: bool,
}

/// Tags that a publisher sent before the first media that can leave: descriptions of its stream, and
/// audio if its video can't be decoded yet.
///
/// Each kind of tag has its own queue, so that a tag costs no look at thousands of others.
#[derive(Debug, Default)]
pub(super) struct PendingTags {
    /// Metadata and sequence headers.
    descriptions: VecDeque<PendingTag>,
    /// Script data and commands, none of which replaces another one.
    scripts: VecDeque<PendingTag>,
    media: VecDeque<PendingTag>,
    next_order: u64,
    description_bytes: usize,
    script_bytes: usize,
    media_bytes: usize,
}

impl PendingTags {
    /// Keeps a description. It replaces earlier ones of the same kind and no other tracks, unless media
    /// waits after them that needs them. Returns the number of tags that found no room.
    pub(super) fn describe(&mut self, tag: Tag, arrival: RunningTime) -> u64 {
        let tracks = TrackSet::of(&tag);
        let is_script = matches!(tag.info.content, Content::Script | Content::Command);
        if !is_script {
            let is_earlier = |t: &&PendingTag| {
                steps::count();
                is_same_kind(&t.tag, &tag) && t.tracks.intersects(tracks)
            };
            let earlier = self.descriptions.iter().rev().find(is_earlier);
            if earlier.is_some_and(|earlier| earlier.tag.body() == tag.body()) {
                return 0;
            }
            self.drop_replaced(&tag, tracks);
        }
        // Script data leaves no decoder without its configuration.
        let bytes = match is_script {
            true => &mut self.script_bytes,
            false => &mut self.description_bytes,
        };
        if *bytes + tag.memory() > MAX_DESCRIPTIONS {
            return 1;
        }
        *bytes += tag.memory();
        let pending = self.pending(tag, tracks, None, arrival);
        let queue = match is_script {
            true => &mut self.scripts,
            false => &mut self.descriptions,
        };
        queue.push_back(pending);
        0
    }

    fn pending(
        &mut self,
        tag: Tag,
        tracks: TrackSet,
        source: Option<SourceTime>,
        arrival: RunningTime,
    ) -> PendingTag {
        self.next_order += 1;
        PendingTag {
            tag,
            tracks,
            source,
            arrival,
            order: self.next_order,
            is_repeated: false,
        }
    }

    /// Keeps descriptions that have left already.
    pub(super) fn repeat(&mut self, descriptions: Vec<Tag>, arrival: RunningTime) {
        for tag in descriptions {
            self.describe(tag, arrival);
        }
        for pending in self.descriptions.iter_mut().chain(&mut self.scripts) {
            pending.is_repeated = true;
        }
    }

    /// Returns the number of tags that never left.
    pub(super) fn unsent(&self) -> u64 {
        let all = [&self.descriptions, &self.scripts, &self.media];
        let unsent = all.into_iter().flatten().filter(|tag| !tag.is_repeated);
        unsent.count() as u64
    }

    /// Drops the descriptions that a new one replaces.
    fn drop_replaced(&mut self, tag: &Tag, tracks: TrackSet) {
        // Tracks of media after the present one.
        let mut needed = TrackSet::default();
        let mut media = self.media.iter().rev().peekable();
        for index in (0..self.descriptions.len()).rev() {
            steps::count();
            let earlier = &self.descriptions[index];
            if !is_same_kind(&earlier.tag, tag) {
                continue;
            }
            while !needed.contains_all(tracks)
                && let Some(later) = media.next_if(|media| media.order > earlier.order)
            {
                steps::count();
                if later.tag.kind == tag.kind {
                    needed.add(later.tracks);
                }
            }
            if needed.contains_all(tracks) {
                return;
            }
            let is_replaced =
                tracks.contains_all(earlier.tracks) && !needed.intersects(earlier.tracks);
            if is_replaced && let Some(earlier) = self.descriptions.remove(index) {
                self.description_bytes -= earlier.tag.memory();
            }
        }
    }

    /// Keeps media, and drops the oldest where it is too much. Returns the number of dropped tags.
    pub(super) fn hold(&mut self, tag: Tag, source: SourceTime, arrival: RunningTime) -> u64 {
        self.push(tag, source, arrival);
        let mut dropped = 0;
        while self.media_bytes > MAX_MEDIA
            && let Some(oldest) = self.media.pop_front()
        {
            self.media_bytes -= oldest.tag.memory();
            dropped += 1;
        }
        dropped
    }

    /// Appends media that ends the wait, and therefore has no limit.
    pub(super) fn push(&mut self, tag: Tag, source: SourceTime, arrival: RunningTime) {
        self.media_bytes += tag.memory();
        let tracks = TrackSet::of(&tag);
        let pending = self.pending(tag, tracks, Some(source), arrival);
        self.media.push_back(pending);
    }

    /// Returns the media that waits.
    pub(super) fn media(&self) -> impl DoubleEndedIterator<Item = &PendingTag> {
        self.media.iter()
    }

    /// Returns the metadata and sequence headers that wait.
    pub(super) fn descriptions(&self) -> impl Iterator<Item = &Tag> {
        self.descriptions.iter().map(|pending| &pending.tag)
    }

    /// Drops media that is not to be kept, and returns its number of tags.
    pub(super) fn retain_media(&mut self, keeps: impl Fn(&Tag, SourceTime) -> bool) -> u64 {
        let before = self.media.len();
        let mut bytes = 0;
        self.media.retain(|pending| {
            let is_kept = pending
                .source
                .is_some_and(|source| keeps(&pending.tag, source));
            bytes += if is_kept { 0 } else { pending.tag.memory() };
            is_kept
        });
        self.media_bytes -= bytes;
        (before - self.media.len()) as u64
    }

    pub(super) fn has_media(&self) -> bool {
        !self.media.is_empty()
    }

    /// Returns all tags in their order.
    pub(super) fn into_tags(self) -> Vec<PendingTag> {
        let mut tags = Vec::from(self.descriptions);
        tags.extend(self.scripts);
        tags.extend(self.media);
        tags.sort_by_key(|pending| pending.order);
        tags
    }
}

fn is_same_kind(one: &Tag, other: &Tag) -> bool {
    (one.kind, one.info.content) == (other.kind, other.info.content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flv::TagKind;
    use crate::memory::Memory;

    fn tag(kind: TagKind, body: &[u8]) -> Tag {
        Tag::new(kind, 0, Memory::from_vec(body.to_vec(), 0)).unwrap()
    }

    const TIME: SourceTime = SourceTime { own: 0, common: 0 };

    /// Bodies of all tags, in their order.
    fn bodies(pending: PendingTags) -> Vec<Vec<u8>> {
        let tags = pending.into_tags();
        tags.iter()
            .map(|pending| pending.tag.body().to_vec())
            .collect()
    }

    #[test]
    fn tags_leave_in_order_and_media_keeps_the_descriptions_that_it_needs() {
        let mut pending = PendingTags::default();
        let describe = |pending: &mut PendingTags, kind, body: &[u8]| {
            assert_eq!(pending.describe(tag(kind, body), 0), 0);
        };
        describe(&mut pending, TagKind::Script, b"\x02\0\x0aonMetaData\x05");
        describe(&mut pending, TagKind::Audio, &[0xAF, 0, 1]);
        describe(&mut pending, TagKind::Script, b"\x02\0\x06onText\x05");
        describe(&mut pending, TagKind::Audio, &[0xAF, 0, 2]);
        pending.push(tag(TagKind::Audio, &[0xAF, 1, 3]), TIME, 0);
        describe(&mut pending, TagKind::Audio, &[0xAF, 0, 4]);
        describe(&mut pending, TagKind::Script, b"\x02\0\x0aonMetaData\x06");
        describe(&mut pending, TagKind::Audio, &[0xAF, 0, 5]);
        assert_eq!(pending.hold(tag(TagKind::Audio, &[0xAF, 1, 6]), TIME, 0), 0);
        assert_eq!(pending.unsent(), 6);
        let expected: [&[u8]; 6] = [
            b"\x02\0\x06onText\x05",
            &[0xAF, 0, 2],
            &[0xAF, 1, 3],
            b"\x02\0\x0aonMetaData\x06",
            &[0xAF, 0, 5],
            &[0xAF, 1, 6],
        ];
        assert_eq!(bodies(pending), expected);
    }

    /// Also where thousands of tags wait.
    #[test]
    fn a_description_finds_its_place_without_a_look_at_all_tags() {
        const COUNT: u64 = 20_000;
        let mut pending = PendingTags::default();
        let mut dropped = 0;
        for _ in 0..COUNT {
            dropped += pending.describe(tag(TagKind::Script, b"\x02\0\x06onText\x05"), 0);
            dropped += pending.hold(tag(TagKind::Audio, &[0xAF, 1, 3]), TIME, 0);
        }
        let waiting = (pending.scripts.len() + pending.media.len()) as u64;
        assert_eq!(dropped + waiting, 2 * COUNT);
        assert!(waiting > 5000 && dropped > 5000, "{waiting} {dropped}");
        let before = steps::counted();
        for round in 0..COUNT {
            let value = (round as f64).to_be_bytes();
            let metadata = [&b"\x02\0\x0aonMetaData\x00"[..], &value].concat();
            let record = [&[0xAF, 0][..], &value].concat();
            for description in [
                tag(TagKind::Script, &metadata),
                tag(TagKind::Audio, &record),
            ] {
                assert_eq!(pending.describe(description, 0), 0, "full of script data");
            }
            assert!(pending.descriptions.len() <= 2);
        }
        let steps = steps::counted() - before;
        // One is compared with every tag that waits: the media before it has been looked at.
        assert!(steps <= 20 * COUNT + 4 * waiting, "{steps}");
    }
}
