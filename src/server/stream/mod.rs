// SPDX-License-Identifier: MPL-2.0

//! Where an element and its publisher meet.

pub(crate) mod publisher_handle;
pub(crate) mod queue;
pub(crate) mod table;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::server::events::{MAX_WAITING, Observer, PublisherEvent};
use crate::server::port::listener::{ListenerSettings, PortSettings};
use crate::server::publisher::{Publisher, RejectReason, RemovalReason};
use crate::server::routing::access::Access;
use crate::server::routing::route::Route;
use crate::server::routing::rules::PublishRules;
use crate::server::stats::{Arrival, LastError, MediaTotals, StreamCounters, StreamStats};
use crate::server::stream::publisher_handle::PublisherHandle;
use crate::server::stream::queue::{MediaQueue, QueueEvent, QueueLimits};

/// What to do with a publisher on a route that has one already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    Reject,
    /// The new one takes over.
    Replace,
    /// The new one takes over if the old one has sent no media for a while.
    #[default]
    ReplaceStalled,
}

/// What an element decides for its publishers. It may change while there is one.
#[derive(Debug, Clone, Copy)]
pub struct StreamSettings {
    pub limits: QueueLimits,
    /// A publisher that sends nothing for this long is cut off. Zero for never.
    pub timeout: Duration,
    /// Whether there may be another publisher after one has left.
    pub keep_listening: bool,
    pub policy: Policy,
    /// A publisher that sends no media for this long is stalled. Zero for never.
    pub stall_timeout: Duration,
    /// A publisher that was cut off may come back for this long. Zero for not at all.
    pub resume_timeout: Duration,
}

/// What an stream is made of.
#[derive(Debug)]
pub struct PublishPointConfig {
    /// Quoted to whoever claims the same route again.
    pub name: String,
    pub route: Route,
    pub access: Access,
    pub settings: StreamSettings,
    pub listener: ListenerSettings,
    pub port: PortSettings,
    pub observer: Arc<dyn Observer>,
}

/// Why nobody was asked to connect again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReconnectError {
    NoPublisher,
    /// It does not know how to.
    NotSupported,
    /// It does not read what it is sent.
    NotReading,
}

/// Counters of the present publisher, or the last one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientStats {
    pub in_bytes_total: u64,
    pub out_bytes_total: u64,
    pub in_bytes_acked: u64,
    pub out_bytes_acked: u64,
    pub in_chunk_size: u32,
    pub out_chunk_size: u32,
    pub in_window_ack_size: u32,
    pub out_window_ack_size: u32,
    pub audio_tags: u64,
    pub video_tags: u64,
    pub script_tags: u64,
    /// In the bodies of tags.
    pub audio_bytes: u64,
    pub video_bytes: u64,
    pub script_bytes: u64,
    pub keyframes: u64,
    pub frames: FrameStats,
    /// Messages left out because no decoder could use them.
    pub skipped: u64,
    /// Bits in the last second or so.
    pub bitrate: u64,
    pub bitrate_at: Option<Instant>,
    pub bitrate_peak: u64,
    pub last_byte: Option<Instant>,
    pub last_keyframe: Option<Instant>,
}

/// How video frames follow each other, by their own times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameStats {
    /// Frames in so many milliseconds, lately.
    pub rate: (u32, u32),
    /// Of the last whole group of pictures: frames, and milliseconds from its keyframe to the next.
    pub gop_length: u32,
    pub gop_millis: u32,
}

impl FrameStats {
    pub fn frames_per_second(&self) -> f64 {
        match self.rate {
            (_, 0) => 0.0,
            (frames, millis) => f64::from(frames) * 1000.0 / f64::from(millis),
        }
    }
}

