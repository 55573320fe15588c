// SPDX-License-Identifier: MPL-2.0

//! Where an element and its publisher meet.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::access::Access;
use super::entrance::Entrance;
use super::link::Link;
use super::listener::{ListenerSettings, PortSettings};
use super::observer::{MAX_WAITING, Notice, Observer};
use super::publisher::{Publisher, Refusal, Removal};
use super::queue::{Event, MediaQueue, QueueLimits};
use super::route::Route;
use super::tally::{Coming, IntakeStats, LastError, Tally, Totals};

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
pub struct IntakeSettings {
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

/// What an intake is made of.
#[derive(Debug)]
pub struct IntakeConfig {
    /// Shown to whoever claims the same route again.
    pub name: String,
    pub route: Route,
    pub access: Access,
    pub settings: IntakeSettings,
    pub listener: ListenerSettings,
    pub port: PortSettings,
    pub observer: Arc<dyn Observer>,
}

/// Why nobody was asked to connect again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAsked {
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
pub(super) const MAX_DEPARTURE: Duration = Duration::from_secs(3);

/// The receiving end of one route: who publishes on it, the queue of what it sends, and counters.
pub struct Intake {
    entrance: Arc<Entrance>,
    /// Its number, if it is one of several streams of an element.
    stream: Option<u32>,
    settings: Mutex<IntakeSettings>,
    queue: MediaQueue,
    seat: Mutex<Seat>,
    /// The seat has become vacant, or there is none any more.
    vacated: Condvar,
    tally: Mutex<Tally>,
    rejected: AtomicU64,
    /// What the element has left out behind the queue.
    left_out: Mutex<Dropped>,
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake")
            .field("name", &self.entrance.name())
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Seat {
    holder: Holder,
    /// No new publishers, and the present one is cut off at this time.
    drained_at: Option<Instant>,
}

#[derive(Debug)]
enum Holder {
    Vacant,
    Taken(Occupant),
    /// Its publisher was cut off, and may come back until then.
    Awaited {
        until: Instant,
    },
    /// There will be no other.
    Ended,
}

#[derive(Debug)]
struct Occupant {
    publisher: Arc<Publisher>,
    link: Arc<Link>,
    /// It has ended its stream, and is about to go: the next one need not wait for that.
    leaving: bool,
}

impl Intake {
    pub fn new(config: IntakeConfig) -> Self {
        let (entrance, settings) = Entrance::new(config, MAX_WAITING);
        Self::behind(entrance, settings, None)
    }

    /// One of several streams, if it has a number.
    pub(super) fn behind(
        entrance: Arc<Entrance>,
        settings: IntakeSettings,
        stream: Option<u32>,
    ) -> Self {
        Intake {
            entrance,
            stream,
            settings: Mutex::new(settings),
            queue: MediaQueue::new(settings.limits),
            seat: Mutex::new(Seat {
                holder: Holder::Vacant,
                drained_at: None,
            }),
            vacated: Condvar::new(),
            tally: Mutex::default(),
            rejected: AtomicU64::default(),
            left_out: Mutex::default(),
        }
    }

    /// Takes effect at once.
    pub fn configure(&self, settings: IntakeSettings) {
        self.queue.set_limits(settings.limits);
        *self.settings.lock() = settings;
    }

    pub(super) fn entrance(&self) -> &Entrance {
        &self.entrance
    }

    pub fn queue(&self) -> &MediaQueue {
        &self.queue
    }

    pub fn publisher(&self) -> Option<Arc<Publisher>> {
        let seat = self.seat.lock();
        seat.occupant().map(|occupant| occupant.publisher.clone())
    }

    pub fn stats(&self, now: Instant) -> IntakeStats {
        self.tally.lock().at(now)
    }

    /// How many there have been.
    pub(super) fn publishers(&self) -> u64 {
        self.tally.lock().publishers()
    }

    /// Counters of all publishers.
    pub fn totals(&self) -> Totals {
        self.tally.lock().totals()
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
        let mut seat = self.seat.lock();
        match &seat.holder {
            Holder::Taken(occupant) => {
                let link = occupant.link.clone();
                drop(seat);
                self.dismiss(&link);
            }
            Holder::Awaited { .. } => self.stop_awaiting(&mut seat),
            Holder::Vacant | Holder::Ended => {}
        }
    }

    fn dismiss(self: &Arc<Self>, link: &Link) {
        link.dismiss(Removal::Disconnected);
        self.leave(link.client, Removal::Disconnected);
    }

