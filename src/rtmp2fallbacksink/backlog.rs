// SPDX-License-Identifier: MPL-2.0

//! The bounded queue of tags to be sent. It drops whole groups of pictures, so that its output can be
//! decoded from the start on.
//!
//! Without a sender it holds the current group of pictures, so that a returning server gets a
//! keyframe at once. The part of the current group that the sender has already sent is kept for the
//! same purpose, as long as there is room.

use std::collections::VecDeque;
use std::time::Duration;

use crate::flv::{Content, TagInfo, TagKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Bytes, 0 for no limit.
    pub(super) max_bytes: u64,
    /// Time from the first to the last media tag, zero for no limit.
    pub(super) max_time: Duration,
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

    /// True if this tag takes the place of `other`: the same kind of configuration of the same track.
    pub(super) fn replaces(&self, other: &Self) -> bool {
        let key = |tag: &Self| (tag.kind, tag.info.content, tag.info.track);
        key(self) == key(other)
    }
}

/// Audio-only time in milliseconds after which video counts as gone and its keyframe is no longer
/// awaited.
const MAX_VIDEO_SILENCE: i32 = 10_000;

#[derive(Debug)]
pub(super) struct Backlog<T> {
    limits: Limits,
    tags: VecDeque<QueuedTag<T>>,
    bytes: usize,
    /// Number of tags at the front of `tags` that an earlier sender has already sent.
    resendable: usize,
    /// Tags of the current group that were sent last, from a decodable start on; `tags` continues them.
    sent_group: VecDeque<QueuedTag<T>>,
    sent_group_bytes: usize,
    /// The configuration in effect at the front of `tags`.
    configuration: Vec<QueuedTag<T>>,
    /// Incremented when `configuration` changes.
    version: u64,
    has_sender: bool,
    /// All media is dropped until the next tag where decoding can start.
    is_awaiting_start: bool,
    has_video: bool,
    /// Timestamp of the last video tag.
    last_video_time: u32,
    dropped: u64,
}

impl<T: Clone> Backlog<T> {
    pub(super) fn new(limits: Limits) -> Self {
        Backlog {
            limits,
            tags: VecDeque::new(),
            bytes: 0,
            resendable: 0,
            sent_group: VecDeque::new(),
            sent_group_bytes: 0,
            configuration: Vec::new(),
            version: 0,
            has_sender: false,
            is_awaiting_start: true,
            has_video: false,
            last_video_time: 0,
            dropped: 0,
        }
    }