/// Tags of all publishers that did not leave the element, by what kept them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// The queue was full, and leaks.
    pub queue_full: u64,
    /// They came before the first keyframe.
    pub before_keyframe: u64,
    /// They describe media that has not come, and are more than can be kept.
    pub descriptions: u64,
    /// Their publisher had been replaced or told to go.
    pub cut_off: u64,
    /// They were part of a backlog.
    pub late: u64,
    /// They are in a codec that is not wanted.
    pub codec_refused: u64,
}

impl Dropped {
    pub fn sum(&self) -> u64 {
        let Dropped {
            queue_full,
            before_keyframe,
            descriptions,
            cut_off,
            late,
            codec_refused,
        } = *self;
        queue_full + before_keyframe + descriptions + cut_off + late + codec_refused
    }
}

/// How long a publisher waits for one that has closed its connection, and of which there is still
/// something to be read.
pub(crate) const MAX_DEPARTURE: Duration = Duration::from_secs(3);

/// The receiving end of one route: who publishes on it, the queue of what it sends, and counters.
pub struct Stream {
    rules: Arc<PublishRules>,
    /// Its number, if it is one of several streams of an element.
    number: Option<u32>,
    settings: Mutex<StreamSettings>,
    queue: MediaQueue,
    slot: Mutex<Slot>,
    /// The slot has become vacant, or there is none any more.
    vacated: Condvar,
    counters: Mutex<StreamCounters>,
    rejected: AtomicU64,
    /// What the element has left out behind the queue.
    left_out: Mutex<Dropped>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("name", &self.rules.name())
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Slot {
    holder: SlotState,
    /// No new publishers, and the present one is cut off at this time.
    drained_at: Option<Instant>,
}

#[derive(Debug)]
enum SlotState {
    Empty,
    Active(ActivePublisher),
    /// Its publisher was cut off, and may come back until then.
    AwaitingReturn {
        until: Instant,
    },
    /// There will be no other.
    Ended,
}

#[derive(Debug)]
struct ActivePublisher {
    publisher: Arc<Publisher>,
    link: Arc<PublisherHandle>,
    /// It has ended its stream, and is about to go: the next one need not wait for that.
    leaving: bool,
}

impl Stream {
    pub fn new(config: PublishPointConfig) -> Self {
        let (rules, settings) = PublishRules::new(config, MAX_WAITING);
        Self::behind(rules, settings, None)
    }

    /// One of several streams, if it has a number.
    pub(crate) fn behind(
        rules: Arc<PublishRules>,
        settings: StreamSettings,
        number: Option<u32>,
    ) -> Self {
        Stream {
            rules,
            number,
            settings: Mutex::new(settings),
            queue: MediaQueue::new(settings.limits),
            slot: Mutex::new(Slot {
                holder: SlotState::Empty,
                drained_at: None,
            }),
            vacated: Condvar::new(),
            counters: Mutex::default(),
            rejected: AtomicU64::default(),
            left_out: Mutex::default(),
        }
    }

    /// Takes effect at once.
    pub fn configure(&self, settings: StreamSettings) {
        self.queue.set_limits(settings.limits);
        *self.settings.lock() = settings;
    }

    pub(crate) fn rules(&self) -> &PublishRules {
        &self.rules
    }

    pub fn queue(&self) -> &MediaQueue {
        &self.queue
    }

    pub fn publisher(&self) -> Option<Arc<Publisher>> {
        let slot = self.slot.lock();
        slot.active().map(|active| active.publisher.clone())
    }

    pub fn stats(&self, now: Instant) -> StreamStats {
        self.counters.lock().at(now)
    }

    /// How many there have been.
    pub(crate) fn publishers(&self) -> u64 {
        self.counters.lock().publishers()
    }

    /// Counters of all publishers.
    pub fn totals(&self) -> MediaTotals {
        self.counters.lock().totals()
    }

    pub fn dropped(&self) -> Dropped {
        let levels = self.queue.levels();
        Dropped {
            queue_full: levels.dropped,
            cut_off: levels.cut_off,
            ..*self.left_out.lock()
        }
    }

