// SPDX-License-Identifier: MPL-2.0

//! The bounded queue of tags to be sent. It drops whole groups of pictures, so that its output can
//! be decoded from the start on.
//!
//! Without a sender it holds the current group of pictures, so that a returning server gets a
//! keyframe at once. The part of the current group that the sender has already sent is kept for the
//! same purpose, as long as there is room.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::configuration::{Configuration, Payload, QueuedTag};
use super::video_tracks::VideoTracks;
use crate::flv::{Content, TagKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Bytes, 0 for no limit.
    pub(super) max_bytes: u64,
    /// Time from the first to the last media tag, zero for no limit.
    pub(super) max_time: Duration,
}

/// A tag in the queue.
#[derive(Debug, Clone)]
struct Entry<T> {
    tag: QueuedTag<T>,
    /// Decoding can start at this tag.
    is_start: bool,
    /// The configuration in effect from this tag on.
    configuration: Arc<Configuration<T>>,
}

impl<T> Entry<T> {
    fn is_keyframe_at(&self, timestamp: u32) -> bool {
        self.tag.info.content == Content::Keyframe && self.tag.timestamp == timestamp
    }
}

/// Most keyframes that are held until that of the lowest track has come.
const MAX_CANDIDATES: usize = 16;

#[derive(Debug)]
pub(super) struct Backlog<T> {
    limits: Limits,
    entries: VecDeque<Entry<T>>,
    bytes: usize,
    /// Number of entries at the front that an earlier sender has already sent.
    resendable: usize,
    /// Media of the current group that was sent last, from a start on; `entries` continues it.
    sent_group: VecDeque<Entry<T>>,
    sent_group_bytes: usize,
    /// Keyframes of other tracks than the lowest, all of one time, while a start is awaited: they
    /// belong to it if that of the lowest track has the same time.
    candidates: Vec<QueuedTag<T>>,
    /// The configuration in effect before the first entry.
    front: Arc<Configuration<T>>,
    /// The configuration in effect after the last entry.
    back: Arc<Configuration<T>>,
    has_sender: bool,
    /// All media is dropped until the next start.
    is_awaiting_start: bool,
    /// Video is dropped until the next start; audio flows.
    is_awaiting_video: bool,
    has_video: bool,
    video_tracks: VideoTracks,
    dropped: u64,
}

impl<T: Payload> Backlog<T> {
    pub(super) fn new(limits: Limits) -> Self {
        let configuration = Arc::new(Configuration::default());
        Backlog {
            limits,
            entries: VecDeque::new(),
            bytes: 0,
            resendable: 0,
            sent_group: VecDeque::new(),
            sent_group_bytes: 0,
            candidates: Vec::new(),
            front: configuration.clone(),
            back: configuration,
            has_sender: false,
            is_awaiting_start: true,
            is_awaiting_video: false,
            has_video: false,
            video_tracks: VideoTracks::default(),
            dropped: 0,
        }
    }

