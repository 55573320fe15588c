// SPDX-License-Identifier: MPL-2.0

//! State shared by the streaming thread, the connections' threads and the driver, under one lock.
//! The lock is a leaf: it is never held while pushing, posting or joining.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::backlog::{Backlog, Limits};
use super::configuration::QueuedTag;
use super::schedule::AttemptId;
use crate::flv::TagKind;
use crate::rate::BitrateMeter;

/// Longest time that audio waits for the next video frame. A wake-up of the sending thread costs
/// more than sending a tag.
const MAX_AUDIO_DELAY: Duration = Duration::from_millis(50);

pub(super) type BufferTag = QueuedTag<gst::Buffer>;

/// An event that the driver handles.
#[derive(Debug)]
pub(super) enum DriverEvent {
    Opened(AttemptId),
    Failed(AttemptId, String),
    /// The connection has sent everything that it was to send.
    Finished(AttemptId),
    /// Tags were dropped, for the first time since [`Coordinator::take_dropped`].
    Dropped,
    /// Upstream has ended.
    Ended,
    /// Upstream continues after its end.
    Resumed,
}

/// The next step of a connection.
#[derive(Debug)]
pub(super) enum NextStep {
    Send(BufferTag),
    /// The configuration has changed since it was last sent.
    Configure(Vec<BufferTag>),
    Finish,
    Cancelled,
}

#[derive(Debug)]
pub(super) struct Coordinator {
    state: Mutex<CoordinatorState>,
    /// Signalled when a connection may have something to do.
    sender_wakeup: Condvar,
    /// Signalled when the driver may have something to do.
    driver_wakeup: Condvar,
    /// Signalled when the wait at the end of the stream may be over.
    drain_done: Condvar,
}

#[derive(Debug)]
struct CoordinatorState {
    backlog: Backlog<gst::Buffer>,
    events: Vec<DriverEvent>,
    /// Connections that have not been closed by the driver.
    open: Vec<AttemptId>,
    sender: Option<AttemptId>,
    /// Replaces the sender at the end of a group of pictures.
    successor: Option<AttemptId>,
    /// Time at which the sender began to push its last tag, while it does that.
    busy_since: Option<Instant>,
    /// The connection that is ending its stream, and the time at which it began to.
    finishing: Option<(AttemptId, Instant)>,
    /// The queue is empty, and the sender checks it again by itself within [`MAX_AUDIO_DELAY`].
    is_batching_audio: bool,
    /// Number of dropped tags at the last [`Coordinator::take_dropped`].
    reported_dropped: u64,
    /// The driver knows that there are more.
    is_drop_posted: bool,
    ended: bool,
    is_done: bool,
    flushing: bool,
    stopping: bool,
    sent: SentTotals,
    meter: BitrateMeter,
}

/// Totals of the tags handed to servers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SentTotals {
    pub(super) tags: u64,
    pub(super) bytes: u64,
}

/// The values that the statistics read.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueLevels {
    pub(super) sent: SentTotals,
    pub(super) dropped: u64,
    pub(super) bytes: usize,
    pub(super) time: Duration,
    pub(super) rate: u64,
    pub(super) rate_at: Option<Instant>,
    pub(super) peak: u64,
}

/// The cause of a wake-up of the driver.
#[derive(Debug)]
pub(super) enum Wakeup {
    Events(Vec<DriverEvent>),
    /// The deadline has passed. Holds the time since which the sender has been busy.
    Due(Option<Instant>),
    Stop,
}