    /// The first of the stream is about to leave the element. The observer hears of it.
    pub fn tell_flowing(&self) {
        if let Some(stream) = self.stream {
            self.entrance.post(Notice::Flowing(stream));
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
        let seat = self.end_seat();
        // In one step with that, so that nobody is added who would be cut off without a word.
        if let Some(stream) = self.stream {
            self.entrance.post(Notice::Finished(stream));
        }
        drop(seat);
        self.vacated.notify_all();
    }

    fn end_seat(self: &Arc<Self>) -> MutexGuard<'_, Seat> {
        let mut seat = self.seat.lock();
        // Another one may take over while this one is told.
        while let Some(link) = seat.occupant().map(|occupant| occupant.link.clone()) {
            drop(seat);
            self.dismiss(&link);
            seat = self.seat.lock();
        }
        if !matches!(seat.holder, Holder::Ended) {
            self.queue.end(true);
            seat.holder = Holder::Ended;
        }
        seat
    }

    /// Asks the present publisher to connect again, perhaps elsewhere.
    pub fn request_reconnect(
        &self,
        tc_url: Option<&str>,
        description: &str,
    ) -> Result<(), NotAsked> {
        let seat = self.seat.lock();
        let occupant = seat.occupant().ok_or(NotAsked::NoPublisher)?;
        let (link, publisher) = (occupant.link.clone(), occupant.publisher.clone());
        drop(seat);
        link.request_reconnect(tc_url, description)?;
        self.queue.tell(Event::ReconnectRequested(publisher));
        Ok(())
    }

    pub fn access(&self) -> &Access {
        self.entrance.access()
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        let timeout = self.settings.lock().timeout;
        (!timeout.is_zero()).then_some(timeout)
    }

    pub(super) fn stall_timeout(&self) -> Option<Duration> {
        let timeout = self.settings.lock().stall_timeout;
        (!timeout.is_zero()).then_some(timeout)
    }

    /// Counts for the publisher that there is, and not for one that was replaced.
    pub(super) fn set_stats(&self, client: u64, stats: &ClientStats) {
        self.tally.lock().set(client, stats);
    }

    /// A client was refused or cut off, for a reason without anything secret.
    pub(super) fn set_last_error(&self, address: SocketAddr, reason: String) {
        let at = Instant::now();
        self.tally.lock().set_error(LastError {
            reason,
            address,
            at,
        });
    }

    /// The application is asked about a client.
    pub(super) fn set_asked(&self, publisher: &Publisher) {
        self.queue.tell(Event::Asked(Arc::new(publisher.clone())));
    }

    /// Whoever asked has gone without having published or having been refused.
    pub(super) fn withdraw(&self) {
        self.queue.tell(Event::Withdrawn);
    }

    pub(super) fn reject(&self, publisher: Arc<Publisher>, refusal: Refusal) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        self.set_last_error(publisher.address, refusal.reason());
        self.queue.tell(Event::Rejected(publisher.clone(), refusal));
        self.entrance.post(Notice::Rejected(publisher, refusal));
    }

    /// Whether a publisher would be taken, as far as it can be said now.
    pub(super) fn availability(&self) -> Result<(), Refusal> {
        let deadline = Instant::now() + MAX_DEPARTURE;
        let mut seat = self.wait_for_room_to_start(deadline);
        self.wait_for_departure(&mut seat, deadline);
        self.check(&seat)
    }

    /// There has to be room only where there may be another publisher.
    fn wait_for_room_to_start(&self, deadline: Instant) -> MutexGuard<'_, Seat> {
        let seat = self.seat.lock();
        if self.has_ended(&seat) {
            return seat;
        }
        drop(seat);
        self.queue.wait_for_room_to_start(deadline);
        self.seat.lock()
    }

    fn check(&self, seat: &Seat) -> Result<(), Refusal> {
        if seat.drained_at.is_some() {
            return Err(Refusal::Draining);
        }
        // First, since another stream would have room.
        if self.has_ended(seat) {
            return Err(Refusal::Ended);
        }
        if !self.queue.has_room_to_start() || self.entrance.is_behind() {
            return Err(Refusal::Busy);
        }
        match &seat.holder {
            Holder::Vacant | Holder::Awaited { .. } => Ok(()),
            Holder::Ended => Err(Refusal::Ended),
            Holder::Taken(occupant) => self.check_policy(occupant),
        }
    }

    fn check_policy(&self, occupant: &Occupant) -> Result<(), Refusal> {
        let IntakeSettings {
            policy,
            stall_timeout,
            ..
        } = *self.settings.lock();
        if occupant.leaving {
            return Ok(());
        }
        let may_replace = match policy {
            Policy::Reject => false,
            Policy::Replace => true,
            Policy::ReplaceStalled => {
                occupant.link.has_hung_up() || self.is_stalled(occupant, stall_timeout)
            }
        };
        if may_replace {
            Ok(())
        } else {
            Err(Refusal::Busy)
        }
    }

