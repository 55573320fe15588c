// SPDX-License-Identifier: MPL-2.0

//! The streams of an element that accepts many publishers: one for each application and stream key,
//! which exists as long as it has media.
//!
//! A stream is made only within [`StreamTable::start`], so nothing is left over from clients that
//! do not publish in the end.
//!
//! Lock order: `state`, then the state of a stream.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::flv::codec::AcceptedCodecs;
use crate::server::config::{Policy, StreamSettings};
use crate::server::events::{EventDispatcher, MAX_WAITING, PublisherEvent};
use crate::server::publisher::{Publisher, RejectReason};
use crate::server::stats::{LastError, Totals};
use crate::server::stream::Stream;
use crate::server::stream::patience::Patience;
use crate::server::stream::publisher_handle::PublisherHandle;
use crate::server::threads::TimerService;

/// Application and stream key.
type Name = (String, String);

/// The streams of an element, by number and by name.
#[derive(Debug)]
pub(crate) struct StreamTable {
    codecs: AcceptedCodecs,
    events: Arc<EventDispatcher>,
    state: Mutex<TableState>,
    /// A stream was removed, or the table has ended.
    changed: Condvar,
    rejected: AtomicU64,
    last_error: Mutex<Option<LastError>>,
    timers: OnceLock<Arc<dyn TimerService>>,
}

#[derive(Debug)]
struct TableState {
    settings: StreamSettings,
    max_streams: usize,
    /// The present streams. One that has ended stays until its element lets go of it.
    present: BTreeMap<u32, (Name, Arc<Stream>)>,
    /// The newest stream of each name.
    newest: HashMap<Name, u32>,
    next: u32,
    is_draining: bool,
    /// The pipeline comes to its end: there is no new stream.
    has_ended: bool,
    is_closed: bool,
    /// Totals of the streams that were removed.
    removed: Totals,
}

impl StreamTable {
    pub(crate) fn new(
        settings: StreamSettings,
        max_streams: usize,
        codecs: AcceptedCodecs,
        events: Arc<EventDispatcher>,
    ) -> Self {
        events.set_max_waiting(max_waiting(max_streams));
        StreamTable {
            codecs,
            events,
            state: Mutex::new(TableState {
                settings,
                max_streams,
                present: BTreeMap::new(),
                newest: HashMap::new(),
                next: 0,
                is_draining: false,
                has_ended: false,
                is_closed: false,
                removed: Totals::default(),
            }),
            changed: Condvar::new(),
            rejected: AtomicU64::default(),
            last_error: Mutex::default(),
            timers: OnceLock::new(),
        }
    }

    /// Sets where waits of the streams end. Called once, before there is a stream.
    pub(crate) fn set_timers(&self, timers: Arc<dyn TimerService>) {
        let _ = self.timers.set(timers);
    }

    /// Takes effect at once, also on present streams.
    pub(crate) fn configure(&self, settings: StreamSettings, max_streams: usize) {
        let mut state = self.state.lock();
        (state.settings, state.max_streams) = (settings, max_streams);
        state.streams().for_each(|s| s.configure(settings));
        self.events.set_max_waiting(max_waiting(max_streams));
        drop(state);
        self.changed.notify_all();
    }

    /// Returns the number of clients that were rejected.
    pub(crate) fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Returns the last error of a client that did not publish.
    pub(crate) fn last_error(&self) -> Option<LastError> {
        self.last_error.lock().clone()
    }

    pub(crate) fn stream(&self, number: u32) -> Option<Arc<Stream>> {
        let state = self.state.lock();
        let found = state.present.get(&number);
        found.map(|(_, stream)| stream.clone())
    }

    /// Returns the totals of all streams since the start.
    pub(crate) fn totals(&self, now: Instant) -> Totals {
        let state = self.state.lock();
        let present: Totals = state.streams().map(|stream| stream.totals(now)).sum();
        let own = Totals {
            rejected: self.rejected(),
            ..Totals::default()
        };
        state.removed + present + own
    }

    /// Returns the number of streams that have a publisher.
    pub(crate) fn publishing(&self) -> usize {
        let state = self.state.lock();
        let is_publishing = |stream: &&Arc<Stream>| stream.publisher().is_some();
        state.streams().filter(is_publishing).count()
    }

