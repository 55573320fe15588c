// SPDX-License-Identifier: MPL-2.0

//! The media queue between a publisher's read thread and the streaming thread.
//!
//! Lock order: the one lock in here is a leaf. Nothing is called out while it is held.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::flv::{Content, Tag, TagKind};
use crate::server::config::{Leak, QueueLimits};
use crate::server::log::CAT;
use crate::server::publisher::{Publisher, RejectReason};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct QueueLevels {
    pub bytes: u64,
    pub time: Duration,
    /// Tags dropped because the queue was full, since the start.
    pub dropped: u64,
    /// Tags of publishers that were replaced or disconnected, since the start.
    pub cut_off: u64,
    /// Publishers whose start the streaming thread has not seen yet.
    pub starts: usize,
}

/// An item for the streaming thread.
#[derive(Debug)]
pub(crate) enum QueueItem {
    Start(Arc<Publisher>),
    Tag {
        tag: Tag,
        arrival: Instant,
        /// Tags before it were dropped.
        discont: bool,
    },
    /// The publisher has sent no media for `stall_timeout`.
    Stalled {
        /// Arrival of its last byte.
        last_read: Instant,
    },
    /// Media arrives again.
    Resumed,
    /// The publisher's connection broke, and it may return: another start, or the end, follows.
    Lost,
    /// Some client waits for the decision about its publish request, or none does any more.
    Authorizing(bool),
    Event(QueueEvent),
    /// The publisher has left.
    End {
        /// There will be no other.
        is_last: bool,
    },
}

/// An event for the application, in order with the media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum QueueEvent {
    Rejected(Arc<Publisher>, RejectReason),
    /// The present publisher was replaced by the one that starts next.
    Replaced(Arc<Publisher>),
    ReconnectRequested(Arc<Publisher>),
    /// An element downstream wants a keyframe. Holds why the publisher was not asked to reconnect
    /// for it; None if it was.
    KeyframeRequested(Option<&'static str>),
    /// The publisher is gone for good, with the reason.
    Gone(Arc<Publisher>, &'static str),
}

impl QueueEvent {
    /// Returns true for events that clients or elements downstream can cause in any number.
    fn is_unbounded(&self) -> bool {
        match self {
            QueueEvent::Rejected(..)
            | QueueEvent::ReconnectRequested(_)
            | QueueEvent::KeyframeRequested(_) => true,
            QueueEvent::Replaced(_) | QueueEvent::Gone(..) => false,
        }
    }
}

/// Publishers that may start before the streaming thread has seen the first. A client that publishes
/// and leaves over and over must not fill the queue.
const MAX_STARTS: usize = 16;

/// Unbounded events that may wait. Clients cause them at no cost.
const MAX_EVENTS: usize = 64;

/// The queue is closed or flushing, or accepts nothing from this publisher any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped;

/// Limits of one batch. They make the wake-up of the streaming thread cheap, and are small beside
/// the limits of the queue, which does not count the batch any more.
const MAX_BATCH_ITEMS: usize = 128;
const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// Bytes a writer with more input pending may queue before it wakes the streaming thread.
const QUIET_BYTES: usize = 512 * 1024;

/// Bytes by which headers and metadata may exceed the limit of a leaky queue.
const CONFIGURATION_BYTES: u64 = 128 * 1024;

#[derive(Debug)]
pub(crate) struct MediaQueue {
    state: Mutex<QueueState>,
    not_empty: Condvar,
    not_full: Condvar,
}

#[derive(Debug)]
struct QueueState {
    limits: QueueLimits,
    /// The client whose media is accepted.
    writer: Option<u64>,
    items: VecDeque<QueueItem>,
    bytes: usize,
    dropped: u64,
    cut_off: u64,
    starts: usize,
    /// Unbounded events among the items.
    events: usize,
    /// Level of [`QueueItem::Authorizing`], and the level of the last one queued.
    authorizing: bool,
    authorizing_queued: bool,
    /// Sticky: set and cleared by the streaming side, and seen by it alone.
    flushing: bool,
    /// Final.
    closed: bool,
    /// A thread waits for an item, or for space.
    reader_waits: bool,
    writer_waits: bool,
    /// The writer is within a wait, also just after it was woken.
    writer_blocked: bool,
    leaking: Leaking,
    /// The present publisher has sent video.
    has_video: bool,
    /// The video track whose keyframes start decoding.
    lowest_video_track: Option<u8>,
}

/// Progress of a leaky queue in dropping media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaking {
    No,
    /// Up to the next point where decoding can start.
    UntilSyncPoint,
}

