// SPDX-License-Identifier: MPL-2.0

//! The media queue between a publisher's read thread and the streaming thread.
//!
//! Lock order: the one lock in here is a leaf. Nothing is called out while it is held.

mod drop_news;
mod item;
mod items;
mod reports;
mod waits;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::flv::{Content, Tag, TagKind};
use crate::server::config::{Leak, QueueLimits};
use crate::server::log::CAT;
use crate::server::publisher::Publisher;
use drop_news::DropNews;
use items::Items;

pub(crate) use item::{QueueEvent, QueueItem};
pub(crate) use waits::{Stopped, Wake};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct QueueLevels {
    pub bytes: u64,
    pub time: Duration,
    /// Tags dropped because the queue was full, since the start.
    pub dropped: u64,
    /// Tags of publishers that were replaced or disconnected, since the start.
    pub cut_off: u64,
    /// Tags that were left when the queue was closed.
    pub left: u64,
    /// Publishers whose start the streaming thread has not seen yet.
    pub starts: usize,
}

/// Publishers that may start before the streaming thread has seen the first. A client that publishes
/// and leaves over and over must not fill the queue.
const MAX_STARTS: usize = 16;

/// Unbounded events that may wait. Clients cause them at no cost.
const MAX_EVENTS: usize = 64;

/// Limits of one batch. They make the wake-up of the streaming thread cheap, and are small beside
/// the limits of the queue, which does not count the batch any more.
const MAX_BATCH_ITEMS: usize = 256;
const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// Bytes and items a writer with more input pending may queue before it wakes the streaming thread.
const QUIET_BYTES: usize = 512 * 1024;
const QUIET_ITEMS: usize = MAX_BATCH_ITEMS / 2;

/// Bytes by which headers and metadata may exceed the limit of a leaky queue.
const CONFIGURATION_BYTES: u64 = 128 * 1024;

#[derive(Debug)]
pub(crate) struct MediaQueue {
    state: Mutex<QueueState>,
    not_empty: Condvar,
    not_full: Condvar,
    /// A delivery by the publisher's thread has ended.
    delivered: Condvar,
    /// Number of a writer's waits for space, since the start.
    space_waits: AtomicU64,
}

#[derive(Debug)]
struct QueueState {
    limits: QueueLimits,
    /// The client whose media is accepted.
    writer: Option<u64>,
    items: Items,
    dropped: u64,
    cut_off: u64,
    left: u64,
    drop_news: DropNews,
    /// Rejections that were left out since the last look.
    left_out_rejections: u64,
    /// Level of [`QueueItem::Authorizing`], and the level of the last one queued.
    authorizing: bool,
    authorizing_queued: bool,
    /// Sticky: set and cleared by the streaming side, and seen by it alone.
    flushing: bool,
    /// The publisher's thread delivers, and the streaming thread stays in its wait.
    is_delivering: bool,
    /// The streaming thread is wanted, also where there is no item.
    reader_called: bool,
    /// Final.
    closed: bool,
    /// A thread waits for an item, or for space.
    reader_waits: bool,
    writer_waits: bool,
    /// The writer has more input pending, and asks for the delivery of the items before it waits for
    /// anything. The streaming thread leaves them to it.
    more_follows: bool,
    /// The writer is within a wait, also just after it was woken.
    writer_blocked: bool,
    leaking: Leaking,
    video: VideoTracks,
}