    /// Who waits for room in the queue, or has sent what nobody has read yet, is not to blame.
    fn is_stalled(&self, occupant: &Occupant, timeout: Duration) -> bool {
        !timeout.is_zero()
            && occupant.link.silent_for() >= timeout
            && !self.queue.is_writer_waiting()
            && !occupant.link.has_unread()
    }

    /// Makes a client the publisher, if it may be. One of several that try at once gets it.
    pub(super) fn take(
        &self,
        mut publisher: Publisher,
        link: Arc<Link>,
    ) -> Result<Arc<Publisher>, Refusal> {
        publisher.stream = self.stream;
        let publisher = Arc::new(publisher);
        let deadline = Instant::now() + MAX_DEPARTURE;
        let mut seat = self.wait_for_room_to_start(deadline);
        self.wait_for_departure(&mut seat, deadline);
        self.check(&seat)?;
        let occupant = Occupant {
            publisher: publisher.clone(),
            link,
            leaving: false,
        };
        // Before the queue stops to take anything from it, so that it knows why.
        if let Holder::Taken(before) = &seat.holder
            && !before.leaving
        {
            before.link.mark(Removal::Replaced);
            let event = Event::Replaced(before.publisher.clone());
            self.queue.tell(event);
        }
        self.queue.start(publisher.clone());
        let coming = match &seat.holder {
            Holder::Taken(before) if !before.leaving => Coming::Replacing,
            Holder::Awaited { .. } => Coming::Back,
            Holder::Taken(_) | Holder::Vacant | Holder::Ended => Coming::New,
        };
        let now = Instant::now();
        self.tally.lock().come(publisher.client, coming, now);
        let before = std::mem::replace(&mut seat.holder, Holder::Taken(occupant));
        let replaced = match before {
            Holder::Taken(before) if before.leaving => {
                let notice = Notice::Removed(before.publisher, Removal::Unpublished);
                self.entrance.post(notice);
                None
            }
            Holder::Taken(before) => {
                let notice = Notice::Removed(before.publisher, Removal::Replaced);
                self.entrance.post(notice);
                Some(before.link)
            }
            Holder::Vacant | Holder::Awaited { .. } | Holder::Ended => None,
        };
        self.entrance.post(Notice::Added(publisher.clone()));
        drop(seat);
        if let Some(link) = replaced {
            link.dismiss(Removal::Replaced);
        }
        Ok(publisher)
    }

    /// A publisher that has closed its connection leaves as soon as the rest of what it sent is
    /// read. The next one waits for that, so that nothing is lost.
    fn wait_for_departure(&self, seat: &mut MutexGuard<'_, Seat>, deadline: Instant) {
        while let Some(occupant) = seat.occupant()
            && !occupant.leaving
            && occupant.link.has_hung_up()
        {
            if self.vacated.wait_until(seat, deadline).timed_out() {
                return;
            }
        }
    }

    /// The publisher has ended its stream, and will [leave](Intake::leave) in a moment.
    pub(super) fn set_leaving(&self, client: u64) {
        if let Some(occupant) = self.seat.lock().occupied_by(client) {
            occupant.leaving = true;
        }
    }

    /// The publisher has left. What it sent before is still in the queue.
    pub(super) fn leave(self: &Arc<Self>, client: u64, removal: Removal) {
        let mut seat = self.seat.lock();
        if let Some(occupant) = seat.occupied_by(client) {
            let unpublished = occupant.leaving;
            let removal = if unpublished {
                Removal::Unpublished
            } else {
                removal
            };
            let resume_timeout = self.settings.lock().resume_timeout;
            if removal.is_cut_off() && !resume_timeout.is_zero() && seat.drained_at.is_none() {
                self.await_return(seat, removal, resume_timeout);
            } else {
                self.vacate(seat, removal);
            }
        }
    }

    /// The stream goes on if the publisher comes back in time.
    fn await_return(
        self: &Arc<Self>,
        mut seat: MutexGuard<'_, Seat>,
        removal: Removal,
        timeout: Duration,
    ) {
        self.queue.lose();
        let now = Instant::now();
        self.tally.lock().leave(now);
        let until = now + timeout;
        let holder = std::mem::replace(&mut seat.holder, Holder::Awaited { until });
        if let Holder::Taken(occupant) = holder {
            let notice = Notice::Removed(occupant.publisher, removal);
            self.entrance.post(notice);
            drop(seat);
            occupant.link.call_at(until, Arc::downgrade(self));
        }
        self.vacated.notify_all();
    }