impl MediaQueue {
    pub(crate) fn new(limits: QueueLimits) -> Self {
        MediaQueue {
            state: Mutex::new(QueueState {
                limits,
                writer: None,
                items: VecDeque::new(),
                bytes: 0,
                dropped: 0,
                cut_off: 0,
                starts: 0,
                events: 0,
                authorizing: false,
                authorizing_queued: false,
                flushing: false,
                closed: false,
                reader_waits: false,
                writer_waits: false,
                writer_blocked: false,
                leaking: Leaking::No,
                has_video: false,
                lowest_video_track: None,
            }),
            not_empty: Condvar::new(),
            not_full: Condvar::new(),
        }
    }

    pub(crate) fn set_limits(&self, limits: QueueLimits) {
        let mut state = self.state.lock();
        state.limits = limits;
        self.not_full.notify_all();
    }

    pub(crate) fn levels(&self) -> QueueLevels {
        let state = self.state.lock();
        QueueLevels {
            bytes: state.bytes as u64,
            time: state.time(),
            dropped: state.dropped,
            cut_off: state.cut_off,
            starts: state.starts,
        }
    }

    /// Counts the items of a kind.
    pub(crate) fn count(&self, is_of_kind: impl Fn(&QueueItem) -> bool) -> usize {
        let state = self.state.lock();
        state.items.iter().filter(|item| is_of_kind(item)).count()
    }

    /// Makes [`MediaQueue::pop`] return at once until it is unset. For the streaming side.
    pub(crate) fn set_flushing(&self, flushing: bool) {
        self.state.lock().flushing = flushing;
        self.not_empty.notify_all();
    }