/// The video of the present publisher.
#[derive(Debug, Clone, Copy, Default)]
struct VideoTracks {
    has_video: bool,
    /// The track whose keyframes start decoding.
    lowest: Option<u8>,
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
                items: Items::default(),
                dropped: 0,
                cut_off: 0,
                left: 0,
                drop_news: DropNews::default(),
                left_out_rejections: 0,
                authorizing: false,
                authorizing_queued: false,
                flushing: false,
                is_delivering: false,
                reader_called: false,
                closed: false,
                reader_waits: false,
                writer_waits: false,
                more_follows: false,
                writer_blocked: false,
                leaking: Leaking::No,
                video: VideoTracks::default(),
            }),
            not_empty: Condvar::new(),
            not_full: Condvar::new(),
            delivered: Condvar::new(),
            space_waits: AtomicU64::new(0),
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
            bytes: state.items.bytes() as u64,
            time: state.items.time(),
            dropped: state.dropped,
            cut_off: state.cut_off,
            left: state.left,
            starts: state.items.starts(),
        }
    }

    /// Returns the number of keyframes of a video track, or of all coded tags where it is None.
    pub(crate) fn decoding_starts(&self, track: Option<u8>) -> usize {
        self.state.lock().items.decoding_starts(track)
    }

    /// Ends all waits of the streaming thread at once until [`MediaQueue::end_flush`].
    pub(crate) fn begin_flush(&self) {
        self.state.lock().flushing = true;
        self.not_empty.notify_all();
        self.delivered.notify_all();
    }

    /// Ends a flush, after a delivery by the publisher's thread in it: nothing of before the flush may
    /// leave after it. `is_delivering` says that the caller is within that delivery.
    pub(crate) fn end_flush(&self, is_delivering: bool) {
        let mut state = self.state.lock();
        while state.flushing && state.is_delivering && !is_delivering {
            self.delivered.wait(&mut state);
        }
        state.flushing = false;
    }

    /// Closes the queue: all waits end, and it returns nothing more.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let left = state.items.take();
        state.left += left.iter().filter(|item| item.is_tag()).count() as u64;
        self.not_empty.notify_all();
        self.not_full.notify_all();
        self.delivered.notify_all();
    }

    /// Starts a publisher. Items of the one before stay, and no more are accepted from it. Starts
    /// and ends take no space, so this does not wait.
    pub(crate) fn start(&self, publisher: Arc<Publisher>) {
        self.switch(Some(publisher.client), QueueItem::Start(publisher));
    }

    /// Waits until one more start is accepted, or until a deadline.
    pub(crate) fn wait_until_start_accepted(&self, deadline: Instant) {
        let mut state = self.state.lock();
        while state.items.starts() >= MAX_STARTS && !state.closed {
            state.writer_waits = true;
            self.wake_reader(&mut state);
            if self.not_full.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
    }

    /// Returns true where one more start is accepted.
    pub(crate) fn accepts_start(&self) -> bool {
        self.state.lock().items.starts() < MAX_STARTS
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
        if event.is_unbounded() && state.items.events() >= MAX_EVENTS {
            state.left_out_rejections += u64::from(matches!(event, QueueEvent::Rejected(..)));
            gst::debug!(CAT, "Left out {event:?}: {MAX_EVENTS} events wait already");
            return;
        }
        state.items.append(QueueItem::Event(event));
        self.wake_reader(&mut state);
    }

    /// Returns the number of rejections that were left out since the last call.
    pub(crate) fn take_left_out_rejections(&self) -> u64 {
        std::mem::take(&mut self.state.lock().left_out_rejections)
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
            state.items.append(item);
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

    /// Returns the number of a writer's waits for space, since the start. What arrives after such a wait
    /// was sent earlier.
    pub(crate) fn space_waits(&self) -> u64 {
        self.space_waits.load(Ordering::Relaxed)
    }

    /// Adds the items of one read of a client. Waits for space as long as it takes, unless the queue
    /// leaks. Returns true where the streaming thread waits for them: call [`MediaQueue::announce`],
    /// or deliver them.
    pub(crate) fn push(&self, client: u64, items: &mut Vec<QueueItem>) -> Result<bool, Stopped> {
        let mut state = self.add(client, items)?;
        state.more_follows = false;
        Ok(state.reader_waits && state.has_work())
    }

    /// Ends what [`MediaQueue::push_quietly`] has begun. Returns true where the streaming thread waits,
    /// and there is work for it.
    pub(crate) fn is_reader_due(&self) -> bool {
        let mut state = self.state.lock();
        state.more_follows = false;
        state.reader_waits && state.has_work()
    }

    /// Wakes the streaming thread if there is work for it.
    pub(crate) fn announce(&self) {
        let mut state = self.state.lock();
        if state.has_work() {
            self.wake_reader(&mut state);
        }
    }

    /// Begins a delivery by the publisher's thread. Returns false where the streaming thread does not
    /// wait. It waits on until [`MediaQueue::end_delivery`], unless the queue is flushing or closed.
    pub(crate) fn begin_delivery(&self) -> bool {
        let mut state = self.state.lock();
        let begins = state.reader_waits && !state.is_delivering;
        state.is_delivering |= begins;
        begins
    }

    /// Ends a delivery. Wakes the streaming thread where there are more items, or where it is wanted
    /// for something else.
    pub(crate) fn end_delivery(&self, is_reader_wanted: bool) {
        let mut state = self.state.lock();
        state.is_delivering = false;
        state.reader_called |= is_reader_wanted;
        let has_work = state.has_work() && !state.more_follows;
        if state.reader_called || has_work {
            self.wake_reader(&mut state);
        }
        drop(state);
        self.delivered.notify_all();
    }

    /// Waits for the end of a delivery by the publisher's thread.
    pub(crate) fn wait_for_delivery(&self) {
        let mut state = self.state.lock();
        while state.is_delivering {
            self.delivered.wait(&mut state);
        }
    }

    /// Waits for the end of a delivery by the publisher's thread. A flush ends the wait: it may come from
    /// within that delivery.
    pub(crate) fn wait_for_delivery_or_flush(&self) -> Result<(), Stopped> {
        let mut state = self.state.lock();
        while state.is_delivering {
            if state.flushing || state.closed {
                return Err(Stopped);
            }
            self.delivered.wait(&mut state);
        }
        Ok(())
    }

    /// Returns true where [`MediaQueue::push`] would not wait for space.
    pub(crate) fn has_space_for(&self, items: &[QueueItem]) -> bool {
        let state = self.state.lock();
        state.limits.leak != Leak::None || state.has_space_for_all(items)
    }

    /// Adds items like [`MediaQueue::push`], for a writer with more input pending: it returns true
    /// only from [`QUIET_BYTES`] or [`QUIET_ITEMS`] on. Call [`MediaQueue::push`], or look at
    /// [`MediaQueue::is_reader_due`], before waiting for anything.
    pub(crate) fn push_quietly(
        &self,
        client: u64,
        items: &mut Vec<QueueItem>,
    ) -> Result<bool, Stopped> {
        let mut state = self.add(client, items)?;
        state.more_follows = true;
        Ok(state.reader_waits && state.is_much())
    }

    fn add(
        &self,
        client: u64,
        items: &mut Vec<QueueItem>,
    ) -> Result<MutexGuard<'_, QueueState>, Stopped> {
        let mut state = self.state.lock();
        if state.accepts_at_once(items) && state.accepts_from(client) {
            state.writer_blocked = false;
            state.push_at_once(items);
            return Ok(state);
        }
        let mut items = items.drain(..);
        while let Some(item) = items.next() {
            if state.limits.leak == Leak::None {
                while state.is_full_for(&item) && state.accepts_from(client) {
                    state.writer_waits = true;
                    if !std::mem::replace(&mut state.writer_blocked, true) {
                        self.space_waits.fetch_add(1, Ordering::Relaxed);
                    }
                    self.wake_reader(&mut state);
                    self.not_full.wait(&mut state);
                }
            }
            if !state.accepts_from(client) {
                state.cut_off += 1 + items.len() as u64;
                self.wake_reader(&mut state);
                return Err(Stopped);
            }
            state.writer_blocked = false;
            state.push(item);
        }
        Ok(state)
    }

    /// Wakes the streaming thread, now or at the end of a delivery.
    fn wake_reader(&self, state: &mut QueueState) {
        state.more_follows = false;
        if !state.is_delivering && std::mem::take(&mut state.reader_waits) {
            self.not_empty.notify_one();
        }
    }

    /// Waits until the streaming thread has something to do, or until a deadline. Does not return
    /// within a delivery by the publisher's thread, unless the queue is flushing or closed. For the
    /// streaming thread alone.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Result<Wake, Stopped> {
        let mut state = self.state.lock();
        let mut deadline = deadline;
        let mut wake = Wake::Called;
        loop {
            if state.flushing || state.closed {
                state.reader_waits = false;
                return Err(Stopped);
            }
            let has_work = state.has_work() && !state.more_follows;
            if !state.is_delivering && (state.reader_called || has_work) {
                state.reader_called = false;
                state.reader_waits = false;
                return Ok(wake);
            }
            state.reader_waits = true;
            match deadline {
                None => self.not_empty.wait(&mut state),
                Some(due) => {
                    if self.not_empty.wait_until(&mut state, due).timed_out() {
                        // Perhaps the end of a delivery has to be awaited.
                        deadline = None;
                        wake = Wake::TimedOut;
                        state.reader_called = true;
                    }
                }
            }
        }
    }

    /// Moves items that are there to `batch`, as [`MediaQueue::take`], for the streaming thread: it
    /// leaves them to a writer that delivers by itself. Returns true where there are drops to report.
    pub(crate) fn take_for_reader(&self, batch: &mut VecDeque<QueueItem>) -> bool {
        let state = self.state.lock();
        let has_drops = state.has_drops_to_report();
        if !state.more_follows {
            self.take_locked(state, batch);
        }
        has_drops
    }

    /// Moves items that are there to `batch`, up to the limits of one batch. None while the queue is
    /// flushing or closed.
    pub(crate) fn take(&self, batch: &mut VecDeque<QueueItem>) {
        self.take_locked(self.state.lock(), batch);
    }

    fn take_locked(&self, mut state: MutexGuard<'_, QueueState>, batch: &mut VecDeque<QueueItem>) {
        if state.flushing || state.closed {
            return;
        }
        let fits = state.items.len() <= MAX_BATCH_ITEMS && state.items.bytes() <= MAX_BATCH_BYTES;
        if fits && batch.is_empty() {
            state.items.take_into(batch);
        } else {
            state
                .items
                .pop_into(batch, MAX_BATCH_ITEMS, MAX_BATCH_BYTES);
        }
        state.queue_authorizing();
        if std::mem::take(&mut state.writer_waits) {
            self.not_full.notify_all();
        }
    }

    /// Returns the remaining items, once nobody pops any more.
    pub(crate) fn take_rest(&self) -> VecDeque<QueueItem> {
        self.state.lock().items.take()
    }
}

