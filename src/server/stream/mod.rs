// SPDX-License-Identifier: MPL-2.0

//! One ingest stream: the slot of its publisher, its media queue, its counters.
//!
//! Lock order: `state`, then `settings`, the queue, the dispatcher, the counters or the timers, which
//! are leaves.

pub(crate) mod direct_delivery;
pub(crate) mod fan_out;
pub(crate) mod patience;
pub(crate) mod publisher_handle;
pub(crate) mod queue;
pub(crate) mod slot;
pub(crate) mod table;
pub(crate) mod time_limit;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::flv::codec::AcceptedCodecs;
use crate::server::config::{Policy, StreamSettings};
use crate::server::events::{EventDispatcher, PublisherEvent};
use crate::server::publisher::{Publisher, ReconnectError, RejectReason, RemovalReason};
use crate::server::quality::LowFigures;
use crate::server::stats::{
    ConnectionStats, Dropped, LastError, StreamCounters, StreamStats, Totals,
};
use crate::server::stream::direct_delivery::{
    Delivered, DirectDelivery, Relief, Watch, next_watch,
};
use crate::server::stream::fan_out::{Deferred, Effect, fan_out};
use crate::server::stream::patience::Patience;
use crate::server::stream::publisher_handle::{Contention, PublisherHandle};
use crate::server::stream::queue::{MediaQueue, QueueEvent, QueueItem};
use crate::server::stream::slot::{ActivePublisher, Admission, Change, Liveness, Slot, Terms};
use crate::server::threads::{TimerId, TimerService};

type Handle = Arc<PublisherHandle>;

/// One ingest stream.
pub(crate) struct Stream {
    /// Its number, if it is one of several streams of an element.
    number: Option<u32>,
    codecs: AcceptedCodecs,
    events: Arc<EventDispatcher>,
    settings: Mutex<StreamSettings>,
    /// Counts changes of the settings.
    settings_generation: AtomicU64,
    queue: MediaQueue,
    direct: DirectDelivery,
    state: Mutex<StreamState>,
    /// The slot has changed, or its publisher has given a sign of life.
    changed: Condvar,
    counters: Mutex<StreamCounters>,
    rejected: AtomicU64,
    /// Tags that the element has dropped between the queue and its output.
    dropped_after_queue: Mutex<Dropped>,
    /// Tags that were dropped as output.
    dropped_output: Mutex<Dropped>,
    timers: OnceLock<Arc<dyn TimerService>>,
    /// Fires when a wait of the slot is over.
    slot_timer: TimerId,
    /// Checks the publisher while its thread still goes by former settings.
    settings_timer: TimerId,
    /// Looks for a push that blocks the publisher's thread.
    watch_timer: TimerId,
}