    /// Bytes in the queue.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn has_video(&self) -> bool {
        self.has_video
    }

    /// Number of tags dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Counts a tag that cannot be queued.
    pub(super) fn reject(&mut self) {
        self.dropped += 1;
    }

    /// Drops all media that no server has got.
    pub(super) fn drop_rest(&mut self) {
        self.drop_candidates(|_| true);
        self.remove_front(self.entries.len());
    }

    /// Returns the configuration that a server needs for the next tag.
    pub(super) fn configuration(&self) -> &Configuration<T> {
        match self.entries.front() {
            // The tag itself is sent in its place.
            Some(entry) if entry.tag.is_configuration() => &self.front,
            Some(entry) => &entry.configuration,
            None => &self.front,
        }
    }

    pub(super) fn attach_sender(&mut self) {
        self.has_sender = true;
    }

    /// Handles the loss of the sender: keeps only the last group of pictures, from its start on,
    /// which may have been sent already.
    pub(super) fn detach_sender(&mut self) {
        self.has_sender = false;
        let last = self.entries.iter().rposition(|entry| entry.is_start);
        if let Some(last) = last {
            self.forget_sent_group();
            return self.remove_front(last);
        }
        if self.is_sent_group_useful() {
            self.resendable += self.sent_group.len();
            self.bytes += self.sent_group_bytes;
            self.sent_group.append(&mut self.entries);
            self.entries = std::mem::take(&mut self.sent_group);
        } else {
            self.remove_front(self.entries.len());
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
        let mut coded = self
            .entries
            .iter()
            .filter(|entry| entry.tag.info.is_coded());
        coded.next().is_some_and(|entry| entry.is_start)
    }

    /// True if the next media may become a start: it is a keyframe, and the one of the lowest track
    /// may follow with the same time.
    pub(super) fn may_be_at_start(&self) -> bool {
        let mut entries = self.entries.iter();
        let Some(first) = entries.find(|entry| entry.tag.info.is_coded()) else {
            return false;
        };
        first.is_keyframe_at(first.tag.timestamp)
            && entries.all(|entry| entry.is_keyframe_at(first.tag.timestamp))
    }

    /// Removes the next tag, for the sender. Returns it with the version of the configuration that
    /// is in effect after it.
    pub(super) fn pop(&mut self) -> Option<(QueuedTag<T>, u64)> {
        let (entry, _) = self.pop_front()?;
        let popped = (entry.tag.clone(), entry.configuration.version());
        self.keep_sent(entry);
        Some(popped)
    }

    /// Removes the next entry, and returns whether it was sent before.
    fn pop_front(&mut self) -> Option<(Entry<T>, bool)> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.tag.bytes;
        let was_sent = self.resendable > 0;
        self.resendable -= usize::from(was_sent);
        self.front = entry.configuration.clone();
        self.settle();
        Some((entry, was_sent))
    }

    /// An empty queue has one configuration.
    fn settle(&mut self) {
        if self.entries.is_empty() {
            self.front = self.back.clone();
        }
    }

    /// Keeps a sent tag in case the next sender has to send it again.
    fn keep_sent(&mut self, entry: Entry<T>) {
        // Media from before a change of configuration cannot be decoded after it.
        if entry.is_start || entry.tag.info.content == Content::SequenceHeader {
            self.forget_sent_group();
        }
        if entry.tag.is_configuration() || (!entry.is_start && self.sent_group.is_empty()) {
            return;
        }
        self.sent_group_bytes += entry.tag.bytes;
        self.sent_group.push_back(entry);
        self.limit_sent_group(0);
    }

    /// Queued tags have priority over sent ones.
    fn limit_sent_group(&mut self, more: usize) {
        let max_bytes = self.limits.max_bytes;
        if max_bytes > 0 && (self.bytes + self.sent_group_bytes + more) as u64 > max_bytes {
            self.forget_sent_group();
        }
    }

    fn forget_sent_group(&mut self) {
        self.sent_group.clear();
        self.sent_group_bytes = 0;
    }

    /// True if the sent group has its start, and that is not longer ago than `max_time`.
    fn is_sent_group_useful(&self) -> bool {
        let max_time = self.limits.max_time;
        let is_start = self.sent_group.front().is_some_and(|entry| entry.is_start);
        let span = span(self.sent_group.iter().chain(&self.entries));
        is_start && (max_time.is_zero() || span <= max_time)
    }

    /// Makes the headers of new caps the whole configuration: forgets what they lack, and adds what
    /// is new in them.
    pub(super) fn set_headers(&mut self, headers: Vec<QueuedTag<T>>) {
        let forgotten = Arc::make_mut(&mut self.back).retain(&headers);
        for tag in forgotten {
            if tag.kind == TagKind::Video && tag.info.content == Content::SequenceHeader {
                self.video_tracks.forget(tag.info.track);
            }
        }
        // The publisher has no video any more, and there is none to wait for.
        self.has_video &= !self.video_tracks.is_empty();
        self.settle();
        for tag in headers {
            self.push_header(tag);
        }
    }

    /// Adds a tag of the stream header, unless the same one is in effect.
    pub(super) fn push_header(&mut self, tag: QueuedTag<T>) {
        if !tag.is_configuration() || !self.back.contains(&tag) {
            self.push(tag);
        }
    }

    pub(super) fn push(&mut self, tag: QueuedTag<T>) {
        if tag.is_configuration() {
            return self.push_configuration(tag);
        }
        self.update_video(&tag);
        let is_keyframe = tag.info.content == Content::Keyframe;
        let is_start = self.can_start(&tag);
        let is_awaited = match tag.kind {
            TagKind::Video => self.is_awaiting_start || self.is_awaiting_video,
            _ => self.is_awaiting_start,
        };
        if tag.kind == TagKind::Video {
            self.drop_candidates(|candidate| candidate.timestamp != tag.timestamp);
        }
        if is_awaited && !is_start {
            if is_keyframe && self.candidates.len() < MAX_CANDIDATES {
                self.candidates.push(tag);
            } else {
                self.dropped += 1;
            }
            return;
        }
        if tag.kind == TagKind::Video && is_start {
            self.is_awaiting_video = false;
            if self.candidates.is_empty() {
                let start = self.leading_keyframes(tag.timestamp);
                return self.insert(tag, start);
            }
            let mut group = std::mem::take(&mut self.candidates).into_iter();
            if let Some(first) = group.next() {
                self.insert(first, Start::Here);
            }
            group.for_each(|tag| self.insert(tag, Start::No));
            return self.insert(tag, Start::No);
        }
        self.insert(tag, if is_start { Start::Here } else { Start::No });
    }

    /// Looks for keyframes of other tracks that have come directly before that of the lowest track,
    /// with the same time: decoding can start there.
    fn leading_keyframes(&self, timestamp: u32) -> Start {
        let entries = self.entries.iter().rev();
        let count = entries
            .take_while(|entry| entry.is_keyframe_at(timestamp))
            .count();
        match self.entries.len() - count {
            _ if count == 0 => Start::Here,
            first => Start::At(first),
        }
    }

    fn insert(&mut self, tag: QueuedTag<T>, start: Start) {
        let first = match start {
            Start::No => None,
            Start::Here => Some(self.entries.len()),
            Start::At(first) => Some(first),
        };
        if let Some(first) = first
            && !self.has_sender
        {
            self.remove_front(first);
        }
        if let Start::At(first) = start {
            let index = if self.has_sender { first } else { 0 };
            if let Some(entry) = self.entries.get_mut(index) {
                entry.is_start = true;
            }
        }
        let is_start = matches!(start, Start::Here);
        if self.is_awaiting_start && first.is_none() {
            self.dropped += 1;
            return;
        }
        self.is_awaiting_start = false;
        self.limit_sent_group(tag.bytes);
        while self.is_full_for(tag.bytes) {
            let starts = self.entries.iter().enumerate();
            let mut starts = starts.filter_map(|(index, entry)| entry.is_start.then_some(index));
            let (first, second) = (starts.next(), starts.next());
            // A new start means that the last group is complete.
            let end = second.or(is_start.then_some(self.entries.len()));
            match (first, end) {
                (Some(first), Some(end)) => self.drop_media(first, end),
                (first, _) => {
                    if let Some(first) = first {
                        self.drop_media(first, self.entries.len());
                    }
                    self.dropped += 1;
                    self.is_awaiting_start = true;
                    return;
                }
            }
        }
        self.append(tag, is_start);
    }

    fn drop_candidates(&mut self, is_dropped: impl Fn(&QueuedTag<T>) -> bool) {
        let before = self.candidates.len();
        self.candidates.retain(|candidate| !is_dropped(candidate));
        self.dropped += (before - self.candidates.len()) as u64;
    }

    fn push_configuration(&mut self, tag: QueuedTag<T>) {
        if tag.kind == TagKind::Video && tag.info.content == Content::SequenceHeader {
            for tag in tag.by_track() {
                self.video_tracks.announce(tag.info.track);
            }
            self.expect_video();
        }
        Arc::make_mut(&mut self.back).apply(&tag);
        if !self.entries.is_empty() || self.has_sender {
            self.append(tag, false);
        }
        self.settle();
    }

    /// Another publisher may send audio only, and a wait for a keyframe would never end.
    fn update_video(&mut self, tag: &QueuedTag<T>) {
        if !tag.info.is_coded() {
            return;
        }
        self.video_tracks.advance(tag);
        if tag.kind == TagKind::Video {
            self.expect_video();
            if self.back.is_video_hidden() {
                Arc::make_mut(&mut self.back).show_video();
                self.settle();
            }
        } else if self.has_video
            && (self.is_awaiting_start || self.is_awaiting_video)
            && !self.video_tracks.is_any_present()
        {
            self.has_video = false;
            Arc::make_mut(&mut self.back).hide_video();
            self.settle();
        }
    }

    /// A stream of audio goes on when video joins it, and video starts with its first keyframe.
    fn expect_video(&mut self) {
        if !self.has_video {
            self.has_video = true;
            self.is_awaiting_video = true;
        }
    }

    fn append(&mut self, tag: QueuedTag<T>, is_start: bool) {
        self.bytes += tag.bytes;
        self.entries.push_back(Entry {
            tag,
            is_start,
            configuration: self.back.clone(),
        });
    }

    /// Decoding can start at a keyframe of the lowest video track, or at any audio frame of a
    /// stream without video.
    fn can_start(&self, tag: &QueuedTag<T>) -> bool {
        match tag.kind {
            TagKind::Video => self.video_tracks.can_start(tag),
            TagKind::Audio => tag.info.is_coded() && !self.has_video,
            TagKind::Script => false,
        }
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
        let has_media = |entry: &Entry<T>| !entry.tag.is_configuration();
        is_over && self.entries.iter().any(has_media)
    }

    pub(super) fn time(&self) -> Duration {
        span(self.entries.iter())
    }

    fn remove_front(&mut self, count: usize) {
        for _ in 0..count {
            if let Some((entry, was_sent)) = self.pop_front()
                && !entry.tag.is_configuration()
                && !was_sent
            {
                self.dropped += 1;
            }
        }
    }

    /// Drops everything but configuration from `start` to `end`.
    fn drop_media(&mut self, start: usize, end: usize) {
        let (kept, dropped): (Vec<_>, Vec<_>) = self
            .entries
            .drain(start..end)
            .partition(|entry| entry.tag.is_configuration());
        // Resendable tags contain no configuration.
        let resendable = self.resendable.min(end).saturating_sub(start);
        self.resendable -= resendable;
        self.dropped += (dropped.len() - resendable) as u64;
        self.bytes -= dropped.iter().map(|entry| entry.tag.bytes).sum::<usize>();
        for entry in kept.into_iter().rev() {
            self.entries.insert(start, entry);
        }
        self.settle();
    }
}

/// Where decoding of a group starts that a tag belongs to.
#[derive(Debug, Clone, Copy)]
enum Start {
    /// Not at this tag, nor at one before it.
    No,
    /// At this tag.
    Here,
    /// At an entry before it.
    At(usize),
}

/// Returns the time from the first to the last media tag.
fn span<'a, T: 'a>(entries: impl DoubleEndedIterator<Item = &'a Entry<T>>) -> Duration {
    let mut coded = entries.filter(|entry| entry.tag.info.is_coded());
    let first = coded.next();
    let times = first.zip(coded.next_back());
    // Tracks are not in order with each other, so this may be negative.
    let millis = times.map_or(0, |(first, last)| {
        last.tag.timestamp.wrapping_sub(first.tag.timestamp) as i32
    });
    Duration::from_millis(millis.max(0) as u64)
}

#[cfg(test)]
mod tests;
