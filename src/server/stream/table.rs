// SPDX-License-Identifier: MPL-2.0

//! A route that takes many publishers: each application and stream key on it has an stream of its own, which is there as
//! long as the stream is.
//!
//! What comes before `publish` is asked of all of them in the same way. Whoever has passed that is the
//! publisher of the stream of its name, if there is one that goes on, or of a new one. So nothing is made
//! for a client that does not publish in the end.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::server::events::{MAX_WAITING, PublisherEvent};
use crate::server::port::process_counters::Totals;
use crate::server::publisher::{Publisher, RejectReason};
use crate::server::routing::rules::PublishRules;
use crate::server::stats::LastError;
use crate::server::stream::publisher_handle::PublisherHandle;
use crate::server::stream::{MAX_DEPARTURE, PublishPointConfig, Stream, StreamSettings};

/// Application and stream key.
type Name = (String, String);

/// The streams of an element that takes many.
#[derive(Debug)]
pub struct StreamTable {
    rules: Arc<PublishRules>,
    streams: Mutex<Streams>,
    /// A stream is gone, or all are.
    room: Condvar,
    rejected: AtomicU64,
    last_error: Mutex<Option<LastError>>,
}

#[derive(Debug)]
struct Streams {
    settings: StreamSettings,
    max_streams: usize,
    /// Those that have ended among them, until their element has let go of them.
    present: BTreeMap<u32, (Name, Arc<Stream>)>,
    /// The newest of each name.
    newest: HashMap<Name, u32>,
    next: u32,
    drained: bool,
    /// Its pipeline is to come to its end: there is nothing new for it.
    ended: bool,
    closed: bool,
    /// What those that are gone had counted.
    gone: Totals,
}

impl StreamTable {
    pub fn new(config: PublishPointConfig, max_streams: usize) -> Self {
        let (rules, settings) = PublishRules::new(config, max_waiting(max_streams));
        StreamTable {
            rules,
            streams: Mutex::new(Streams {
                settings,
                max_streams,
                present: BTreeMap::new(),
                newest: HashMap::new(),
                next: 0,
                drained: false,
                ended: false,
                closed: false,
                gone: Totals::default(),
            }),
            room: Condvar::new(),
            rejected: AtomicU64::default(),
            last_error: Mutex::default(),
        }
    }

    /// Takes effect at once, also for the streams that there are.
    pub fn configure(&self, settings: StreamSettings, max_streams: usize) {
        let mut streams = self.streams.lock();
        (streams.settings, streams.max_streams) = (settings, max_streams);
        for stream in streams.iter() {
            stream.configure(settings);
        }
        self.rules.set_max_waiting(max_waiting(max_streams));
        drop(streams);
        self.room.notify_all();
    }

    /// Clients that were refused.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Of a client that was refused, or cut off before it published.
    pub fn last_error(&self) -> Option<LastError> {
        self.last_error.lock().clone()
    }

    pub(crate) fn rules(&self) -> &PublishRules {
        &self.rules
    }

    pub(crate) fn stream(&self, number: u32) -> Option<Arc<Stream>> {
        let streams = self.streams.lock();
        let found = streams.present.get(&number);
        found.map(|(_, stream)| stream.clone())
    }

    pub(crate) fn sums(&self) -> Totals {
        let streams = self.streams.lock();
        let sums = streams.iter().fold(streams.gone, Totals::with);
        sums.with_rejected(self.rejected())
    }

    /// Streams that have a publisher.
    pub fn publishing(&self) -> usize {
        let streams = self.streams.lock();
        let publishing = |stream: &&Arc<Stream>| stream.publisher().is_some();
        streams.iter().filter(publishing).count()
    }

    /// Whether a publisher would be taken, as far as it can be said now.
    pub(crate) fn availability(&self, publisher: &Publisher) -> Result<(), RejectReason> {
        let deadline = Instant::now() + MAX_DEPARTURE;
        let present = self.streams.lock().going_on(&name(publisher))?;
        // Under no lock of ours: it may wait for one that is about to leave.
        if let Some(stream) = present {
            match stream.availability() {
                Err(RejectReason::Ended) => {}
                said => return said,
            }
        }
        self.wait_for_room(&mut self.streams.lock(), deadline)
    }