    /// Waits until a publisher would be accepted, or is rejected.
    pub(crate) fn reserve(
        &self,
        publisher: &Publisher,
        policy: Option<Policy>,
        patience: &mut Patience,
    ) -> Result<(), RejectReason> {
        let present = self.state.lock().continued(&name(publisher))?;
        // Without the lock: it may wait for a publisher that is about to leave.
        if let Some(stream) = present {
            match stream.reserve(policy, patience) {
                Err(RejectReason::Ended) => {}
                result => return result,
            }
        }
        patience.spend(|deadline| self.wait_for_space(&mut self.state.lock(), deadline))
    }

    /// Waits for the removal of streams that have ended, which follows as soon as their end has
    /// left the element.
    fn wait_for_space(
        &self,
        state: &mut MutexGuard<'_, TableState>,
        deadline: Instant,
    ) -> Result<(), RejectReason> {
        loop {
            match self.check(state) {
                Err(RejectReason::Full) if state.streams().any(|stream| stream.has_ended()) => {}
                result => return result,
            }
            if self.changed.wait_until(state, deadline).timed_out() {
                return self.check(state);
            }
        }
    }

    /// Checks if one more stream is allowed.
    fn check(&self, state: &TableState) -> Result<(), RejectReason> {
        if state.is_closed || state.has_ended {
            Err(RejectReason::Ended)
        } else if state.is_draining {
            Err(RejectReason::Draining)
        } else if state.present.len() >= state.max_streams {
            Err(RejectReason::Full)
        } else if self.events.is_full() {
            Err(RejectReason::Busy)
        } else {
            Ok(())
        }
    }

    /// Makes a client the publisher of the stream of its name, if that accepts one.
    pub(crate) fn start(
        &self,
        publisher: &Publisher,
        handle: &Arc<PublisherHandle>,
        policy: Option<Policy>,
        patience: &mut Patience,
    ) -> Result<(Arc<Stream>, Arc<Publisher>), RejectReason> {
        let name = name(publisher);
        loop {
            let before = self.state.lock().continued(&name)?;
            if let Some(stream) = &before {
                match stream.start(publisher.clone(), handle.clone(), policy, patience) {
                    Err(RejectReason::Ended) => {}
                    started => return started.map(|publisher| (stream.clone(), publisher)),
                }
            }
            let mut state = self.state.lock();
            // The stream may have ended since it was found, and still count as present.
            let space = patience.spend(|deadline| self.wait_for_space(&mut state, deadline));
            // Another client may have been faster, and has the stream of this name now.
            let newest = state.newest(&name);
            if newest.as_ref().map(Arc::as_ptr) != before.as_ref().map(Arc::as_ptr) {
                continue;
            }
            space?;
            return self.open(&mut state, name, publisher, handle);
        }
    }

    fn open(
        &self,
        state: &mut TableState,
        name: Name,
        publisher: &Publisher,
        handle: &Arc<PublisherHandle>,
    ) -> Result<(Arc<Stream>, Arc<Publisher>), RejectReason> {
        let number = state.next;
        let (codecs, events) = (self.codecs.clone(), self.events.clone());
        let stream = Arc::new(Stream::new(Some(number), state.settings, codecs, events));
        if let Some(timers) = self.timers.get() {
            stream.set_timers(timers.clone());
        }
        // It does not wait, since no other thread knows this stream. The observer may be notified
        // before the stream is listed: it has to wait for the lock then.
        let publisher = stream.start(
            publisher.clone(),
            handle.clone(),
            None,
            &mut Patience::default(),
        )?;
        state.next += 1;
        state.newest.insert(name.clone(), number);
        state.present.insert(number, (name, stream.clone()));
        Ok((stream, publisher))
    }

    /// Removes a stream that its element lets go of. Returns the client that published it.
    pub(crate) fn close_stream(&self, number: u32) -> Option<u64> {
        let mut state = self.state.lock();
        let (name, stream) = state.present.remove(&number)?;
        if state.newest.get(&name) == Some(&number) {
            state.newest.remove(&name);
        }
        let client = stream.close();
        state.removed = state.removed + stream.totals(Instant::now());
        drop(state);
        self.changed.notify_all();
        client
    }

    /// Accepts no new stream any more. Present ones come to their ends by themselves.
    pub(crate) fn end(&self) {
        self.state.lock().has_ended = true;
        self.changed.notify_all();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.state.lock().has_ended
    }

    /// Stops all streams. Returns the clients that published.
    pub(crate) fn close(&self) -> Vec<u64> {
        let mut state = self.state.lock();
        state.is_closed = true;
        let clients = state.streams().filter_map(|stream| stream.close());
        let clients = clients.collect();
        drop(state);
        self.changed.notify_all();
        clients
    }