    /// Bytes in the queue.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    pub(super) fn has_video(&self) -> bool {
        self.has_video
    }

    /// Number of tags dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn configuration(&self) -> (u64, Vec<QueuedTag<T>>) {
        (self.version, self.configuration.clone())
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn attach_sender(&mut self) {
        self.has_sender = true;
    }

    /// Handles the loss of the sender: keeps only the last group of pictures, from its start on, which
    /// may have been sent already.
    pub(super) fn detach_sender(&mut self) {
        self.has_sender = false;
        let last = (0..self.tags.len()).rfind(|index| self.is_start(*index));
        if let Some(last) = last {
            self.forget_sent_group();
            return self.remove_front(last);
        }
        if self.is_sent_group_useful() {
            self.resendable += self.sent_group.len();
            self.bytes += self.sent_group_bytes;
            self.sent_group.append(&mut self.tags);
            self.tags = std::mem::take(&mut self.sent_group);
        } else {
            self.remove_front(self.tags.len());
            self.is_awaiting_start = true;
        }
        self.forget_sent_group();
    }

    /// Detaches the sender after all tags were sent: tags pushed later belong to another stream.
    pub(super) fn finish(&mut self) {
        self.forget_sent_group();
        self.detach_sender();
    }

    /// True if the next media tag can be decoded without any earlier one.
    pub(super) fn is_at_start(&self) -> bool {
        let first = self.tags.iter().position(|tag| tag.info.is_coded());
        first.is_some_and(|index| self.is_start(index))
    }

    /// Removes the next tag, for the sender.
    pub(super) fn pop(&mut self) -> Option<QueuedTag<T>> {
        let (tag, _) = self.pop_front()?;
        self.keep_sent(&tag);
        Some(tag)
    }

    /// Removes the next tag, and returns whether it was sent before.
    fn pop_front(&mut self) -> Option<(QueuedTag<T>, bool)> {
        let tag = self.tags.pop_front()?;
        self.bytes -= tag.bytes;
        let was_sent = self.resendable > 0;
        self.resendable -= usize::from(was_sent);
        self.apply_configuration(&tag);
        Some((tag, was_sent))
    }

    /// Keeps a sent tag in case the next sender has to send it again.
    fn keep_sent(&mut self, tag: &QueuedTag<T>) {
        let is_start = self.can_start(tag);
        // Media from before a change of configuration cannot be decoded after it.
        if is_start || tag.info.content == Content::SequenceHeader {
            self.forget_sent_group();
        }
        if tag.is_configuration() || (!is_start && self.sent_group.is_empty()) {
            return;
        }
        self.sent_group_bytes += tag.bytes;
        self.sent_group.push_back(tag.clone());
        let max_bytes = self.limits.max_bytes;
        if max_bytes > 0 && (self.bytes + self.sent_group_bytes) as u64 > max_bytes {
            self.forget_sent_group();
        }
    }

    fn forget_sent_group(&mut self) {
        self.sent_group.clear();
        self.sent_group_bytes = 0;
    }

    /// True if decoding can still start there, and it is not longer ago than `max_time`.
    fn is_sent_group_useful(&self) -> bool {
        let max_time = self.limits.max_time;
        let is_start = self
            .sent_group
            .front()
            .is_some_and(|tag| self.can_start(tag));
        let span = span(self.sent_group.iter().chain(&self.tags));
        is_start && (max_time.is_zero() || span <= max_time)
    }

    pub(super) fn push(&mut self, tag: QueuedTag<T>) {
        if tag.kind == TagKind::Video && !self.has_video {
            self.has_video = true;
            // An audio-only stream that gains video continues with the first keyframe.
            self.is_awaiting_start = true;
        }
        self.update_video_presence(&tag);
        if tag.is_configuration() {
            if self.tags.is_empty() && !self.has_sender {
                return self.apply_configuration(&tag);
            }
            return self.append(tag);
        }
        let is_start = self.can_start(&tag);
        if is_start && !self.has_sender {
            self.remove_front(self.tags.len());
        }
        if self.is_awaiting_start && !is_start {
            self.dropped += 1;
            return;
        }
        self.is_awaiting_start = false;
        let max_bytes = self.limits.max_bytes;
        if max_bytes > 0 && (self.bytes + self.sent_group_bytes + tag.bytes) as u64 > max_bytes {
            self.forget_sent_group();
        }
        while self.is_full_for(tag.bytes) {
            let mut starts = (0..self.tags.len()).filter(|index| self.is_start(*index));
            let (first, second) = (starts.next(), starts.next());
            // A new start means that the last group is complete.
            let end = second.or(is_start.then_some(self.tags.len()));
            match (first, end) {
                (Some(first), Some(end)) => self.drop_media(first, end),
                (first, _) => {
                    if let Some(first) = first {
                        self.drop_media(first, self.tags.len());
                    }
                    self.dropped += 1;
                    self.is_awaiting_start = true;
                    return;
                }
            }
        }
        self.append(tag);
    }

    /// Another publisher may send audio only, and a wait for a keyframe would never end.
    fn update_video_presence(&mut self, tag: &QueuedTag<T>) {
        let silence = tag.timestamp.wrapping_sub(self.last_video_time) as i32;
        match tag.kind {
            TagKind::Video => self.last_video_time = tag.timestamp,
            // The timestamps have restarted.
            TagKind::Audio if silence < 0 => self.last_video_time = tag.timestamp,
            TagKind::Audio
                if self.has_video && self.is_awaiting_start && silence > MAX_VIDEO_SILENCE =>
            {
                self.has_video = false;
                self.configuration.retain(|tag| tag.kind != TagKind::Video);
                self.version += 1;
            }
            _ => {}
        }
    }

    fn append(&mut self, tag: QueuedTag<T>) {
        self.bytes += tag.bytes;
        self.tags.push_back(tag);
    }

    fn apply_configuration(&mut self, tag: &QueuedTag<T>) {
        if tag.is_configuration() {
            self.version += 1;
            let all = &mut self.configuration;
            match all.iter_mut().find(|old| tag.replaces(old)) {
                Some(old) => *old = tag.clone(),
                None if tag.kind == TagKind::Script => all.insert(0, tag.clone()),
                None => all.push(tag.clone()),
            }
        }
    }

    /// Decoding can start at a keyframe, or at any audio frame of a stream without video.
    fn can_start(&self, tag: &QueuedTag<T>) -> bool {
        tag.info.content == Content::Keyframe
            || (tag.kind == TagKind::Audio && tag.info.is_coded() && !self.has_video)
    }

    fn is_start(&self, index: usize) -> bool {
        self.can_start(&self.tags[index])
    }

    /// A single tag is always accepted, however large it is.
    fn is_full_for(&self, more: usize) -> bool {
        let Limits {
            max_bytes,
            max_time,
        } = self.limits;
        let bytes = (self.bytes + more) as u64;
        let is_over =
            (max_bytes > 0 && bytes > max_bytes) || (!max_time.is_zero() && self.time() > max_time);
        is_over && self.tags.iter().any(|tag| !tag.is_configuration())
    }

    pub(super) fn time(&self) -> Duration {
        span(self.tags.iter())
    }

    fn remove_front(&mut self, count: usize) {
        for _ in 0..count {
            if let Some((tag, was_sent)) = self.pop_front()
                && !tag.is_configuration()
                && !was_sent
            {
                self.dropped += 1;
            }
        }
    }

    /// Drops everything but configuration from `start` to `end`.
    fn drop_media(&mut self, start: usize, end: usize) {
        let (kept, dropped): (Vec<_>, Vec<_>) = self
            .tags
            .drain(start..end)
            .partition(QueuedTag::is_configuration);
        // Resendable tags contain no configuration.
        let resendable = self.resendable.min(end).saturating_sub(start);
        self.resendable -= resendable;
        self.dropped += (dropped.len() - resendable) as u64;
        self.bytes -= dropped.iter().map(|tag| tag.bytes).sum::<usize>();
        for tag in kept.into_iter().rev() {
            self.tags.insert(start, tag);
        }
    }
}

/// Returns the time from the first to the last media tag.
fn span<'a, T: 'a>(tags: impl DoubleEndedIterator<Item = &'a QueuedTag<T>>) -> Duration {
    let mut coded = tags.filter(|tag| tag.info.is_coded());
    let first = coded.next();
    let times = first.zip(coded.next_back());
    // Tracks are not in order with each other, so this may be negative.
    let millis = times.map_or(0, |(first, last)| {
        last.timestamp.wrapping_sub(first.timestamp) as i32
    });
    Duration::from_millis(millis.max(0) as u64)
}

#[cfg(test)]
mod tests;