    fn vacate(&self, mut seat: MutexGuard<'_, Seat>, removal: Removal) {
        let is_last = !self.settings.lock().keep_listening || seat.drained_at.is_some();
        // Before the seat is free, so that the next publisher's start comes after it.
        if let Some(occupant) = seat.occupant() {
            let event = Event::Gone(occupant.publisher.clone(), removal);
            self.queue.tell(event);
        }
        self.queue.end(is_last);
        self.tally.lock().leave(Instant::now());
        let next = if is_last {
            Holder::Ended
        } else {
            Holder::Vacant
        };
        if let Holder::Taken(occupant) = std::mem::replace(&mut seat.holder, next) {
            let notice = Notice::Removed(occupant.publisher, removal);
            self.entrance.post(notice);
        }
        drop(seat);
        self.vacated.notify_all();
    }

    /// No new publishers from now on; the present one is asked to connect again, and
    /// [cut off](Intake::end_wait) after `timeout`. The stream ends with it.
    /// Gives the time for that. Draining again does not move it.
    pub(super) fn drain(&self, timeout: Duration) -> Option<Instant> {
        let mut seat = self.seat.lock();
        if seat.drained_at.is_some() {
            return None;
        }
        let deadline = Instant::now() + timeout;
        seat.drained_at = Some(deadline);
        let link = match &seat.holder {
            Holder::Taken(occupant) => occupant.link.clone(),
            Holder::Vacant | Holder::Awaited { .. } => {
                self.vacate(seat, Removal::Drained);
                return None;
            }
            Holder::Ended => return None,
        };
        drop(seat);
        // Who can't be asked is cut off in the end.
        let _ = link.request_reconnect(None, "This server is about to stop.");
        Some(deadline)
    }

    /// Takes publishers again, if the stream has not ended yet.
    pub(super) fn stop_draining(&self) {
        self.seat.lock().drained_at = None;
    }

    pub(super) fn is_draining(&self) -> bool {
        self.seat.lock().drained_at.is_some()
    }

    /// Whether the stream has ended: the next publisher would need another one.
    pub(super) fn is_over(&self) -> bool {
        self.has_ended(&self.seat.lock())
    }

    fn has_ended(&self, seat: &Seat) -> bool {
        match &seat.holder {
            Holder::Ended => true,
            Holder::Taken(occupant) => occupant.leaving && !self.settings.lock().keep_listening,
            Holder::Vacant | Holder::Awaited { .. } => false,
        }
    }

    pub(super) fn takes_publishers(&self) -> bool {
        let seat = self.seat.lock();
        seat.drained_at.is_none() && !matches!(seat.holder, Holder::Ended)
    }

    /// A deadline may have passed: a publisher that should have gone is cut off, and its own thread
    /// says that it has left; or one that might have come back has not. This waits for nobody.
    pub(super) fn end_wait(&self, now: Instant) {
        let mut seat = self.seat.lock();
        match &seat.holder {
            Holder::Taken(occupant) if seat.drained_at.is_some_and(|d| d <= now) => {
                occupant.link.cut_off(Removal::Drained);
                self.queue.revoke();
            }
            Holder::Awaited { until } if *until <= now => self.stop_awaiting(&mut seat),
            _ => {}
        }
    }

    /// Who was cut off does not come back.
    fn stop_awaiting(&self, seat: &mut Seat) {
        let is_last = !self.settings.lock().keep_listening;
        self.queue.end(is_last);
        seat.holder = if is_last {
            Holder::Ended
        } else {
            Holder::Vacant
        };
    }

    /// The element stops: nobody may wait in here, and the publisher has to go. Gives its id.
    pub(super) fn close(&self) -> Option<u64> {
        self.queue.close();
        let holder = std::mem::replace(&mut self.seat.lock().holder, Holder::Ended);
        self.vacated.notify_all();
        let Holder::Taken(occupant) = holder else {
            return None;
        };
        occupant.link.cut_off(Removal::Stopped);
        let notice = Notice::Removed(occupant.publisher.clone(), Removal::Stopped);
        self.entrance.post(notice);
        Some(occupant.publisher.client)
    }
}

impl Seat {
    fn occupant(&self) -> Option<&Occupant> {
        match &self.holder {
            Holder::Taken(occupant) => Some(occupant),
            Holder::Vacant | Holder::Awaited { .. } | Holder::Ended => None,
        }
    }

    fn occupied_by(&mut self, client: u64) -> Option<&mut Occupant> {
        match &mut self.holder {
            Holder::Taken(occupant) if occupant.publisher.client == client => Some(occupant),
            _ => None,
        }
    }
}