impl Coordinator {
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        Coordinator {
            state: Mutex::new(CoordinatorState {
                backlog: Backlog::new(limits),
                events: Vec::new(),
                open: Vec::new(),
                sender: None,
                successor: None,
                busy_since: None,
                finishing: None,
                is_batching_audio: false,
                reported_dropped: 0,
                is_drop_posted: false,
                ended: false,
                is_done: false,
                flushing: false,
                stopping: false,
                sent: SentTotals::default(),
                meter: BitrateMeter::new(now),
            }),
            sender_wakeup: Condvar::new(),
            driver_wakeup: Condvar::new(),
            drain_done: Condvar::new(),
        }
    }

    /// Streaming thread: makes the headers of new caps the whole configuration.
    pub(super) fn set_headers(&self, headers: Vec<BufferTag>) {
        self.state.lock().backlog.set_headers(headers);
        self.sender_wakeup.notify_all();
    }

    /// Streaming thread: queues a tag. Waits for nothing but the lock. A tag of the stream header
    /// that is in effect already is left out.
    pub(super) fn push(&self, tag: BufferTag, is_header: bool) {
        let mut state = self.state.lock();
        let can_wait = state.is_batching_audio && tag.kind != TagKind::Video;
        if is_header {
            state.backlog.push_header(tag);
        } else {
            state.backlog.push(tag);
        }
        self.post_drops(&mut state);
        drop(state);
        if !can_wait {
            self.sender_wakeup.notify_all();
        }
    }

    /// Streaming thread: counts a tag that no decoder could use.
    pub(super) fn reject(&self) {
        let mut state = self.state.lock();
        state.backlog.reject();
        self.post_drops(&mut state);
    }

    /// Driver: drops all media that no server has got, when the element stops.
    pub(super) fn drop_rest(&self) {
        self.state.lock().backlog.drop_rest();
    }

    fn post_drops(&self, state: &mut CoordinatorState) {
        if state.backlog.dropped() > state.reported_dropped && !state.is_drop_posted {
            state.is_drop_posted = true;
            state.events.push(DriverEvent::Dropped);
            self.driver_wakeup.notify_one();
        }
    }

    /// Driver: returns the tags dropped since the last call, and all dropped so far.
    pub(super) fn take_dropped(&self) -> (u64, u64) {
        let mut state = self.state.lock();
        let total = state.backlog.dropped();
        let before = std::mem::replace(&mut state.reported_dropped, total);
        state.is_drop_posted = false;
        (total - before, total)
    }

    /// Streaming thread: handles the end of the stream. Waits until everything was sent or no
    /// server accepts it. Returns false if the element stops before that.
    pub(super) fn drain(&self) -> bool {
        let mut state = self.state.lock();
        state.ended = true;
        state.events.push(DriverEvent::Ended);
        self.driver_wakeup.notify_one();
        self.sender_wakeup.notify_all();
        while !state.is_done && !state.flushing {
            self.drain_done.wait(&mut state);
        }
        state.is_done
    }

    pub(super) fn set_flushing(&self, flushing: bool) {
        self.state.lock().flushing = flushing;
        self.drain_done.notify_all();
    }

    /// Streaming thread: accepts more tags after the end of the stream.
    pub(super) fn reopen(&self) {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.ended) {
            state.is_done = false;
            state.events.push(DriverEvent::Resumed);
            self.driver_wakeup.notify_one();
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state.lock().ended
    }

    /// True if the stream has ended and the queue is empty.
    pub(super) fn is_finished(&self) -> bool {
        let state = self.state.lock();
        state.ended && state.backlog.is_empty()
    }

    pub(super) fn set_done(&self) {
        self.state.lock().is_done = true;
        self.drain_done.notify_all();
    }

    pub(super) fn stop(&self) {
        self.state.lock().stopping = true;
        self.driver_wakeup.notify_one();
    }

    /// Driver: registers a new connection.
    pub(super) fn open(&self, id: AttemptId) {
        self.state.lock().open.push(id);
    }

    /// Driver: cancels a connection. The tags that it has not sent stay queued for others.
    pub(super) fn close(&self, id: AttemptId) {
        let mut state = self.state.lock();
        state.open.retain(|open| *open != id);
        if state.successor == Some(id) {
            state.successor = None;
        }
        if state
            .finishing
            .is_some_and(|(finishing, _)| finishing == id)
        {
            state.finishing = None;
        }
        if state.sender == Some(id) {
            state.sender = None;
            state.busy_since = None;
            state.backlog.detach_sender();
            self.post_drops(&mut state);
            if let Some(successor) = state.successor.take() {
                state.set_sender(successor);
            }
        }
        self.sender_wakeup.notify_all();
    }

    /// Driver: makes a connection the sender, at once or after the present sender.
    pub(super) fn set_sender(&self, id: AttemptId) {
        let mut state = self.state.lock();
        match state.sender {
            None => state.set_sender(id),
            Some(sender) if sender == id => {}
            Some(_) => state.successor = Some(id),
        }
        self.sender_wakeup.notify_all();
    }

    /// Driver: waits for events, for the deadline or for the end of the element.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> Wakeup {
        let mut state = self.state.lock();
        loop {
            if state.stopping {
                return Wakeup::Stop;
            }
            if !state.events.is_empty() {
                return Wakeup::Events(std::mem::take(&mut state.events));
            }
            match deadline {
                None => self.driver_wakeup.wait(&mut state),
                Some(deadline) => {
                    if self
                        .driver_wakeup
                        .wait_until(&mut state, deadline)
                        .timed_out()
                    {
                        return Wakeup::Due(state.busy_since());
                    }
                }
            }
        }
    }

    pub(super) fn post(&self, event: DriverEvent) {
        self.state.lock().events.push(event);
        self.driver_wakeup.notify_one();
    }

    /// Connection: returns the configuration that a server needs first, and its version.
    pub(super) fn configuration(&self) -> (u64, Vec<BufferTag>) {
        let state = self.state.lock();
        let configuration = state.backlog.configuration();
        (configuration.version(), configuration.tags())
    }

    /// Connection: waits for the next step. `sent` is the size of the tag sent since the last call.
    pub(super) fn next(&self, id: AttemptId, sent: Option<usize>, version: &mut u64) -> NextStep {
        let mut state = self.state.lock();
        let mut can_batch_audio = sent.is_some() && state.backlog.has_video();
        if let Some(bytes) = sent {
            state.sent.tags += 1;
            state.sent.bytes += bytes as u64;
            state.meter.count(bytes, Instant::now());
        }
        loop {
            if !state.open.contains(&id) {
                return NextStep::Cancelled;
            }
            if state.sender == Some(id)
                && let Some(next) = state.next(version)
            {
                if let NextStep::Finish = next {
                    self.sender_wakeup.notify_all();
                }
                return next;
            }
            if !std::mem::take(&mut can_batch_audio) {
                self.sender_wakeup.wait(&mut state);
                continue;
            }
            state.is_batching_audio = true;
            self.sender_wakeup.wait_for(&mut state, MAX_AUDIO_DELAY);
            state.is_batching_audio = false;
        }
    }

    pub(super) fn levels(&self) -> QueueLevels {
        let state = self.state.lock();
        let (rate, rate_at) = state.meter.rate();
        QueueLevels {
            sent: state.sent,
            dropped: state.backlog.dropped(),
            bytes: state.backlog.bytes(),
            time: state.backlog.time(),
            rate,
            rate_at,
            peak: state.meter.peak(),
        }
    }
}