    /// Closes the queue: all waits end, and it returns nothing more.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.items.clear();
        state.bytes = 0;
        state.starts = 0;
        state.events = 0;
        self.not_empty.notify_all();
        self.not_full.notify_all();
    }

    /// Starts a publisher. Items of the one before stay, and no more are accepted from it. Starts
    /// and ends take no space, so this does not wait.
    pub(crate) fn start(&self, publisher: Arc<Publisher>) {
        self.switch(Some(publisher.client), QueueItem::Start(publisher));
    }

    /// Waits until one more start is accepted, or until a deadline.
    pub(crate) fn wait_until_start_accepted(&self, deadline: Instant) {
        let mut state = self.state.lock();
        while state.starts >= MAX_STARTS && !state.closed {
            state.writer_waits = true;
            self.wake_reader(&mut state);
            if self.not_full.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
    }

    /// Returns true where one more start is accepted.
    pub(crate) fn accepts_start(&self) -> bool {
        self.state.lock().starts < MAX_STARTS
    }

    /// Queues the loss of the publisher, which may return.
    pub(crate) fn lose(&self) {
        self.switch(None, QueueItem::Lost);
    }

    /// Queues an event, in order with everything else. Unbounded ones beyond [`MAX_EVENTS`] are
    /// left out: their counters say how many there were.
    pub(crate) fn post(&self, event: QueueEvent) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        if event.is_unbounded() {
            if state.events >= MAX_EVENTS {
                gst::debug!(CAT, "Left out {event:?}: {MAX_EVENTS} events wait already");
                return;
            }
            state.events += 1;
        }
        state.append(QueueItem::Event(event));
        self.wake_reader(&mut state);
    }

    /// Sets if a client waits for the decision about its publish request. The streaming thread sees
    /// the last level, however often it changes.
    pub(crate) fn set_authorizing(&self, authorizing: bool) {
        let mut state = self.state.lock();
        state.authorizing = authorizing;
        if state.queue_authorizing() {
            self.wake_reader(&mut state);
        }
    }

    /// Queues that the media of a client has stalled, or arrives again.
    pub(crate) fn post_from(&self, client: u64, item: QueueItem) {
        let mut state = self.state.lock();
        if state.accepts_from(client) {
            state.append(item);
            self.wake_reader(&mut state);
        }
    }

    /// Queues the end of the publisher.
    pub(crate) fn end(&self, is_last: bool) {
        self.switch(None, QueueItem::End { is_last });
    }

    fn switch(&self, writer: Option<u64>, item: QueueItem) {
        let mut state = self.state.lock();
        state.set_writer(writer);
        if !state.closed {
            state.push(item);
            self.wake_reader(&mut state);
        }
        self.not_full.notify_all();
    }

    /// Accepts nothing more from the present publisher, whose wait ends.
    pub(crate) fn revoke(&self) {
        self.state.lock().set_writer(None);
        self.not_full.notify_all();
    }

    /// Returns true while a publisher waits for space.
    pub(crate) fn is_writer_waiting(&self) -> bool {
        self.state.lock().writer_blocked
    }

    /// Adds the items of one read of a client. Waits for space as long as it takes, unless the queue
    /// leaks.
    pub(crate) fn push(&self, client: u64, items: &mut Vec<QueueItem>) -> Result<(), Stopped> {
        self.push_quietly(client, items)?;
        self.announce();
        Ok(())
    }

    /// Wakes the streaming thread if there are items.
    pub(crate) fn announce(&self) {
        let mut state = self.state.lock();
        if !state.items.is_empty() {
            self.wake_reader(&mut state);
        }
    }

    /// Adds items like [`MediaQueue::push`], for a writer with more input pending, which would wake
    /// the streaming thread over and over: it wakes only when [`QUIET_BYTES`] are queued. Call
    /// [`MediaQueue::announce`] or [`MediaQueue::push`] before waiting for anything.
    pub(crate) fn push_quietly(
        &self,
        client: u64,
        items: &mut Vec<QueueItem>,
    ) -> Result<(), Stopped> {
        let mut state = self.state.lock();
        let mut items = items.drain(..);
        while let Some(item) = items.next() {
            if state.limits.leak == Leak::None {
                while state.is_full_for(&item) && state.accepts_from(client) {
                    state.writer_waits = true;
                    state.writer_blocked = true;
                    self.wake_reader(&mut state);
                    self.not_full.wait(&mut state);
                }
            }
            if !state.accepts_from(client) {
                state.cut_off += 1 + items.len() as u64;
                return Err(Stopped);
            }
            state.writer_blocked = false;
            state.push(item);
        }
        if state.is_much() {
            self.wake_reader(&mut state);
        }
        Ok(())
    }

    fn wake_reader(&self, state: &mut QueueState) {
        if std::mem::take(&mut state.reader_waits) {
            self.not_empty.notify_one();
        }
    }

    /// Moves items to `batch`, up to the limits of one batch. Waits for the first item, until a
    /// deadline if there is one: then there may be none.
    pub(crate) fn pop(
        &self,
        batch: &mut VecDeque<QueueItem>,
        deadline: Option<Instant>,
    ) -> Result<(), Stopped> {
        let mut state = self.state.lock();
        loop {
            if state.flushing || state.closed {
                return Err(Stopped);
            }
            if !state.items.is_empty() {
                break;
            }
            state.reader_waits = true;
            match deadline {
                None => self.not_empty.wait(&mut state),
                Some(deadline) => {
                    if self.not_empty.wait_until(&mut state, deadline).timed_out() {
                        state.reader_waits = false;
                        return Ok(());
                    }
                }
            }
        }
        let mut bytes = 0;
        for _ in 0..MAX_BATCH_ITEMS {
            let Some(item) = state.items.pop_front() else {
                break;
            };
            bytes += item.memory();
            state.starts -= usize::from(matches!(item, QueueItem::Start(_)));
            state.events -= usize::from(item.is_unbounded());
            batch.push_back(item);
            if bytes >= MAX_BATCH_BYTES {
                break;
            }
        }
        state.bytes -= bytes;
        state.queue_authorizing();
        if std::mem::take(&mut state.writer_waits) {
            self.not_full.notify_all();
        }
        Ok(())
    }

    /// Returns the remaining items, once nobody pops any more.
    pub(crate) fn take_rest(&self) -> VecDeque<QueueItem> {
        let mut state = self.state.lock();
        (state.bytes, state.starts, state.events) = (0, 0, 0);
        std::mem::take(&mut state.items)
    }
}