    /// Accepts no publishers from now on, see [`Stream::drain`].
    pub(crate) fn drain(&self, timeout: Duration) {
        let mut state = self.state.lock();
        state.is_draining = true;
        state.streams().for_each(|stream| stream.drain(timeout));
        drop(state);
        self.changed.notify_all();
    }

    pub(crate) fn stop_draining(&self) {
        let mut state = self.state.lock();
        state.is_draining = false;
        state.streams().for_each(Stream::stop_draining);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.state.lock().is_draining
    }

    /// Returns true while publishers may be accepted, now or later.
    pub(crate) fn is_open(&self) -> bool {
        let state = self.state.lock();
        !state.is_draining && !state.has_ended && !state.is_closed
    }

    pub(crate) fn set_last_error(&self, address: SocketAddr, reason: String) {
        let at = Instant::now();
        *self.last_error.lock() = Some(LastError {
            reason,
            address,
            at,
        });
    }

    pub(crate) fn reject(&self, publisher: Arc<Publisher>, reason: RejectReason) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        self.set_last_error(publisher.address, reason.last_error());
        self.events
            .post(PublisherEvent::Rejected(publisher, reason));
    }
}

impl TableState {
    fn streams(&self) -> impl Iterator<Item = &Arc<Stream>> {
        self.present.values().map(|(_, stream)| stream)
    }

    /// Returns the stream that the next publisher of a name would continue.
    fn continued(&self, name: &Name) -> Result<Option<Arc<Stream>>, RejectReason> {
        if self.has_ended {
            return Err(RejectReason::Ended);
        }
        Ok(self.newest(name))
    }

    fn newest(&self, name: &Name) -> Option<Arc<Stream>> {
        let number = self.newest.get(name)?;
        let found = self.present.get(number);
        found.map(|(_, stream)| stream.clone())
    }
}

/// Each stream may come and go while the application is busy with another one.
fn max_waiting(max_streams: usize) -> usize {
    MAX_WAITING.max(max_streams.saturating_mul(4))
}

fn name(publisher: &Publisher) -> Name {
    (publisher.application.clone(), publisher.stream_key.clone())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::server::config::{Leak, Policy, QueueLimits};
    use crate::server::events::Observer;
    use crate::server::publisher::RemovalReason;

    /// Handles the first event until the test lets it go on.
    #[derive(Debug)]
    struct Busy(Mutex<mpsc::Receiver<()>>);

    impl Observer for Busy {
        fn may_publish(&self, _publisher: &Publisher) -> bool {
            true
        }

        fn notify(&self, _event: &PublisherEvent) {
            let _ = self.0.lock().recv();
        }
    }

    fn settings() -> StreamSettings {
        StreamSettings {
            limits: QueueLimits {
                max_bytes: 0,
                max_time: Duration::ZERO,
                leak: Leak::None,
            },
            timeout: Duration::ZERO,
            keep_listening: false,
            policy: Policy::Reject,
            stall_timeout: Duration::ZERO,
            delivery_interval: Duration::ZERO,
            quality: Default::default(),
            resume_timeout: Duration::ZERO,
        }
    }

    fn table(max_streams: usize) -> (StreamTable, mpsc::Sender<()>) {
        let (go_on, may_go_on) = mpsc::channel();
        let observer = Arc::new(Busy(Mutex::new(may_go_on)));
        let events = Arc::new(EventDispatcher::new(observer, MAX_WAITING));
        let codecs = AcceptedCodecs::default();
        (
            StreamTable::new(settings(), max_streams, codecs, events),
            go_on,
        )
    }

    fn reserve(table: &StreamTable) -> Result<(), RejectReason> {
        table.reserve(&Publisher::example(1), None, &mut Patience::default())
    }

    #[test]
    fn more_streams_allow_more_events_to_wait() {
        let (table, go_on) = table(1);
        while !table.events.is_full() {
            let publisher = Arc::new(Publisher::example(1));
            let event = PublisherEvent::Removed(publisher, RemovalReason::Closed);
            table.events.post(event);
        }
        assert_eq!(reserve(&table), Err(RejectReason::Busy));
        table.configure(settings(), MAX_WAITING);
        assert_eq!(reserve(&table), Ok(()));
        drop(go_on);
        table.events.flush();
    }

    #[test]
    fn publishers_after_the_end_are_rejected() {
        let (table, _go_on) = table(1);
        assert_eq!(reserve(&table), Ok(()));
        table.end();
        assert_eq!(reserve(&table), Err(RejectReason::Ended));
        assert!(!table.is_open());
    }
}
