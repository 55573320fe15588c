// SPDX-License-Identifier: MPL-2.0

//! The media queue between a client's read thread and the streaming thread.
//!
//! Lock order: the one lock in here is a leaf. Nothing is called out while it is held.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::flv::{Content, Tag, TagKind};
use crate::server::publisher::{Publisher, RejectReason, RemovalReason};

/// What to do when the queue is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Leak {
    /// Stop reading, so that TCP pushes back on the publisher. Nothing is lost.
    #[default]
    None,
    /// Drop new media.
    Upstream,
    /// Drop old media.
    Downstream,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Bytes of memory, 0 for no limit.
    pub max_bytes: u64,
    /// Media time, zero for no limit.
    pub max_time: Duration,
    pub leak: Leak,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueLevels {
    pub bytes: u64,
    pub time: Duration,
    /// Tags dropped because the queue was full, ever.
    pub dropped: u64,
    /// Tags of publishers from which nothing was taken any more, ever.
    pub cut_off: u64,
    /// Publishers whose start waits.
    pub starts: usize,
}

/// What the streaming thread gets.
#[derive(Debug)]
pub enum QueueItem {
    Start(Arc<Publisher>),
    Tag {
        tag: Tag,
        arrival: Instant,
        /// Tags before it were dropped.
        discont: bool,
    },
    /// The publisher has sent no media for a while: when the last of its bytes came.
    Stalled {
        last_read: Instant,
    },
    /// Media comes again.
    Resumed,
    /// The publisher was cut off, and may come back: another start, or the end, follows.
    Lost,
    /// Something that the application should know.
    Event(QueueEvent),
    /// The publisher has left.
    End {
        /// There will be no other.
        is_last: bool,
    },
}

/// What happened to publishers, besides what they send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueEvent {
    /// A client wants to publish, and it is not decided whether it may.
    Asked(Arc<Publisher>),
    /// It has gone before that.
    Withdrawn,
    Rejected(Arc<Publisher>, RejectReason),
    /// The present publisher was replaced by the one that starts next.
    Replaced(Arc<Publisher>),
    ReconnectRequested(Arc<Publisher>),
    /// Somebody downstream wants a keyframe. Why the publisher was not asked to connect again for
    /// it; None if it was.
    KeyframeRequested(Option<&'static str>),
    Gone(Arc<Publisher>, RemovalReason),
}

/// Publishers that may have come and gone without the streaming thread having noticed the first: a
/// client that publishes and leaves over and over must not fill the queue with itself.
const MAX_STARTS: usize = 16;

/// Events that may wait. Clients can cause them for nothing.
const MAX_EVENTS: usize = 64;

/// The queue was shut down or is flushing, or takes nothing from this publisher any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// Most that leaves the queue at once. Enough to make the wake-up of the streaming thread cheap,
/// and little beside the limits of the queue, which does not count it any more.
const MAX_BATCH_ITEMS: usize = 128;
const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// How much may come together without waking the streaming thread, by who has more at hand.
const QUIET_BYTES: usize = 512 * 1024;

/// How far what is not media may go over the limit of a leaky queue.
const CONFIGURATION_BYTES: u64 = 128 * 1024;

#[derive(Debug)]
pub struct MediaQueue {
    state: Mutex<QueueState>,
    not_empty: Condvar,
    not_full: Condvar,
}

#[derive(Debug)]
struct QueueState {
    limits: QueueLimits,
    /// The client that may put media in.
    writer: Option<u64>,
    items: VecDeque<QueueItem>,
    bytes: usize,
    dropped: u64,
    cut_off: u64,
    starts: usize,
    events: usize,
    /// Sticky: set and cleared by the streaming side, and seen by it alone.
    flushing: bool,
    /// Final.
    closed: bool,
    /// Somebody waits for an item, or for room.
    reader_waits: bool,
    writer_waits: bool,
    /// The writer is in the middle of a wait, also when it has just been woken.
    writer_blocked: bool,
    leaking: Leaking,
    /// The present publisher has sent video.
    has_video: bool,
    /// The video track whose keyframes start decoding.
    lowest_video_track: Option<u8>,
}

/// Whether a leaky queue is in the middle of leaving something out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaking {
    No,
    /// Up to the next point where decoding can start.
    UntilSyncPoint,
}