#[derive(Debug, Default)]
struct StreamState {
    slot: Slot<Handle>,
    /// Clients that wait for the application's answer.
    authorizing: BTreeSet<u64>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Stream {
    pub(crate) fn new(
        number: Option<u32>,
        settings: StreamSettings,
        codecs: AcceptedCodecs,
        events: Arc<EventDispatcher>,
    ) -> Self {
        Stream {
            number,
            codecs,
            events,
            settings: Mutex::new(settings),
            settings_generation: AtomicU64::new(0),
            queue: MediaQueue::new(settings.limits),
            direct: DirectDelivery::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
            counters: Mutex::default(),
            rejected: AtomicU64::default(),
            dropped_after_queue: Mutex::default(),
            dropped_output: Mutex::default(),
            timers: OnceLock::new(),
            slot_timer: TimerId::new(),
            settings_timer: TimerId::new(),
            watch_timer: TimerId::new(),
        }
    }

    /// Sets where waits end. Called once, before there is a publisher.
    pub(crate) fn set_timers(&self, timers: Arc<dyn TimerService>) {
        let _ = self.timers.set(timers);
    }

    /// Takes effect at once, also on waits that have begun.
    pub(crate) fn configure(self: &Arc<Self>, settings: StreamSettings) {
        self.queue.set_limits(settings.limits);
        let state = self.state.lock();
        let before = std::mem::replace(&mut *self.settings.lock(), settings);
        if before == settings {
            return;
        }
        self.settings_generation.fetch_add(1, Ordering::Relaxed);
        self.set_slot_timer(&state);
        drop(state);
        self.changed.notify_all();
        self.check_publisher();
    }

    pub(crate) fn settings(&self) -> StreamSettings {
        *self.settings.lock()
    }

    /// Returns a number that differs after each change of the settings.
    pub(crate) fn settings_generation(&self) -> u64 {
        self.settings_generation.load(Ordering::Relaxed)
    }

    pub(crate) fn codecs(&self) -> &AcceptedCodecs {
        &self.codecs
    }

    pub(crate) fn queue(&self) -> &MediaQueue {
        &self.queue
    }

    pub(crate) fn direct(&self) -> &DirectDelivery {
        &self.direct
    }

    /// Delivers the items of the queue on the publisher's thread, or wakes the streaming thread for
    /// them. `relief` continues the connection where that blocks. Returns the time of the end.
    pub(crate) fn deliver(self: &Arc<Self>, relief: Arc<dyn Relief>) -> Instant {
        let now = Instant::now();
        let Some(begun) = self.direct.begin(now, relief) else {
            self.queue.announce();
            return now;
        };
        if begun.needs_watch {
            self.set_watch_timer();
        }
        if !self.queue.begin_delivery() {
            self.direct.end(now, 0);
            self.queue.announce();
            return now;
        }
        // Also in a panic: the streaming thread waits for the end.
        let mut delivery = DeliveryInProgress {
            stream: self,
            delivered: Delivered {
                tags: 0,
                has_rest: true,
            },
            ended: None,
        };
        delivery.delivered = begun.downstream.deliver(now);
        delivery.end()
    }

    /// Waits for the end of a push by the publisher's thread, unless the caller is within it.
    pub(crate) fn wait_for_delivery(&self) {
        if !self.direct.is_on_this_thread() {
            self.queue.wait_for_delivery();
        }
    }

    /// Ends a flush of the element.
    pub(crate) fn end_flush(&self) {
        self.queue.end_flush(self.direct.is_on_this_thread());
    }

    fn set_watch_timer(self: &Arc<Self>) {
        let Some(timers) = self.timers.get() else {
            return;
        };
        let stream = Arc::downgrade(self);
        let watch = move |now| {
            let Some(stream) = Weak::upgrade(&stream) else {
                return;
            };
            let Watch { blocked, goes_on } = stream.direct.watch(now);
            let is_relieved = blocked.is_none_or(|connection| stream.direct.relieve(connection));
            stream.events.join_ended();
            if goes_on || !is_relieved {
                stream.set_watch_timer();
            }
        };
        let deadline = next_watch(Instant::now());
        timers.set(self.watch_timer, deadline, Box::new(watch));
    }

    pub(crate) fn publisher(&self) -> Option<Arc<Publisher>> {
        let state = self.state.lock();
        let active = state.slot.active();
        active.map(|active| active.publisher.clone())
    }

    pub(crate) fn stats(&self, now: Instant) -> StreamStats {
        let (rejected, dropped) = (self.rejected(), self.dropped());
        self.counters.lock().at(now, rejected, dropped)
    }

    /// Returns the counters of all publishers.
    pub(crate) fn totals(&self, now: Instant) -> Totals {
        self.stats(now).totals
    }

    pub(crate) fn dropped(&self) -> Dropped {
        let levels = self.queue.levels();
        let in_queue = Dropped {
            queue_full: levels.dropped,
            cut_off: levels.cut_off,
            at_end: levels.left,
            ..Dropped::default()
        };
        in_queue + *self.dropped_after_queue.lock() + *self.dropped_output.lock()
    }

    /// Sets the tags that the element has dropped between the queue and its output, since the start.
    pub(crate) fn set_dropped_after_queue(&self, dropped: Dropped) {
        *self.dropped_after_queue.lock() = dropped;
    }

    /// Returns its number, if it is one of several streams of an element.
    pub(crate) fn number(&self) -> Option<u32> {
        self.number
    }

    /// Adds tags that were dropped as output.
    pub(crate) fn add_dropped_output(&self, dropped: Dropped) {
        if dropped == Dropped::default() {
            return;
        }
        let mut sum = self.dropped_output.lock();
        *sum = *sum + dropped;
        drop(sum);
        self.queue.note_drop();
    }

    /// Returns the number of clients that were rejected.
    pub(crate) fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Ends the present publisher, and sends it the reason. A lost publisher is not awaited any longer.
    pub(crate) fn disconnect(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if let Some(active) = state.slot.active() {
            let handle = active.handle.clone();
            drop(state);
            self.dismiss(&handle, RemovalReason::Disconnected);
        } else {
            let changes = state.slot.cancel_return(&self.terms());
            self.apply(state, changes);
        }
    }

    fn dismiss(self: &Arc<Self>, handle: &PublisherHandle, reason: RemovalReason) {
        handle.dismiss(reason);
        self.leave(handle.client, reason);
    }

    /// Posts that the first media is about to leave the element.
    pub(crate) fn post_flowing(&self) {
        if let Some(number) = self.number {
            self.events.post(PublisherEvent::Flowing(number));
        }
    }

    /// Ends the stream: its publisher is disconnected, nobody is accepted any more, and the media in
    /// the queue still leaves.
    pub(crate) fn end(self: &Arc<Self>) {
        drop(self.end_slot());
    }

    /// Ends the stream after all of it has left the element, or nothing more of it is accepted
    /// downstream. The observer handles that first.
    pub(crate) fn finish(self: &Arc<Self>) {
        let state = self.end_slot();
        // In one step with the end, so that no publisher is added and disconnected without a word.
        if let Some(number) = self.number {
            self.events.post(PublisherEvent::Finished(number));
        }
        drop(state);
    }

    fn end_slot(self: &Arc<Self>) -> MutexGuard<'_, StreamState> {
        let mut state = self.state.lock();
        // Another publisher may take over while this one is dismissed.
        while let Some(handle) = state.slot.active().map(|active| active.handle.clone()) {
            drop(state);
            self.dismiss(&handle, RemovalReason::Disconnected);
            state = self.state.lock();
        }
        let changes = state.slot.end_vacant();
        self.apply_locked(&state, changes).run();
        state
    }