    /// Streams that have ended go as soon as their end has left the element.
    fn wait_for_room(
        &self,
        streams: &mut MutexGuard<'_, Streams>,
        deadline: Instant,
    ) -> Result<(), RejectReason> {
        loop {
            match self.check(streams) {
                Err(RejectReason::Full) if streams.iter().any(|stream| stream.is_over()) => {}
                said => return said,
            }
            if self.room.wait_until(streams, deadline).timed_out() {
                return self.check(streams);
            }
        }
    }

    /// Whether there may be one more stream.
    fn check(&self, streams: &Streams) -> Result<(), RejectReason> {
        if streams.closed || streams.ended {
            Err(RejectReason::Ended)
        } else if streams.drained {
            Err(RejectReason::Draining)
        } else if streams.present.len() >= streams.max_streams {
            Err(RejectReason::Full)
        } else if self.rules.is_behind() {
            Err(RejectReason::Busy)
        } else {
            Ok(())
        }
    }

    /// Makes a client the publisher of the stream of its name, if it may be.
    pub(crate) fn take(
        &self,
        publisher: &Publisher,
        link: &Arc<PublisherHandle>,
    ) -> Result<(Arc<Stream>, Arc<Publisher>), RejectReason> {
        let name = name(publisher);
        let deadline = Instant::now() + MAX_DEPARTURE;
        loop {
            let before = self.streams.lock().going_on(&name)?;
            if let Some(stream) = &before {
                match stream.take(publisher.clone(), link.clone()) {
                    Err(RejectReason::Ended) => {}
                    taken => return taken.map(|publisher| (stream.clone(), publisher)),
                }
            }
            let mut streams = self.streams.lock();
            // It may have ended since somebody asked whether it goes on, and count as one yet.
            let room = self.wait_for_room(&mut streams, deadline);
            // Another client may have been faster, and has the stream of this name now.
            let newest = streams.newest(&name);
            if newest.as_ref().map(Arc::as_ptr) != before.as_ref().map(Arc::as_ptr) {
                continue;
            }
            room?;
            return self.open(&mut streams, name, publisher, link);
        }
    }

    fn open(
        &self,
        streams: &mut Streams,
        name: Name,
        publisher: &Publisher,
        link: &Arc<PublisherHandle>,
    ) -> Result<(Arc<Stream>, Arc<Publisher>), RejectReason> {
        let number = streams.next;
        let rules = self.rules.clone();
        let stream = Arc::new(Stream::behind(rules, streams.settings, Some(number)));
        // It waits for nothing, since nobody else knows of this one. The observer may be told before
        // it is listed: it has to wait for the lock then.
        let publisher = stream.take(publisher.clone(), link.clone())?;
        streams.next += 1;
        streams.newest.insert(name.clone(), number);
        streams.present.insert(number, (name, stream.clone()));
        Ok((stream, publisher))
    }

    /// The element lets go of a stream. Gives the client that published it.
    pub(crate) fn close_stream(&self, number: u32) -> Option<u64> {
        let mut streams = self.streams.lock();
        let (name, stream) = streams.present.remove(&number)?;
        if streams.newest.get(&name) == Some(&number) {
            streams.newest.remove(&name);
        }
        let client = stream.close();
        streams.gone = streams.gone.with(&stream);
        drop(streams);
        self.room.notify_all();
        client
    }

    /// The streams that there are come to their ends, and there are no others.
    pub fn end(&self) {
        self.streams.lock().ended = true;
        self.room.notify_all();
    }

    pub fn has_ended(&self) -> bool {
        self.streams.lock().ended
    }

    /// The element stops. Gives the clients that published.
    pub(crate) fn close(&self) -> Vec<u64> {
        let mut streams = self.streams.lock();
        streams.closed = true;
        let clients = streams.iter().filter_map(|stream| stream.close());
        let clients = clients.collect();
        drop(streams);
        self.room.notify_all();
        clients
    }