    /// What the element has left out behind the queue, ever.
    pub fn set_left_out(&self, left_out: Dropped) {
        *self.left_out.lock() = left_out;
    }

    /// Clients that were refused.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Ends the present publisher, and tells it so. One that was cut off is not awaited any longer.
    pub fn disconnect(self: &Arc<Self>) {
        let mut slot = self.slot.lock();
        match &slot.holder {
            SlotState::Active(active) => {
                let link = active.link.clone();
                drop(slot);
                self.dismiss(&link);
            }
            SlotState::AwaitingReturn { .. } => self.stop_awaiting(&mut slot),
            SlotState::Empty | SlotState::Ended => {}
        }
    }

    fn dismiss(self: &Arc<Self>, link: &PublisherHandle) {
        link.dismiss(RemovalReason::Disconnected);
        self.leave(link.client, RemovalReason::Disconnected);
    }

    /// The first of the stream is about to leave the element. The observer hears of it.
    pub fn tell_flowing(&self) {
        if let Some(number) = self.number {
            self.rules.post(PublisherEvent::Flowing(number));
        }
    }

    /// The stream is to end: whoever publishes is told to go, and nobody comes any more. What there is still leaves.
    pub fn end(self: &Arc<Self>) {
        drop(self.end_seat());
        self.vacated.notify_all();
    }

    /// All of the stream has left the element, or it takes no more of it. Whoever still publishes is
    /// told so. The observer hears of that first.
    pub fn finish(self: &Arc<Self>) {
        let slot = self.end_seat();
        // In one step with that, so that nobody is added who would be cut off without a word.
        if let Some(number) = self.number {
            self.rules.post(PublisherEvent::Finished(number));
        }
        drop(slot);
        self.vacated.notify_all();
    }

    fn end_seat(self: &Arc<Self>) -> MutexGuard<'_, Slot> {
        let mut slot = self.slot.lock();
        // Another one may take over while this one is told.
        while let Some(link) = slot.active().map(|active| active.link.clone()) {
            drop(slot);
            self.dismiss(&link);
            slot = self.slot.lock();
        }
        if !matches!(slot.holder, SlotState::Ended) {
            self.queue.end(true);
            slot.holder = SlotState::Ended;
        }
        slot
    }

    /// Asks the present publisher to connect again, perhaps elsewhere.
    pub fn request_reconnect(
        &self,
        tc_url: Option<&str>,
        description: &str,
    ) -> Result<(), ReconnectError> {
        let slot = self.slot.lock();
        let active = slot.active().ok_or(ReconnectError::NoPublisher)?;
        let (link, publisher) = (active.link.clone(), active.publisher.clone());
        drop(slot);
        link.request_reconnect(tc_url, description)?;
        self.queue.tell(QueueEvent::ReconnectRequested(publisher));
        Ok(())
    }

    pub fn access(&self) -> &Access {
        self.rules.access()
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        let timeout = self.settings.lock().timeout;
        (!timeout.is_zero()).then_some(timeout)
    }

    pub(crate) fn stall_timeout(&self) -> Option<Duration> {
        let timeout = self.settings.lock().stall_timeout;
        (!timeout.is_zero()).then_some(timeout)
    }

    /// Counts for the publisher that there is, and not for one that was replaced.
    pub(crate) fn set_stats(&self, client: u64, stats: &ClientStats) {
        self.counters.lock().set(client, stats);
    }

    /// A client was refused or cut off, for a reason without anything secret.
    pub(crate) fn set_last_error(&self, address: SocketAddr, reason: String) {
        let at = Instant::now();
        self.counters.lock().set_error(LastError {
            reason,
            address,
            at,
        });
    }

    /// The application is asked about a client.
    pub(crate) fn set_asked(&self, publisher: &Publisher) {
        self.queue
            .tell(QueueEvent::Asked(Arc::new(publisher.clone())));
    }