impl QueueState {
    fn set_writer(&mut self, writer: Option<u64>) {
        self.writer = writer;
        self.writer_blocked = false;
    }

    /// Returns true where there is something for the streaming thread.
    fn has_work(&self) -> bool {
        !self.items.is_empty() || self.has_drops_to_report()
    }

    fn has_drops_to_report(&self) -> bool {
        self.drop_news.is_any(self.drops())
    }

    /// Returns the number of tags that the queue has dropped.
    fn drops(&self) -> u64 {
        self.dropped + self.cut_off
    }

    fn accepts_from(&self, client: u64) -> bool {
        !self.closed && self.writer == Some(client)
    }

    /// Returns true where the streaming thread should wake. Where a queue leaks or is bounded in
    /// time, nothing must be lost only because the thread was not woken.
    fn is_much(&self) -> bool {
        let limits = &self.limits;
        let half = usize::try_from(limits.max_bytes / 2).unwrap_or(usize::MAX);
        let bytes = self.items.bytes();
        bytes >= QUIET_BYTES
            || self.items.len() >= QUIET_ITEMS
            || (half > 0 && bytes >= half)
            || limits.leak != Leak::None
            || !limits.max_time.is_zero()
    }

    /// One item is always accepted, however large it is. Starts and ends are always accepted too.
    fn is_full_for(&self, item: &QueueItem) -> bool {
        item.memory() > 0 && !self.items.is_empty() && self.is_over(item.memory())
    }

