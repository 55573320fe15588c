// SPDX-License-Identifier: MPL-2.0

//! The items of a media queue in their order, with the sums and positions that its limits need.
//!
//! Every operation takes amortised constant time, however many items wait: a queue may hold minutes
//! of media, and its limits are looked at for each tag.

use std::collections::VecDeque;
use std::time::Duration;

use super::item::QueueItem;
use crate::flv::{Content, Tag};
use crate::memory::Slack;
use crate::steps;

/// Items in their order. Media is divided into groups of pictures: a group starts with a tag at
/// which decoding can start, and reaches up to the next such tag.
///
/// ```text
///        front              rest
///  +----------------+  +----+-----+----+-----
///  | of no group    |  | of | G1  | G2 | ...      the oldest group G1 is dropped:
///  |                |  | no |     |    |          the items before it move to `front` once,
///  |                |  | gr.|     |    |          and what it leaves follows them
///  +----------------+  +----+-----+----+-----
/// ```
#[derive(Debug, Default)]
pub(super) struct Items {
    /// Items before a dropped group, and the configuration out of it. Empty in a queue that does
    /// not leak. No group starts in here.
    front: Section,
    rest: Section,
    bytes: usize,
    starts: usize,
    events: usize,
    keyframes: KeyframeCounts,
    groups: usize,
    /// The last groups that are of the present publisher.
    own_groups: usize,
    slack: Slack,
}

/// A part of the items, with the timestamps of its coded tags beside them.
#[derive(Debug, Default)]
struct Section {
    items: VecDeque<QueueItem>,
    coded: VecDeque<CodedTag>,
}

#[derive(Debug, Clone, Copy)]
struct CodedTag {
    timestamp: u32,
    starts_group: bool,
}

impl Items {
    pub(super) fn is_empty(&self) -> bool {
        self.front.items.is_empty() && self.rest.items.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.front.items.len() + self.rest.items.len()
    }

    /// Returns the bytes of memory of all items.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the number of starts of publishers.
    pub(super) fn starts(&self) -> usize {
        self.starts
    }

    /// Returns the number of unbounded events.
    pub(super) fn events(&self) -> usize {
        self.events
    }

    /// Returns the number of keyframes of a video track, or of all coded tags where it is None.
    pub(super) fn decoding_starts(&self, track: Option<u8>) -> usize {
        match track {
            Some(track) => self.keyframes.count(track),
            None => self.front.coded.len() + self.rest.coded.len(),
        }
    }

    /// Returns the media time from the first coded tag to the last one.
    pub(super) fn time(&self) -> Duration {
        let first = self.front.coded.front().or(self.rest.coded.front());
        let last = self.rest.coded.back().or(self.front.coded.back());
        let (Some(first), Some(last)) = (first, last) else {
            return Duration::ZERO;
        };
        // Tracks are not in order with each other, so this may be negative.
        let millis = (last.timestamp.wrapping_sub(first.timestamp) as i32).max(0);
        Duration::from_millis(millis as u64)
    }

    #[inline]
    pub(super) fn append(&mut self, item: QueueItem) {
        self.add(&item);
        self.rest.push_back(item, false);
    }

    /// Appends a coded tag at which decoding can start.
    #[inline]
    pub(super) fn append_group(&mut self, item: QueueItem) {
        self.add(&item);
        self.rest.push_back(item, true);
        self.groups += 1;
        self.own_groups += 1;
    }

    /// Appends tags, and leaves none of them in `tags`. Decoding can start at those for which
    /// `starts_group` returns true.
    pub(super) fn append_tags(
        &mut self,
        tags: &mut Vec<QueueItem>,
        mut starts_group: impl FnMut(&Tag) -> bool,
    ) {
        for item in tags.iter() {
            steps::count();
            self.add(item);
            let Some(tag) = item.tag() else {
                continue;
            };
            let starts_group = starts_group(tag);
            if tag.info.is_coded() {
                self.rest.coded.push_back(CodedTag {
                    timestamp: tag.timestamp,
                    starts_group,
                });
            }
            self.groups += usize::from(starts_group);
            self.own_groups += usize::from(starts_group);
        }
        self.rest.items.extend(tags.drain(..));
    }

