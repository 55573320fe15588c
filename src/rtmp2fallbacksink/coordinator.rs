// SPDX-License-Identifier: MPL-2.0

//! What the streaming thread, the threads of connections and the driver share, under one lock. It is
//! a leaf: nothing is pushed, posted or joined under it.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::backlog::{Backlog, Limits, Tag};
use super::schedule::Id;
use crate::flv::TagKind;
use crate::rate::BitrateMeter;

/// So long the sound of a stream waits for the next picture at most. Each wake-up costs more than what
/// is done with a tag.
const DOZE: Duration = Duration::from_millis(50);

pub(super) type BufferTag = Tag<gst::Buffer>;

/// What the driver hears from others.
#[derive(Debug)]
pub(super) enum Event {
    Opened(Id),
    Failed(Id, String),
    /// It has sent all that it was to send.
    Finished(Id),
    /// Nothing more comes from upstream.
    Ended,
    /// There is more after all.
    Begun,
}

/// What a connection does next.
#[derive(Debug)]
pub(super) enum Next {
    Send(BufferTag),
    /// Configuration has changed since it was sent.
    Configure(Vec<BufferTag>),
    Finish,
    Cancelled,
}

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// There may be something for a connection to do.
    work: Condvar,
    /// There may be something for the driver to do.
    news: Condvar,
    /// What the end of the stream waits for.
    done: Condvar,
}

#[derive(Debug)]
struct State {
    backlog: Backlog<gst::Buffer>,
    events: Vec<Event>,
    /// Connections that were not told to stop.
    open: Vec<Id>,
    sender: Option<Id>,
    /// Takes over where a group of pictures ends.
    successor: Option<Id>,
    /// Since when the sender hands over what it took last.
    busy_since: Option<Instant>,
    /// Who was told to end its stream last, and since when it does that.
    finishing: Option<(Id, Instant)>,
    /// The sender has sent all, and looks for more by itself soon.
    is_dozing: bool,
    ended: bool,
    is_done: bool,
    flushing: bool,
    stopping: bool,
    sent: Sent,
    meter: BitrateMeter,
}

/// What was handed over to servers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sent {
    pub(super) tags: u64,
    pub(super) bytes: u64,
}

/// For the statistics.
#[derive(Debug, Clone, Copy)]
pub(super) struct Levels {
    pub(super) sent: Sent,
    pub(super) dropped: u64,
    pub(super) bytes: usize,
    pub(super) time: Duration,
    pub(super) rate: u64,
    pub(super) rate_at: Option<Instant>,
    pub(super) peak: u64,
}

/// What wakes the driver.
#[derive(Debug)]
pub(super) enum Wakeup {
    Events(Vec<Event>),
    /// The deadline has passed. Since when the sender has been busy.
    Due(Option<Instant>),
    Stop,
}