    /// Asks the present publisher to connect again, perhaps elsewhere.
    pub(crate) fn request_reconnect(
        &self,
        tc_url: Option<&str>,
        description: &str,
    ) -> Result<(), ReconnectError> {
        let state = self.state.lock();
        let active = state.slot.active().ok_or(ReconnectError::NoPublisher)?;
        let (handle, publisher) = (active.handle.clone(), active.publisher.clone());
        drop(state);
        handle.request_reconnect(tc_url, description)?;
        self.queue.post(QueueEvent::ReconnectRequested(publisher));
        Ok(())
    }

    fn terms(&self) -> Terms {
        let settings = self.settings.lock();
        Terms {
            keep_listening: settings.keep_listening,
            resume_timeout: settings.resume_timeout,
        }
    }

    /// Counts for the present publisher, and not for one that was replaced.
    pub(crate) fn set_stats(&self, client: u64, stats: &ConnectionStats) {
        self.counters.lock().update(client, stats);
    }

    /// Notes which figures of the present publisher are beyond their limits.
    pub(crate) fn set_quality(&self, client: u64, low: LowFigures) {
        self.counters.lock().set_quality(client, low);
    }

    /// Notes why a client was rejected or disconnected. `reason` contains no secret.
    pub(crate) fn set_last_error(&self, address: SocketAddr, reason: String) {
        let at = Instant::now();
        self.counters.lock().set_error(LastError {
            reason,
            address,
            at,
        });
    }