    /// Ends the last group: what follows is of another publisher.
    pub(super) fn end_group(&mut self) {
        self.own_groups = 0;
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<QueueItem> {
        let popped = self.front.pop_front();
        let (item, starts_group) = popped.or_else(|| self.rest.pop_front())?;
        self.remove(&item, starts_group);
        Some(item)
    }

    /// Moves at most `max_items` to `batch`, up to the one with which they have `max_bytes`.
    pub(super) fn pop_into(
        &mut self,
        batch: &mut VecDeque<QueueItem>,
        max_items: usize,
        max_bytes: usize,
    ) {
        let mut bytes = 0;
        let mut left = max_items;
        while left > 0 && bytes < max_bytes && !self.front.items.is_empty() {
            left -= 1;
            let item = self.pop();
            bytes += item.as_ref().map_or(0, QueueItem::memory);
            batch.extend(item);
        }
        // The others move together, once they are counted.
        let mut section = std::mem::take(&mut self.rest);
        let mut coded = section.coded.iter();
        let mut popped = 0;
        for item in section.items.iter().take(left) {
            if bytes >= max_bytes {
                break;
            }
            steps::count();
            popped += 1;
            bytes += item.memory();
            let coded = item.coded_timestamp().and_then(|_| coded.next());
            let starts_group = coded.is_some_and(|coded| coded.starts_group);
            match item.tag() {
                // The most frequent one by far.
                Some(tag) if tag.info.content == Content::Frame && !starts_group => {
                    self.bytes -= tag.memory();
                }
                _ => self.remove(item, starts_group),
            }
        }
        let rest = coded.len();
        section.coded.drain(..section.coded.len() - rest);
        batch.extend(section.items.drain(..popped));
        self.rest = section;
    }

    /// Returns true where there is another group after the oldest one.
    pub(super) fn has_old_group(&self) -> bool {
        self.groups > 1
    }

    /// Drops the oldest group, and marks the tag after it. Returns the number of dropped tags.
    pub(super) fn drop_oldest_group(&mut self) -> u64 {
        while !self.rest.front_starts_group() {
            let Some((item, _)) = self.rest.pop_front() else {
                return 0;
            };
            self.front.push_back(item, false);
        }
        let mut dropped = 0;
        let mut is_marked = false;
        while dropped == 0 || !self.rest.front_starts_group() {
            let Some((mut item, starts_group)) = self.rest.pop_front() else {
                return dropped;
            };
            if item.is_media() {
                self.remove(&item, starts_group);
                dropped += 1;
            } else {
                is_marked = is_marked || mark_discont(&mut item);
                self.front.push_back(item, false);
            }
        }
        if !is_marked && let Some(item) = self.rest.items.front_mut() {
            mark_discont(item);
        }
        dropped
    }

    /// Drops the present publisher's newest group, if its start is here. Returns the number of
    /// dropped tags.
    pub(super) fn drop_newest_group(&mut self) -> u64 {
        if self.own_groups == 0 {
            return 0;
        }
        let mut dropped = 0;
        let mut configuration = Vec::new();
        while let Some((item, starts_group)) = self.rest.pop_back() {
            if !item.is_media() {
                configuration.push(item);
                continue;
            }
            self.remove(&item, starts_group);
            dropped += 1;
            if starts_group {
                break;
            }
        }
        let mut is_marked = false;
        for mut item in configuration.into_iter().rev() {
            is_marked = is_marked || mark_discont(&mut item);
            self.rest.push_back(item, false);
        }
        dropped
    }

    /// Removes and returns all items.
    pub(super) fn take(&mut self) -> VecDeque<QueueItem> {
        let Items { front, rest, .. } = std::mem::take(self);
        let (mut items, mut more) = (front.items, rest.items);
        if items.is_empty() {
            return more;
        }
        items.append(&mut more);
        items
    }

    /// Moves all items to `batch`, which is empty. Costs nothing for each of them where none was
    /// dropped, and both keep their memory.
    pub(super) fn take_into(&mut self, batch: &mut VecDeque<QueueItem>) {
        steps::count();
        debug_assert!(batch.is_empty());
        batch.append(&mut self.front.items);
        if batch.is_empty() {
            std::mem::swap(batch, &mut self.rest.items);
        } else {
            batch.append(&mut self.rest.items);
        }
        let kept = &mut self.rest.items;
        if self.slack.note(batch.len(), kept.capacity()) {
            kept.shrink_to(Slack::KEPT);
            self.rest.coded = VecDeque::new();
        }
        self.front.coded.clear();
        self.rest.coded.clear();
        self.keyframes.clear();
        (self.bytes, self.starts, self.events) = (0, 0, 0);
        (self.groups, self.own_groups) = (0, 0);
    }

    #[inline]
    fn add(&mut self, item: &QueueItem) {
        if let QueueItem::Tag { tag, .. } = item {
            self.bytes += tag.memory();
            if tag.info.content == Content::Keyframe {
                self.keyframes.add(tag.lowest_track());
            }
            return;
        }
        self.starts += usize::from(matches!(item, QueueItem::Start(_)));
        self.events += usize::from(item.is_unbounded());
    }

    #[inline]
    fn remove(&mut self, item: &QueueItem, starts_group: bool) {
        let QueueItem::Tag { tag, .. } = item else {
            self.starts -= usize::from(matches!(item, QueueItem::Start(_)));
            self.events -= usize::from(item.is_unbounded());
            return;
        };
        self.bytes -= tag.memory();
        if tag.info.content == Content::Keyframe {
            self.keyframes.remove(tag.lowest_track());
        }
        if starts_group {
            self.groups -= 1;
            // Groups of former publishers leave first, and no more than the present one's are left.
            self.own_groups = self.own_groups.min(self.groups);
        }
    }
}

impl Section {
    #[inline]
    fn push_back(&mut self, item: QueueItem, starts_group: bool) {
        steps::count();
        if let Some(timestamp) = item.coded_timestamp() {
            self.coded.push_back(CodedTag {
                timestamp,
                starts_group,
            });
        }
        self.items.push_back(item);
    }