impl QueueItem {
    fn memory(&self) -> usize {
        match self {
            QueueItem::Tag { tag, .. } => tag.memory(),
            _ => 0,
        }
    }

    pub(crate) fn is_keyframe_of(&self, track: u8) -> bool {
        let is_keyframe =
            |tag: &Tag| tag.info.content == Content::Keyframe && tag.info.track == track;
        self.tag().is_some_and(is_keyframe)
    }

    fn is_unbounded(&self) -> bool {
        match self {
            QueueItem::Event(event) => event.is_unbounded(),
            QueueItem::Authorizing(_) => true,
            _ => false,
        }
    }

    fn discont_mut(&mut self) -> Option<&mut bool> {
        match self {
            QueueItem::Tag { discont, .. } => Some(discont),
            _ => None,
        }
    }

    pub(crate) fn is_media(&self) -> bool {
        self.tag().is_some_and(|tag| tag.info.is_coded())
    }

    fn tag(&self) -> Option<&Tag> {
        match self {
            QueueItem::Tag { tag, .. } => Some(tag),
            _ => None,
        }
    }
}

impl QueueState {
    fn set_writer(&mut self, writer: Option<u64>) {
        self.writer = writer;
        self.writer_blocked = false;
    }

    fn accepts_from(&self, client: u64) -> bool {
        !self.closed && self.writer == Some(client)
    }

    fn time(&self) -> Duration {
        let coded = |item: &QueueItem| {
            item.tag()
                .filter(|tag| tag.info.is_coded())
                .map(|t| t.timestamp)
        };
        let first = self.items.iter().find_map(coded);
        let last = self.items.iter().rev().find_map(coded);
        let (Some(first), Some(last)) = (first, last) else {
            return Duration::ZERO;
        };
        // Tracks are not in order with each other, so this may be negative.
        let millis = (last.wrapping_sub(first) as i32).max(0);
        Duration::from_millis(millis as u64)
    }

    /// Returns true where the streaming thread should wake. Where a queue leaks or is bounded in
    /// time, nothing must be lost only because the thread was not woken.
    fn is_much(&self) -> bool {
        let limits = &self.limits;
        let half = usize::try_from(limits.max_bytes / 2).unwrap_or(usize::MAX);
        self.bytes >= QUIET_BYTES
            || (half > 0 && self.bytes >= half)
            || limits.leak != Leak::None
            || !limits.max_time.is_zero()
    }

    /// One item is always accepted, however large it is. Starts and ends are always accepted too.
    fn is_full_for(&self, item: &QueueItem) -> bool {
        item.memory() > 0 && !self.items.is_empty() && self.is_over(item.memory())
    }

    fn is_over(&self, more: usize) -> bool {
        let QueueLimits {
            max_bytes,
            max_time,
            ..
        } = self.limits;
        let bytes = (self.bytes + more) as u64;
        (max_bytes > 0 && bytes > max_bytes) || (!max_time.is_zero() && self.time() > max_time)
    }

    fn is_over_by(&self, more: usize, slack: u64) -> bool {
        let max_bytes = self.limits.max_bytes;
        max_bytes > 0 && (self.bytes + more) as u64 > max_bytes.saturating_add(slack)
    }

    /// Queues the level of authorization if it differs from the last one queued. Clients can flip
    /// it at no cost, so it counts as an event.
    fn queue_authorizing(&mut self) -> bool {
        let is_due = self.authorizing != self.authorizing_queued;
        if !is_due || self.closed || self.events >= MAX_EVENTS {
            return false;
        }
        self.authorizing_queued = self.authorizing;
        self.events += 1;
        self.append(QueueItem::Authorizing(self.authorizing));
        true
    }