    /// Notes that a client waits for the application's answer.
    pub(crate) fn begin_authorization(&self, client: u64) {
        let mut state = self.state.lock();
        if state.authorizing.insert(client) && state.authorizing.len() == 1 {
            self.queue.set_authorizing(true);
        }
    }

    /// Notes that the client has been accepted or rejected, or is gone.
    pub(crate) fn end_authorization(&self, client: u64) {
        let mut state = self.state.lock();
        if state.authorizing.remove(&client) && state.authorizing.is_empty() {
            self.queue.set_authorizing(false);
        }
    }

    pub(crate) fn reject(&self, publisher: Arc<Publisher>, reason: RejectReason) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        self.set_last_error(publisher.address, reason.last_error());
        let event = QueueEvent::Rejected(publisher.clone(), reason);
        self.queue.post(event);
        self.events
            .post(PublisherEvent::Rejected(publisher, reason));
    }

    /// Waits until the stream accepts a publisher or rejects it, by `policy` or by its own.
    pub(crate) fn reserve(
        &self,
        policy: Option<Policy>,
        patience: &mut Patience,
    ) -> Result<(), RejectReason> {
        let admitted = patience.spend(|deadline| self.wait_for_admission(policy, deadline));
        admitted.map(drop)
    }

    /// Makes a client the publisher, if the stream accepts one. Of several contenders at a time one is
    /// accepted.
    pub(crate) fn start(
        self: &Arc<Self>,
        mut publisher: Publisher,
        handle: Handle,
        policy: Option<Policy>,
        patience: &mut Patience,
    ) -> Result<Arc<Publisher>, RejectReason> {
        publisher.stream = self.number;
        let publisher = Arc::new(publisher);
        let mut state = patience.spend(|deadline| self.wait_for_admission(policy, deadline))?;
        let changes = state.slot.accept(publisher.clone(), handle);
        self.apply(state, changes);
        Ok(publisher)
    }

    fn wait_for_admission(
        &self,
        policy: Option<Policy>,
        deadline: Instant,
    ) -> Result<MutexGuard<'_, StreamState>, RejectReason> {
        // The queue needs space only where there may be another publisher.
        if !self.has_ended() {
            self.queue.wait_until_start_accepted(deadline);
        }
        let mut contention = None;
        let mut state = self.state.lock();
        loop {
            let (terms, policy) = (self.terms(), policy.unwrap_or(self.settings().policy));
            let liveness = |active: &ActivePublisher<Handle>| {
                self.liveness(&active.handle, deadline, &mut contention)
            };
            let wait_until = match state.slot.offer(&terms, policy, liveness) {
                Admission::Reject(reason) => return Err(reason),
                Admission::Accept if !self.queue.accepts_start() || self.events.is_full() => {
                    return Err(RejectReason::Busy);
                }
                Admission::Accept => return Ok(state),
                Admission::AwaitDeparture => deadline,
                Admission::AwaitProof => contention
                    .as_ref()
                    .map_or(deadline, |c: &Contention| c.deadline().min(deadline)),
            };
            self.changed.wait_until(&mut state, wait_until);
        }
    }

    fn liveness(
        &self,
        handle: &Handle,
        deadline: Instant,
        contention: &mut Option<Contention>,
    ) -> Liveness {
        let now = Instant::now();
        if handle.is_closing() {
            if now < deadline {
                return Liveness::Closing;
            }
            // Its rest is not read in time: the pipeline does not keep up, or is stuck.
            return Liveness::Open {
                is_stalled: true,
                is_proven: true,
            };
        }
        let known = contention.take().filter(|c| c.is_about(handle));
        let known = known.unwrap_or_else(|| Contention::new(handle, self.is_stalled(handle)));
        let liveness = Liveness::Open {
            is_stalled: known.is_stalled(),
            is_proven: known.is_proven() || now >= known.deadline().min(deadline),
        };
        *contention = Some(known);
        liveness
    }

    /// A publisher is not stalled while it waits for queue space or has unread data.
    fn is_stalled(&self, handle: &PublisherHandle) -> bool {
        let timeout = self.settings().stall_timeout;
        let is_silent = || handle.media_age() >= timeout && !handle.has_unread();
        !timeout.is_zero()
            && !self.queue.is_writer_waiting()
            && (handle.is_stalled() || is_silent())
    }

    /// Wakes contenders, after the publisher's thread has seen a sign of life.
    pub(crate) fn notify_contenders(&self) {
        let _state = self.state.lock();
        self.changed.notify_all();
    }

    /// Notes that the publisher has ended its stream, and [leaves](Stream::leave) soon.
    pub(crate) fn unpublish(&self, client: u64) {
        self.state.lock().slot.unpublish(client);
        self.changed.notify_all();
    }

    /// Notes that the publisher has left. Its media in the queue still leaves.
    pub(crate) fn leave(self: &Arc<Self>, client: u64, reason: RemovalReason) {
        let mut state = self.state.lock();
        let terms = self.terms();
        let changes = state.slot.leave(client, reason, &terms, Instant::now());
        self.apply(state, changes);
    }

    /// Accepts nobody from now on. The present publisher is asked to reconnect and disconnected after
    /// `timeout`, and the stream ends with it. A second call sets the time again.
    pub(crate) fn drain(self: &Arc<Self>, timeout: Duration) {
        let mut state = self.state.lock();
        let changes = state.slot.drain(timeout, Instant::now());
        self.apply(state, changes);
    }

    /// Accepts publishers again, if the stream has not ended.
    pub(crate) fn stop_draining(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.slot.stop_draining();
        self.apply(state, Vec::new());
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.state.lock().slot.is_draining()
    }

    /// Returns true where the next publisher would need another stream.
    pub(crate) fn has_ended(&self) -> bool {
        let terms = self.terms();
        self.state.lock().slot.has_ended(&terms)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state.lock().slot.is_open()
    }

    /// Stops the stream: no thread waits in it any more, and its publisher is disconnected. Returns
    /// the publisher's client id.
    pub(crate) fn close(self: &Arc<Self>) -> Option<u64> {
        self.queue.close();
        let mut state = self.state.lock();
        let client = state.slot.active().map(|active| active.handle.client);
        let changes = state.slot.close();
        self.apply(state, changes);
        client
    }

    /// Carries changes of the slot on, and unlocks it.
    fn apply(self: &Arc<Self>, state: MutexGuard<'_, StreamState>, changes: Vec<Change<Handle>>) {
        let rest = self.apply_locked(&state, changes);
        drop(state);
        rest.run();
    }

    /// Turns changes of the slot into queue items, events and counters. Nothing else does. Returns
    /// the effects that wait for the client, which need the slot unlocked.
    fn apply_locked(
        self: &Arc<Self>,
        state: &StreamState,
        changes: Vec<Change<Handle>>,
    ) -> Deferred {
        let mut deferred = Deferred::default();
        for effect in changes.into_iter().flat_map(fan_out) {
            match effect {
                Effect::Mark(handle, reason) => handle.mark(reason),
                Effect::Event(event) => self.queue.post(event),
                Effect::Start(publisher, arrival) => {
                    let client = publisher.client;
                    self.queue.start(publisher);
                    let now = Instant::now();
                    self.counters.lock().start_publisher(client, arrival, now);
                }
                Effect::Lose => self.queue.lose(),
                Effect::End { is_last } => self.queue.end(is_last),
                Effect::Revoke => self.queue.revoke(),
                Effect::CountEnd => self.counters.lock().end_publisher(Instant::now()),
                Effect::Dispatch(event) => self.events.post(event),
                Effect::Disconnect(handle, reason) => handle.disconnect(reason),
                Effect::Dismiss(..) | Effect::AskToReconnect(_) => deferred.push(effect),
            }
        }
        self.set_slot_timer(state);
        self.changed.notify_all();
        deferred
    }

    fn set_slot_timer(self: &Arc<Self>, state: &StreamState) {
        let Some(timers) = self.timers.get() else {
            return;
        };
        let Some(deadline) = state.slot.deadline(&self.terms()) else {
            timers.clear(self.slot_timer);
            return;
        };
        let stream = Arc::downgrade(self);
        let time_out = move |now| {
            if let Some(stream) = stream.upgrade() {
                stream.time_out(now);
            }
        };
        timers.set(self.slot_timer, deadline, Box::new(time_out));
    }

    fn time_out(self: &Arc<Self>, now: Instant) {
        let mut state = self.state.lock();
        let changes = state.slot.time_out(&self.terms(), now);
        self.apply(state, changes);
    }

    /// Posts a stall, once until media resumes.
    pub(crate) fn post_stalled(&self, handle: &PublisherHandle, last_read: Instant) {
        if !handle.set_stalled(true) {
            let stalled = QueueItem::Stalled { last_read };
            self.queue.post_from(handle.client, stalled);
        }
    }

    /// Acts for the publisher's thread after a change of the settings. The thread may block in a read
    /// with the timeout from before, and goes by the new settings after its next wake-up.
    fn check_publisher(self: &Arc<Self>) {
        let state = self.state.lock();
        let handle = state.slot.active().map(|active| active.handle.clone());
        drop(state);
        let (Some(handle), Some(timers)) = (handle, self.timers.get()) else {
            return;
        };
        // A thread that waits for queue space looks at the settings after that.
        let is_up_to_date = handle.goes_by_settings(self.settings_generation());
        if is_up_to_date || self.queue.is_writer_waiting() {
            return;
        }
        let StreamSettings {
            timeout,
            stall_timeout,
            ..
        } = self.settings();
        let (byte_age, media_age) = (handle.byte_age(), handle.media_age());
        if !timeout.is_zero() && byte_age >= timeout {
            handle.disconnect(RemovalReason::Timeout);
            return;
        }
        let can_stall = !stall_timeout.is_zero() && !handle.is_stalled();
        if can_stall && self.is_stalled(&handle) {
            let last_read = Instant::now().checked_sub(byte_age);
            self.post_stalled(&handle, last_read.unwrap_or_else(Instant::now));
        }
        let until_stall = can_stall.then(|| stall_timeout.saturating_sub(media_age));
        let until_timeout = (!timeout.is_zero()).then(|| timeout - byte_age);
        let next = [until_stall, until_timeout].into_iter().flatten();
        if let Some(next) = next.filter(|next| !next.is_zero()).min() {
            let stream = Arc::downgrade(self);
            let check = move |_| {
                if let Some(stream) = stream.upgrade() {
                    stream.check_publisher();
                }
            };
            timers.set(self.settings_timer, Instant::now() + next, Box::new(check));
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(timers) = self.timers.get() {
            timers.clear(self.slot_timer);
            timers.clear(self.settings_timer);
            timers.clear(self.watch_timer);
        }
    }
}

/// A delivery by the publisher's thread.
struct DeliveryInProgress<'a> {
    stream: &'a Stream,
    delivered: Delivered,
    ended: Option<Instant>,
}

impl DeliveryInProgress<'_> {
    /// Ends it, and returns the time.
    fn end(mut self) -> Instant {
        *self.ended.insert(Instant::now())
    }
}

impl Drop for DeliveryInProgress<'_> {
    fn drop(&mut self) {
        let Delivered { tags, has_rest } = self.delivered;
        let ended = self.ended.unwrap_or_else(Instant::now);
        self.stream.direct.end(ended, tags);
        self.stream.queue.end_delivery(has_rest);
    }
}