    /// Returns the first item, and if it starts a group.
    fn pop_front(&mut self) -> Option<(QueueItem, bool)> {
        steps::count();
        let item = self.items.pop_front()?;
        let coded = item.coded_timestamp().and_then(|_| self.coded.pop_front());
        Some((item, coded.is_some_and(|coded| coded.starts_group)))
    }

    /// Returns the last item, and if it starts a group.
    fn pop_back(&mut self) -> Option<(QueueItem, bool)> {
        steps::count();
        let item = self.items.pop_back()?;
        let coded = item.coded_timestamp().and_then(|_| self.coded.pop_back());
        Some((item, coded.is_some_and(|coded| coded.starts_group)))
    }

    fn front_starts_group(&self) -> bool {
        let is_coded = self.items.front().is_some_and(QueueItem::is_media);
        is_coded && self.coded.front().is_some_and(|coded| coded.starts_group)
    }
}

/// Numbers of keyframes by video track, up to the highest track that had one.
#[derive(Debug, Default)]
struct KeyframeCounts(Vec<usize>);

impl KeyframeCounts {
    fn count(&self, track: u8) -> usize {
        self.0.get(usize::from(track)).copied().unwrap_or_default()
    }

    fn add(&mut self, track: u8) {
        let index = usize::from(track);
        if self.0.len() <= index {
            self.0.resize(index + 1, 0);
        }
        self.0[index] += 1;
    }

    fn clear(&mut self) {
        self.0.fill(0);
    }

    fn remove(&mut self, track: u8) {
        if let Some(count) = self.0.get_mut(usize::from(track)) {
            *count -= 1;
        }
    }
}

/// Marks a tag whose predecessors were dropped. Returns false for items that are no tags.
fn mark_discont(item: &mut QueueItem) -> bool {
    match item {
        QueueItem::Tag { discont, .. } => {
            *discont = true;
            true
        }
        _ => false,
    }
}