    /// Whoever asked has gone without having published or having been refused.
    pub(crate) fn withdraw(&self) {
        self.queue.tell(QueueEvent::Withdrawn);
    }

    pub(crate) fn reject(&self, publisher: Arc<Publisher>, refusal: RejectReason) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        self.set_last_error(publisher.address, refusal.reason());
        self.queue
            .tell(QueueEvent::Rejected(publisher.clone(), refusal));
        self.rules
            .post(PublisherEvent::Rejected(publisher, refusal));
    }

    /// Whether a publisher would be taken, as far as it can be said now.
    pub(crate) fn availability(&self) -> Result<(), RejectReason> {
        let deadline = Instant::now() + MAX_DEPARTURE;
        let mut slot = self.wait_for_room_to_start(deadline);
        self.wait_for_departure(&mut slot, deadline);
        self.check(&slot)
    }

    /// There has to be room only where there may be another publisher.
    fn wait_for_room_to_start(&self, deadline: Instant) -> MutexGuard<'_, Slot> {
        let slot = self.slot.lock();
        if self.has_ended(&slot) {
            return slot;
        }
        drop(slot);
        self.queue.wait_for_room_to_start(deadline);
        self.slot.lock()
    }

    fn check(&self, slot: &Slot) -> Result<(), RejectReason> {
        if slot.drained_at.is_some() {
            return Err(RejectReason::Draining);
        }
        // First, since another stream would have room.
        if self.has_ended(slot) {
            return Err(RejectReason::Ended);
        }
        if !self.queue.has_room_to_start() || self.rules.is_behind() {
            return Err(RejectReason::Busy);
        }
        match &slot.holder {
            SlotState::Empty | SlotState::AwaitingReturn { .. } => Ok(()),
            SlotState::Ended => Err(RejectReason::Ended),
            SlotState::Active(active) => self.check_policy(active),
        }
    }

    fn check_policy(&self, active: &ActivePublisher) -> Result<(), RejectReason> {
        let StreamSettings {
            policy,
            stall_timeout,
            ..
        } = *self.settings.lock();
        if active.leaving {
            return Ok(());
        }
        let may_replace = match policy {
            Policy::Reject => false,
            Policy::Replace => true,
            Policy::ReplaceStalled => {
                active.link.has_hung_up() || self.is_stalled(active, stall_timeout)
            }
        };
        if may_replace {
            Ok(())
        } else {
            Err(RejectReason::Busy)
        }
    }

    /// Who waits for room in the queue, or has sent what nobody has read yet, is not to blame.
    fn is_stalled(&self, active: &ActivePublisher, timeout: Duration) -> bool {
        !timeout.is_zero()
            && active.link.silent_for() >= timeout
            && !self.queue.is_writer_waiting()
            && !active.link.has_unread()
    }

    /// Makes a client the publisher, if it may be. One of several that try at once gets it.
    pub(crate) fn take(
        &self,
        mut publisher: Publisher,
        link: Arc<PublisherHandle>,
    ) -> Result<Arc<Publisher>, RejectReason> {
        publisher.stream = self.number;
        let publisher = Arc::new(publisher);
        let deadline = Instant::now() + MAX_DEPARTURE;
        let mut slot = self.wait_for_room_to_start(deadline);
        self.wait_for_departure(&mut slot, deadline);
        self.check(&slot)?;
        let active = ActivePublisher {
            publisher: publisher.clone(),
            link,
            leaving: false,
        };
        // Before the queue stops to take anything from it, so that it knows why.
        if let SlotState::Active(before) = &slot.holder
            && !before.leaving
        {
            before.link.mark(RemovalReason::Replaced);
            let event = QueueEvent::Replaced(before.publisher.clone());
            self.queue.tell(event);
        }
        self.queue.start(publisher.clone());
        let coming = match &slot.holder {
            SlotState::Active(before) if !before.leaving => Arrival::Replacement,
            SlotState::AwaitingReturn { .. } => Arrival::Return,
            SlotState::Active(_) | SlotState::Empty | SlotState::Ended => Arrival::New,
        };
        let now = Instant::now();
        self.counters.lock().come(publisher.client, coming, now);
        let before = std::mem::replace(&mut slot.holder, SlotState::Active(active));
        let replaced = match before {
            SlotState::Active(before) if before.leaving => {
                let notice = PublisherEvent::Removed(before.publisher, RemovalReason::Unpublished);
                self.rules.post(notice);
                None
            }
            SlotState::Active(before) => {
                let notice = PublisherEvent::Removed(before.publisher, RemovalReason::Replaced);
                self.rules.post(notice);
                Some(before.link)
            }
            SlotState::Empty | SlotState::AwaitingReturn { .. } | SlotState::Ended => None,
        };
        self.rules.post(PublisherEvent::Added(publisher.clone()));
        drop(slot);
        if let Some(link) = replaced {
            link.dismiss(RemovalReason::Replaced);
        }
        Ok(publisher)
    }

    /// A publisher that has closed its connection leaves as soon as the rest of what it sent is
    /// read. The next one waits for that, so that nothing is lost.
    fn wait_for_departure(&self, slot: &mut MutexGuard<'_, Slot>, deadline: Instant) {
        while let Some(active) = slot.active()
            && !active.leaving
            && active.link.has_hung_up()
        {
            if self.vacated.wait_until(slot, deadline).timed_out() {
                return;
            }
        }
    }

    /// The publisher has ended its stream, and will [leave](Stream::leave) in a moment.
    pub(crate) fn set_leaving(&self, client: u64) {
        if let Some(active) = self.slot.lock().active_of(client) {
            active.leaving = true;
        }
    }

    /// The publisher has left. What it sent before is still in the queue.
    pub(crate) fn leave(self: &Arc<Self>, client: u64, removal: RemovalReason) {
        let mut slot = self.slot.lock();
        if let Some(active) = slot.active_of(client) {
            let unpublished = active.leaving;
            let removal = if unpublished {
                RemovalReason::Unpublished
            } else {
                removal
            };
            let resume_timeout = self.settings.lock().resume_timeout;
            if removal.is_cut_off() && !resume_timeout.is_zero() && slot.drained_at.is_none() {
                self.await_return(slot, removal, resume_timeout);
            } else {
                self.vacate(slot, removal);
            }
        }
    }

    /// The stream goes on if the publisher comes back in time.
    fn await_return(
        self: &Arc<Self>,
        mut slot: MutexGuard<'_, Slot>,
        removal: RemovalReason,
        timeout: Duration,
    ) {
        self.queue.lose();
        let now = Instant::now();
        self.counters.lock().leave(now);
        let until = now + timeout;
        let holder = std::mem::replace(&mut slot.holder, SlotState::AwaitingReturn { until });
        if let SlotState::Active(active) = holder {
            let notice = PublisherEvent::Removed(active.publisher, removal);
            self.rules.post(notice);
            drop(slot);
            active.link.call_at(until, Arc::downgrade(self));
        }
        self.vacated.notify_all();
    }

    fn vacate(&self, mut slot: MutexGuard<'_, Slot>, removal: RemovalReason) {
        let is_last = !self.settings.lock().keep_listening || slot.drained_at.is_some();
        // Before the slot is free, so that the next publisher's start comes after it.
        if let Some(active) = slot.active() {
            let event = QueueEvent::Gone(active.publisher.clone(), removal);
            self.queue.tell(event);
        }
        self.queue.end(is_last);
        self.counters.lock().leave(Instant::now());
        let next = if is_last {
            SlotState::Ended
        } else {
            SlotState::Empty
        };
        if let SlotState::Active(active) = std::mem::replace(&mut slot.holder, next) {
            let notice = PublisherEvent::Removed(active.publisher, removal);
            self.rules.post(notice);
        }
        drop(slot);
        self.vacated.notify_all();
    }

    /// No new publishers from now on; the present one is asked to connect again, and
    /// [cut off](Stream::end_wait) after `timeout`. The stream ends with it.
    /// Gives the time for that. Draining again does not move it.
    pub(crate) fn drain(&self, timeout: Duration) -> Option<Instant> {
        let mut slot = self.slot.lock();
        if slot.drained_at.is_some() {
            return None;
        }
        let deadline = Instant::now() + timeout;
        slot.drained_at = Some(deadline);
        let link = match &slot.holder {
            SlotState::Active(active) => active.link.clone(),
            SlotState::Empty | SlotState::AwaitingReturn { .. } => {
                self.vacate(slot, RemovalReason::Drained);
                return None;
            }
            SlotState::Ended => return None,
        };
        drop(slot);
        // Who can't be asked is cut off in the end.
        let _ = link.request_reconnect(None, "This server is about to stop.");
        Some(deadline)
    }

    /// Takes publishers again, if the stream has not ended yet.
    pub(crate) fn stop_draining(&self) {
        self.slot.lock().drained_at = None;
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.slot.lock().drained_at.is_some()
    }

    /// Whether the stream has ended: the next publisher would need another one.
    pub(crate) fn is_over(&self) -> bool {
        self.has_ended(&self.slot.lock())
    }

    fn has_ended(&self, slot: &Slot) -> bool {
        match &slot.holder {
            SlotState::Ended => true,
            SlotState::Active(active) => active.leaving && !self.settings.lock().keep_listening,
            SlotState::Empty | SlotState::AwaitingReturn { .. } => false,
        }
    }

    pub(crate) fn takes_publishers(&self) -> bool {
        let slot = self.slot.lock();
        slot.drained_at.is_none() && !matches!(slot.holder, SlotState::Ended)
    }

    /// A deadline may have passed: a publisher that should have gone is cut off, and its own thread
    /// says that it has left; or one that might have come back has not. This waits for nobody.
    pub(crate) fn end_wait(&self, now: Instant) {
        let mut slot = self.slot.lock();
        match &slot.holder {
            SlotState::Active(active) if slot.drained_at.is_some_and(|d| d <= now) => {
                active.link.cut_off(RemovalReason::Drained);
                self.queue.revoke();
            }
            SlotState::AwaitingReturn { until } if *until <= now => self.stop_awaiting(&mut slot),
            _ => {}
        }
    }

    /// Who was cut off does not come back.
    fn stop_awaiting(&self, slot: &mut Slot) {
        let is_last = !self.settings.lock().keep_listening;
        self.queue.end(is_last);
        slot.holder = if is_last {
            SlotState::Ended
        } else {
            SlotState::Empty
        };
    }

    /// The element stops: nobody may wait in here, and the publisher has to go. Gives its id.
    pub(crate) fn close(&self) -> Option<u64> {
        self.queue.close();
        let holder = std::mem::replace(&mut self.slot.lock().holder, SlotState::Ended);
        self.vacated.notify_all();
        let SlotState::Active(active) = holder else {
            return None;
        };
        active.link.cut_off(RemovalReason::Stopped);
        let notice = PublisherEvent::Removed(active.publisher.clone(), RemovalReason::Stopped);
        self.rules.post(notice);
        Some(active.publisher.client)
    }
}

impl Slot {
    fn active(&self) -> Option<&ActivePublisher> {
        match &self.holder {
            SlotState::Active(active) => Some(active),
            SlotState::Empty | SlotState::AwaitingReturn { .. } | SlotState::Ended => None,
        }
    }

    fn active_of(&mut self, client: u64) -> Option<&mut ActivePublisher> {
        match &mut self.holder {
            SlotState::Active(active) if active.publisher.client == client => Some(active),
            _ => None,
        }
    }
}