impl Shared {
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        Shared {
            state: Mutex::new(State {
                backlog: Backlog::new(limits),
                events: Vec::new(),
                open: Vec::new(),
                sender: None,
                successor: None,
                busy_since: None,
                finishing: None,
                is_dozing: false,
                ended: false,
                is_done: false,
                flushing: false,
                stopping: false,
                sent: Sent::default(),
                meter: BitrateMeter::new(now),
            }),
            work: Condvar::new(),
            news: Condvar::new(),
            done: Condvar::new(),
        }
    }

    /// Streaming thread: never waits for anything but the lock.
    pub(super) fn push(&self, tag: BufferTag) {
        let mut state = self.state.lock();
        let can_wait = state.is_dozing && tag.kind != TagKind::Video;
        state.backlog.push(tag);
        drop(state);
        if !can_wait {
            self.work.notify_all();
        }
    }

    /// Streaming thread: nothing more comes. Waits until all was sent, or there is nobody to send it
    /// to. False if the element stops before that.
    pub(super) fn drain(&self) -> bool {
        let mut state = self.state.lock();
        state.ended = true;
        state.events.push(Event::Ended);
        self.news.notify_one();
        self.work.notify_all();
        while !state.is_done && !state.flushing {
            self.done.wait(&mut state);
        }
        state.is_done
    }

    pub(super) fn set_flushing(&self, flushing: bool) {
        self.state.lock().flushing = flushing;
        self.done.notify_all();
    }

    /// After the end there is more to come.
    pub(super) fn reopen(&self) {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.ended) {
            state.is_done = false;
            state.events.push(Event::Begun);
            self.news.notify_one();
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state.lock().ended
    }

    /// The stream has ended, and nothing of it waits for anybody.
    pub(super) fn is_over(&self) -> bool {
        let state = self.state.lock();
        state.ended && state.backlog.is_empty()
    }

    pub(super) fn set_done(&self) {
        self.state.lock().is_done = true;
        self.done.notify_all();
    }

    pub(super) fn stop(&self) {
        self.state.lock().stopping = true;
        self.news.notify_one();
    }

    /// Driver: a connection begins.
    pub(super) fn open(&self, id: Id) {
        self.state.lock().open.push(id);
    }

    /// Driver: a connection has to end. What it has not taken yet is for others.
    pub(super) fn close(&self, id: Id) {
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
            state.backlog.give_back();
            if let Some(successor) = state.successor.take() {
                state.set_sender(successor);
            }
        }
        self.work.notify_all();
    }

    /// Driver: this one sends, at once or after the one that does.
    pub(super) fn set_sender(&self, id: Id) {
        let mut state = self.state.lock();
        match state.sender {
            None => state.set_sender(id),
            Some(sender) if sender == id => {}
            Some(_) => state.successor = Some(id),
        }
        self.work.notify_all();
    }

    /// Driver: waits for what is next.
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
                None => self.news.wait(&mut state),
                Some(deadline) => {
                    if self.news.wait_until(&mut state, deadline).timed_out() {
                        return Wakeup::Due(state.busy_since());
                    }
                }
            }
        }
    }

    pub(super) fn tell(&self, event: Event) {
        self.state.lock().events.push(event);
        self.news.notify_one();
    }

    /// Connection: what a server needs first.
    pub(super) fn configuration(&self) -> (u64, Vec<BufferTag>) {
        self.state.lock().backlog.configuration()
    }

    /// Connection: what to do next, `sent` bytes after the last time.
    pub(super) fn next(&self, id: Id, sent: Option<usize>, version: &mut u64) -> Next {
        let mut state = self.state.lock();
        let mut is_in_flow = sent.is_some() && state.backlog.has_video();
        if let Some(bytes) = sent {
            state.sent.tags += 1;
            state.sent.bytes += bytes as u64;
            state.meter.count(bytes, Instant::now());
        }
        loop {
            if !state.open.contains(&id) {
                return Next::Cancelled;
            }
            if state.sender == Some(id)
                && let Some(next) = state.next(version)
            {
                if let Next::Finish = next {
                    self.work.notify_all();
                }
                return next;
            }
            if !std::mem::take(&mut is_in_flow) {
                self.work.wait(&mut state);
                continue;
            }
            state.is_dozing = true;
            self.work.wait_for(&mut state, DOZE);
            state.is_dozing = false;
        }
    }

    pub(super) fn levels(&self) -> Levels {
        let state = self.state.lock();
        let (rate, rate_at) = state.meter.rate();
        Levels {
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

impl State {
    fn set_sender(&mut self, id: Id) {
        self.sender = Some(id);
        self.backlog.take();
    }

    /// What the sender does next, if there is anything.
    fn next(&mut self, version: &mut u64) -> Option<Next> {
        self.busy_since = None;
        if self.successor.is_some() && self.backlog.is_at_start() {
            return Some(self.finish());
        }
        // Changes within the stream come in their place, and are known when they have.
        if self.backlog.version() != *version {
            let (now, configuration) = self.backlog.configuration();
            *version = now;
            self.busy_since = Some(Instant::now());
            return Some(Next::Configure(configuration));
        }
        if let Some(tag) = self.backlog.pop() {
            *version = self.backlog.version();
            self.busy_since = Some(Instant::now());
            return Some(Next::Send(tag));
        }
        self.ended.then(|| {
            self.backlog.end();
            self.finish()
        })
    }

    /// The sender ends its stream. Who takes over does so also at the end, to find nothing there.
    fn finish(&mut self) -> Next {
        let sender = self.sender.take();
        self.finishing = sender.map(|id| (id, Instant::now()));
        if let Some(successor) = self.successor.take() {
            self.set_sender(successor);
        }
        Next::Finish
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
        Tag {
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

    /// 1 sends, and 2 is to take over.
    fn shared() -> Shared {
        gst::init().unwrap();
        let limits = Limits {
            max_bytes: 0,
            max_time: Duration::ZERO,
        };
        let shared = Shared::new(limits, Instant::now());
        for id in [1, 2] {
            shared.open(id);
            shared.set_sender(id);
        }
        shared
    }

    fn next(shared: &Shared, id: Id) -> Option<u32> {
        match shared.next(id, None, &mut 0) {
            Next::Send(tag) => Some(tag.timestamp),
            Next::Finish => None,
            next => panic!("{next:?}"),
        }
    }

    fn is_busy(shared: &Shared) -> bool {
        matches!(shared.wait(Some(Instant::now())), Wakeup::Due(Some(_)))
    }

    #[test]
    fn what_is_left_by_who_has_taken_over_is_for_the_next_one() {
        let shared = shared();
        shared.push(keyframe(40));
        assert_eq!(next(&shared, 1), None);
        assert_eq!(next(&shared, 2), Some(40));
        shared.close(2);
        // The first one still tells its server of the end, which must not take for ever either.
        assert!(is_busy(&shared));
        shared.close(1);
        assert!(!is_busy(&shared) && !shared.is_over());
        shared.open(3);
        shared.set_sender(3);
        assert_eq!(next(&shared, 3), Some(40));
    }

    #[test]
    fn at_the_end_who_was_to_take_over_ends_too() {
        let shared = shared();
        shared.state.lock().ended = true;
        assert_eq!((next(&shared, 1), next(&shared, 2)), (None, None));
        assert!(shared.is_over() && is_busy(&shared));
    }
}