    /// Returns true where these items fit together, and none of them has to wait.
    fn has_space_for_all(&self, items: &[QueueItem]) -> bool {
        let bytes = items.iter().map(QueueItem::memory).sum();
        self.limits.max_time.is_zero() && !self.is_over(bytes)
    }

    fn is_over(&self, more: usize) -> bool {
        let QueueLimits {
            max_bytes,
            max_time,
            ..
        } = self.limits;
        let bytes = (self.items.bytes() + more) as u64;
        let time = || self.items.time();
        (max_bytes > 0 && bytes > max_bytes) || (!max_time.is_zero() && time() > max_time)
    }

    fn is_over_by(&self, more: usize, slack: u64) -> bool {
        let max_bytes = self.limits.max_bytes;
        let bytes = (self.items.bytes() + more) as u64;
        max_bytes > 0 && bytes > max_bytes.saturating_add(slack)
    }

    /// Queues the level of authorization if it differs from the last one queued. Clients can flip
    /// it at no cost, so it counts as an event.
    fn queue_authorizing(&mut self) -> bool {
        let is_due = self.authorizing != self.authorizing_queued;
        if !is_due || self.closed || self.items.events() >= MAX_EVENTS {
            return false;
        }
        self.authorizing_queued = self.authorizing;
        self.items.append(QueueItem::Authorizing(self.authorizing));
        true
    }