impl CoordinatorState {
    fn set_sender(&mut self, id: AttemptId) {
        self.sender = Some(id);
        self.backlog.attach_sender();
    }

    /// Returns the sender's next step, if there is one.
    fn next(&mut self, version: &mut u64) -> Option<NextStep> {
        self.busy_since = None;
        if self.successor.is_some() {
            if self.backlog.is_at_start() {
                return Some(self.finish());
            }
            if !self.ended && self.backlog.may_be_at_start() {
                return None;
            }
        }
        // Changes within the stream are sent in their place, as tags of the queue.
        let configuration = self.backlog.configuration();
        if configuration.version() != *version {
            *version = configuration.version();
            let tags = configuration.tags();
            self.busy_since = Some(Instant::now());
            return Some(NextStep::Configure(tags));
        }
        if let Some((tag, after)) = self.backlog.pop() {
            *version = after;
            self.busy_since = Some(Instant::now());
            return Some(NextStep::Send(tag));
        }
        self.ended.then(|| {
            self.backlog.finish();
            self.finish()
        })
    }

    /// Ends the sender's stream. A successor becomes the sender also at the end of the stream, and
    /// finds the queue empty.
    fn finish(&mut self) -> NextStep {
        let sender = self.sender.take();
        self.finishing = sender.map(|id| (id, Instant::now()));
        if let Some(successor) = self.successor.take() {
            self.set_sender(successor);
        }
        NextStep::Finish
    }

    fn busy_since(&self) -> Option<Instant> {
        let finishing = self.finishing.map(|(_, since)| since);
        [self.busy_since, finishing].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flv::{Content, TagInfo};

    fn keyframe(timestamp: u32) -> BufferTag {
        QueuedTag {
            payload: gst::Buffer::new(),
            bytes: 10,
            kind: TagKind::Video,
            info: TagInfo {
                content: Content::Keyframe,
                track: 0,
                composition_time: 0,
            },
            timestamp,
        }
    }

    /// Connection 1 is the sender, and 2 its successor.
    fn coordinator() -> Coordinator {
        gst::init().unwrap();
        let limits = Limits {
            max_bytes: 0,
            max_time: Duration::ZERO,
        };
        let coordinator = Coordinator::new(limits, Instant::now());
        for id in [1, 2] {
            coordinator.open(id);
            coordinator.set_sender(id);
        }
        coordinator
    }

    fn next(coordinator: &Coordinator, id: AttemptId) -> Option<u32> {
        match coordinator.next(id, None, &mut 0) {
            NextStep::Send(tag) => Some(tag.timestamp),
            NextStep::Finish => None,
            next => panic!("{next:?}"),
        }
    }

    fn is_busy(coordinator: &Coordinator) -> bool {
        matches!(coordinator.wait(Some(Instant::now())), Wakeup::Due(Some(_)))
    }

    #[test]
    fn tags_of_a_closed_successor_go_to_the_next_sender() {
        let coordinator = coordinator();
        coordinator.push(keyframe(40), false);
        assert_eq!(next(&coordinator, 1), None);
        assert_eq!(next(&coordinator, 2), Some(40));
        coordinator.close(2);
        // The first one is still ending its stream, which must not take for ever either.
        assert!(is_busy(&coordinator));
        coordinator.close(1);
        assert!(!is_busy(&coordinator) && !coordinator.is_finished());
        coordinator.open(3);
        coordinator.set_sender(3);
        assert_eq!(next(&coordinator, 3), Some(40));
    }

    #[test]
    fn a_successor_finishes_at_the_end_of_the_stream() {
        let coordinator = coordinator();
        coordinator.state.lock().ended = true;
        assert_eq!((next(&coordinator, 1), next(&coordinator, 2)), (None, None));
        assert!(coordinator.is_finished() && is_busy(&coordinator));
    }
}