    /// No new publishers from now on, see [`Stream::drain`]. Gives what is to be called when.
    pub(crate) fn drain(&self, timeout: Duration) -> Vec<(Instant, Arc<Stream>)> {
        let mut streams = self.streams.lock();
        streams.drained = true;
        let drain = |stream: &Arc<Stream>| Some((stream.drain(timeout)?, stream.clone()));
        let due = streams.iter().filter_map(drain).collect();
        drop(streams);
        self.room.notify_all();
        due
    }

    pub(crate) fn stop_draining(&self) {
        let mut streams = self.streams.lock();
        streams.drained = false;
        streams.iter().for_each(|stream| stream.stop_draining());
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.streams.lock().drained
    }

    pub(crate) fn takes_publishers(&self) -> bool {
        let streams = self.streams.lock();
        !streams.drained && !streams.ended && !streams.closed
    }

    pub(crate) fn set_last_error(&self, address: SocketAddr, reason: String) {
        let at = Instant::now();
        *self.last_error.lock() = Some(LastError {
            reason,
            address,
            at,
        });
    }

    pub(crate) fn reject(&self, publisher: Arc<Publisher>, refusal: RejectReason) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        self.set_last_error(publisher.address, refusal.reason());
        self.rules
            .post(PublisherEvent::Rejected(publisher, refusal));
    }
}

impl Streams {
    fn iter(&self) -> impl Iterator<Item = &Arc<Stream>> {
        self.present.values().map(|(_, stream)| stream)
    }

    /// The stream that the next publisher of a name would go on with.
    fn going_on(&self, name: &Name) -> Result<Option<Arc<Stream>>, RejectReason> {
        if self.ended {
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
    use crate::server::events::Observer;
    use crate::server::port::listener::{ListenerSettings, PortSettings};
    use crate::server::publisher::RemovalReason;
    use crate::server::routing::access::Access;
    use crate::server::routing::route::Route;
    use crate::server::stream::Policy;
    use crate::server::stream::queue::{Leak, QueueLimits};

    /// Is busy with the first one until that is over.
    #[derive(Debug)]
    struct Busy(Mutex<mpsc::Receiver<()>>);

    impl Observer for Busy {
        fn may_publish(&self, _publisher: &Publisher) -> bool {
            true
        }

        fn notify(&self, _notice: &PublisherEvent) {
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
            resume_timeout: Duration::ZERO,
        }
    }

    fn table(observer: Arc<dyn Observer>, max_streams: usize) -> StreamTable {
        let config = PublishPointConfig {
            name: "name".into(),
            route: Route::default(),
            access: Access::default(),
            settings: settings(),
            listener: ListenerSettings {
                chunk_size: 4096,
                max_message_size: 4096,
                max_clients: 1,
                max_clients_per_address: 1,
                handshake_timeout: Duration::ZERO,
            },
            port: PortSettings::default(),
            observer,
        };
        StreamTable::new(config, max_streams)
    }

    #[test]
    fn more_streams_may_be_more_that_the_application_has_not_heard_of() {
        let (go_on, may_go_on) = mpsc::channel();
        let table = table(Arc::new(Busy(Mutex::new(may_go_on))), 1);
        while !table.rules.is_behind() {
            let notice =
                PublisherEvent::Removed(Arc::new(Publisher::example(1)), RemovalReason::Closed);
            table.rules.post(notice);
        }
        assert_eq!(
            table.availability(&Publisher::example(1)),
            Err(RejectReason::Busy)
        );
        table.configure(settings(), MAX_WAITING);
        assert_eq!(table.availability(&Publisher::example(1)), Ok(()));
        drop(go_on);
        table.rules.flush_notices();
    }

    #[test]
    fn nobody_is_taken_after_the_end() {
        let (_go_on, may_go_on) = mpsc::channel();
        let table = table(Arc::new(Busy(Mutex::new(may_go_on))), 1);
        assert_eq!(table.availability(&Publisher::example(1)), Ok(()));
        table.end();
        assert_eq!(
            table.availability(&Publisher::example(1)),
            Err(RejectReason::Ended)
        );
        assert!(!table.takes_publishers());
    }
}