    /// Returns true for tags that all fit into a queue that does not leak.
    fn accepts_at_once(&self, items: &[QueueItem]) -> bool {
        let are_tags = items.iter().all(QueueItem::is_tag);
        self.limits.leak == Leak::None && are_tags && self.has_space_for_all(items)
    }

    /// Queues tags for which nothing has to be dropped.
    fn push_at_once(&mut self, tags: &mut Vec<QueueItem>) {
        let video = &mut self.video;
        self.items.append_tags(tags, |tag| {
            video.note(tag);
            tag.info.is_coded() && video.is_sync_point(tag)
        });
    }

    fn push(&mut self, item: QueueItem) {
        let QueueItem::Tag { tag, .. } = &item else {
            self.leaking = Leaking::No;
            self.video = VideoTracks::default();
            self.items.end_group();
            return self.items.append(item);
        };
        self.video.note(tag);
        if !tag.info.is_coded() {
            // Headers are small, and without them nothing after them can be decoded.
            let is_refused = self.limits.leak != Leak::None
                && self.is_over_by(item.memory(), CONFIGURATION_BYTES);
            if is_refused {
                self.dropped += 1;
            } else {
                self.items.append(item);
            }
            return;
        }
        let is_sync_point = self.video.is_sync_point(tag);
        match (self.limits.leak, self.leaking) {
            (Leak::None, _) => self.append_coded(item, is_sync_point),
            (_, Leaking::UntilSyncPoint) => {
                if !is_sync_point || self.is_full_for(&item) {
                    self.dropped += 1;
                    return;
                }
                self.leaking = Leaking::No;
                self.append_coded(discontinuous(item), is_sync_point);
            }
            (Leak::Downstream, Leaking::No) => {
                // The group whose start has left already stays whole, as far as it is here.
                while self.is_full_for(&item) && self.items.has_old_group() {
                    self.dropped += self.items.drop_oldest_group();
                }
                // The only group left may be the one that is being filled.
                self.append_or_drop(item, is_sync_point);
            }
            (Leak::Upstream, Leaking::No) => self.append_or_drop(item, is_sync_point),
        }
    }

    #[inline]
    fn append_coded(&mut self, item: QueueItem, is_sync_point: bool) {
        if is_sync_point {
            self.items.append_group(item);
        } else {
            self.items.append(item);
        }
    }

    /// Appends a coded tag if there is space. Else drops the group of pictures that it belongs to: the
    /// part that is here, if its start is, and the part that is still to arrive.
    fn append_or_drop(&mut self, item: QueueItem, is_sync_point: bool) {
        if !self.is_full_for(&item) {
            return self.append_coded(item, is_sync_point);
        }
        if !is_sync_point {
            self.dropped += self.items.drop_newest_group();
        }
        self.dropped += 1;
        self.leaking = Leaking::UntilSyncPoint;
    }
}

impl VideoTracks {
    #[inline]
    fn note(&mut self, tag: &Tag) {
        if tag.kind != TagKind::Video {
            return;
        }
        self.has_video = true;
        if tag.info.is_coded() || tag.info.content == Content::SequenceHeader {
            let track = tag.lowest_track();
            self.lowest = Some(self.lowest.map_or(track, |lowest| lowest.min(track)));
        }
    }

    /// Returns true for a keyframe of the lowest video track, and for audio where there is no video.
    #[inline]
    fn is_sync_point(&self, tag: &Tag) -> bool {
        match tag.info.content {
            Content::Keyframe => Some(tag.lowest_track()) == self.lowest,
            _ => tag.kind == TagKind::Audio && !self.has_video,
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