impl MediaQueue {
    pub fn new(limits: QueueLimits) -> Self {
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

    pub fn set_limits(&self, limits: QueueLimits) {
        let mut state = self.state.lock();
        state.limits = limits;
        self.not_full.notify_all();
    }

    pub fn levels(&self) -> QueueLevels {
        let state = self.state.lock();
        QueueLevels {
            bytes: state.bytes as u64,
            time: state.time(),
            dropped: state.dropped,
            cut_off: state.cut_off,
            starts: state.starts,
        }
    }

    /// How many of what waits are of a kind.
    pub fn count(&self, is_of_kind: impl Fn(&QueueItem) -> bool) -> usize {
        let state = self.state.lock();
        state.items.iter().filter(|item| is_of_kind(item)).count()
    }

    /// Streaming side: makes [`MediaQueue::pop`] return at once until it is unset.
    pub fn set_flushing(&self, flushing: bool) {
        self.state.lock().flushing = flushing;
        self.not_empty.notify_all();
    }

    /// Ends the queue: nobody waits in it any more, and nothing more comes out.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.items.clear();
        state.bytes = 0;
        state.starts = 0;
        state.events = 0;
        self.not_empty.notify_all();
        self.not_full.notify_all();
    }

    /// A publisher begins. What the one before has put in stays; what it still has does not get
    /// in. Starts and ends take no room, so this does not wait.
    pub fn start(&self, publisher: Arc<Publisher>) {
        self.switch(Some(publisher.client), QueueItem::Start(publisher));
    }