    fn append(&mut self, item: QueueItem) {
        self.bytes += item.memory();
        self.starts += usize::from(matches!(item, QueueItem::Start(_)));
        self.items.push_back(item);
    }

    fn push(&mut self, item: QueueItem) {
        let QueueItem::Tag { tag, .. } = &item else {
            self.leaking = Leaking::No;
            self.has_video = false;
            self.lowest_video_track = None;
            return self.append(item);
        };
        self.has_video |= tag.kind == TagKind::Video;
        let is_of_track = tag.info.is_coded() || tag.info.content == Content::SequenceHeader;
        if tag.kind == TagKind::Video && is_of_track {
            let (track, lowest) = (tag.info.track, self.lowest_video_track);
            self.lowest_video_track = Some(lowest.map_or(track, |lowest| lowest.min(track)));
        }
        if self.limits.leak == Leak::None {
            return self.append(item);
        }
        // Headers are small, and without them nothing after them can be decoded.
        if !tag.info.is_coded() {
            if self.is_over_by(item.memory(), CONFIGURATION_BYTES) {
                self.dropped += 1;
                return;
            }
            return self.append(item);
        }
        if self.leaking == Leaking::UntilSyncPoint {
            if !self.is_sync_point(tag) || self.is_full_for(&item) {
                self.dropped += 1;
                return;
            }
            self.leaking = Leaking::No;
            return self.append(discontinuous(item));
        }
        if !self.is_full_for(&item) {
            return self.append(item);
        }
        match self.limits.leak {
            Leak::Downstream => self.drop_old_for(item),
            Leak::Upstream | Leak::None => self.drop_new(item),
        }
    }

    /// Returns true for a keyframe of the lowest video track, and for audio where there is no video.
    fn is_sync_point(&self, tag: &Tag) -> bool {
        match tag.info.content {
            Content::Keyframe => Some(tag.info.track) == self.lowest_video_track,
            _ => tag.kind == TagKind::Audio && !self.has_video,
        }
    }

    /// Drops whole groups of pictures from the front until there is space. The group whose start has
    /// left already stays whole, as far as it is here.
    fn drop_old_for(&mut self, item: QueueItem) {
        while self.is_full_for(&item) {
            let mut starts = (0..self.items.len()).filter(|index| self.is_start(*index));
            let (first, second) = (starts.next(), starts.next());
            match (first, second) {
                (Some(first), Some(second)) => self.drop_coded(first, second),
                // The only group is the one that is being filled.
                _ => return self.drop_new(item),
            }
        }
        self.append(item);
    }

    /// Drops the group of pictures that the item belongs to: the part that is here, if its start is,
    /// and the part that is still to arrive.
    fn drop_new(&mut self, item: QueueItem) {
        let last_start = (0..self.items.len()).rfind(|index| self.is_start(*index));
        let is_start = item.tag().is_some_and(|tag| self.is_sync_point(tag));
        if let (Some(start), false) = (last_start, is_start) {
            self.drop_coded(start, self.items.len());
        }
        self.dropped += 1;
        self.leaking = Leaking::UntilSyncPoint;
    }

    fn is_start(&self, index: usize) -> bool {
        let tag = self.items[index].tag();
        tag.is_some_and(|tag| tag.info.is_coded() && self.is_sync_point(tag))
    }

    /// Drops the media from `start` to `end`, and marks the next tag.
    fn drop_coded(&mut self, start: usize, end: usize) {
        let mut configuration = Vec::new();
        for item in self.items.drain(start..end) {
            if item.tag().is_some_and(|tag| tag.info.is_coded()) {
                self.bytes -= item.memory();
                self.dropped += 1;
            } else {
                configuration.push(item);
            }
        }
        for item in configuration.into_iter().rev() {
            self.items.insert(start, item);
        }
        let mut rest = self.items.range_mut(start..);
        if let Some(discont) = rest.find_map(QueueItem::discont_mut) {
            *discont = true;
        }
    }
}

fn discontinuous(mut item: QueueItem) -> QueueItem {
    if let QueueItem::Tag { discont, .. } = &mut item {
        *discont = true;
    }
    item
}

#[cfg(test)]
mod tests;