    /// Waits until there is room for one more start, or until a deadline.
    pub fn wait_for_room_to_start(&self, deadline: Instant) {
        let mut state = self.state.lock();
        while state.starts >= MAX_STARTS && !state.closed {
            state.writer_waits = true;
            self.wake_reader(&mut state);
            if self.not_full.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
    }

    /// Whether more publishers wait to be started than there should be.
    pub fn has_room_to_start(&self) -> bool {
        self.state.lock().starts < MAX_STARTS
    }

    /// The publisher was cut off, and there may be another one.
    pub fn lose(&self) {
        self.switch(None, QueueItem::Lost);
    }

    /// Tells the streaming thread of something, in order with all else. What it does not get to in
    /// time is left out.
    pub fn tell(&self, event: QueueEvent) {
        let mut state = self.state.lock();
        let event = if state.events < MAX_EVENTS {
            Some(event)
        } else {
            state.end_of_request(&event)
        };
        if let Some(event) = event.filter(|_| !state.closed) {
            state.events += 1;
            state.append(QueueItem::Event(event));
            self.wake_reader(&mut state);
        }
    }

    /// The media of a client has stopped to come, or comes again.
    pub fn note(&self, client: u64, item: QueueItem) {
        let mut state = self.state.lock();
        if state.takes_from(client) {
            state.append(item);
            self.wake_reader(&mut state);
        }
    }

    /// The publisher is gone.
    pub fn end(&self, is_last: bool) {
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

    /// Takes nothing more from the present publisher, which need not wait any longer.
    pub fn revoke(&self) {
        self.state.lock().set_writer(None);
        self.not_full.notify_all();
    }

    /// Whether a publisher waits for room.
    pub fn is_writer_waiting(&self) -> bool {
        self.state.lock().writer_blocked
    }

    /// Puts in what one read of a client brought. Waits for room as long as it takes, unless the
    /// queue leaks.
    pub fn push(&self, client: u64, items: &mut Vec<QueueItem>) -> Result<(), Stopped> {
        self.push_quietly(client, items)?;
        self.announce();
        Ok(())
    }

    /// Wakes the streaming thread if there is something for it.
    pub fn announce(&self) {
        let mut state = self.state.lock();
        if !state.items.is_empty() {
            self.wake_reader(&mut state);
        }
    }

    /// Like [`MediaQueue::push`], for who has more at hand and would wake the streaming thread over
    /// and over: it wakes only when enough has come together. Follow it by
    /// [`MediaQueue::announce`] or [`MediaQueue::push`] before waiting for anything.
    pub fn push_quietly(&self, client: u64, items: &mut Vec<QueueItem>) -> Result<(), Stopped> {
        let mut state = self.state.lock();
        let mut items = items.drain(..);
        while let Some(item) = items.next() {
            if state.limits.leak == Leak::None {
                while state.is_full_for(&item) && state.takes_from(client) {
                    state.writer_waits = true;
                    state.writer_blocked = true;
                    self.wake_reader(&mut state);
                    self.not_full.wait(&mut state);
                }
            }
            if !state.takes_from(client) {
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

    /// Appends what waits, some of it where it is much, to `batch`. Waits for the first item, until
    /// a deadline if there is one: then there may be nothing.
    pub fn pop(
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
            state.events -= usize::from(matches!(item, QueueItem::Event(_)));
            batch.push_back(item);
            if bytes >= MAX_BATCH_BYTES {
                break;
            }
        }
        state.bytes -= bytes;
        if std::mem::take(&mut state.writer_waits) {
            self.not_full.notify_all();
        }
        Ok(())
    }

    /// What is left when nobody pops any more.
    pub fn take_rest(&self) -> VecDeque<QueueItem> {
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

    pub fn is_keyframe_of(&self, track: u8) -> bool {
        let is_keyframe =
            |tag: &Tag| tag.info.content == Content::Keyframe && tag.info.track == track;
        self.tag().is_some_and(is_keyframe)
    }

    fn discont_mut(&mut self) -> Option<&mut bool> {
        match self {
            QueueItem::Tag { discont, .. } => Some(discont),
            _ => None,
        }
    }

    pub fn is_media(&self) -> bool {
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

    fn takes_from(&self, client: u64) -> bool {
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
        // Tracks are not in order with each other, so this may be less than nothing.
        let millis = (last.wrapping_sub(first) as i32).max(0);
        Duration::from_millis(millis as u64)
    }

    /// Whether the streaming thread should get to work. Where a queue leaks or is bounded in time,
    /// nothing must be lost only because nobody was woken.
    fn is_much(&self) -> bool {
        let limits = &self.limits;
        let half = usize::try_from(limits.max_bytes / 2).unwrap_or(usize::MAX);
        self.bytes >= QUIET_BYTES
            || (half > 0 && self.bytes >= half)
            || limits.leak != Leak::None
            || !limits.max_time.is_zero()
    }

    /// One item is always taken, however large it is. Starts and ends are always taken too.
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

    /// What is to be told where there is no room for an event: that somebody asked and is gone must
    /// get through, once, since it may have been told that somebody asks.
    fn end_of_request(&self, event: &QueueEvent) -> Option<QueueEvent> {
        let is_told = matches!(
            self.items.back(),
            Some(QueueItem::Event(QueueEvent::Withdrawn))
        );
        let is_end = matches!(event, QueueEvent::Withdrawn | QueueEvent::Rejected(..));
        (is_end && !is_told).then_some(QueueEvent::Withdrawn)
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
        if tag.kind == TagKind::Video && tag.info.content != Content::Command {
            let (track, lowest) = (tag.info.track, self.lowest_video_track);
            self.lowest_video_track = Some(lowest.map_or(track, |lowest| lowest.min(track)));
        }
        if self.limits.leak == Leak::None {
            return self.append(item);
        }
        // Configuration is small, and without it nothing behind it can be decoded.
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

    /// Decoding can start at a keyframe, or anywhere where there is no video.
    fn is_sync_point(&self, tag: &Tag) -> bool {
        match tag.info.content {
            Content::Keyframe => Some(tag.info.track) == self.lowest_video_track,
            _ => tag.kind == TagKind::Audio && !self.has_video,
        }
    }

    /// Drops whole groups of pictures from the front until there is room. The group whose start
    /// has left already stays whole as far as it has come.
    fn drop_old_for(&mut self, item: QueueItem) {
        while self.is_full_for(&item) {
            let mut starts = (0..self.items.len()).filter(|index| self.is_start(*index));
            let (first, second) = (starts.next(), starts.next());
            match (first, second) {
                (Some(first), Some(second)) => self.drop_coded(first, second),
                // There is no whole group but the one that is being filled.
                _ => return self.drop_new(item),
            }
        }
        self.append(item);
    }

    /// Leaves out the group of pictures that the item belongs to: what is here of it, if its start
    /// is, and what is to come.
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

    /// Drops the media from `start` to `end`, and marks what follows.
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
