// SPDX-License-Identifier: MPL-2.0

//! A route that takes many publishers: each application and stream key on it has an intake of its own, which is there as
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

use super::entrance::Entrance;
use super::intake::{Intake, IntakeConfig, IntakeSettings, MAX_DEPARTURE};
use super::ledger::Sums;
use super::link::Link;
use super::observer::{MAX_WAITING, Notice};
use super::publisher::{Publisher, Refusal};
use super::tally::LastError;

/// Application and stream key.
type Name = (String, String);

/// The streams of an element that takes many.
#[derive(Debug)]
pub struct Lobby {
    entrance: Arc<Entrance>,
    streams: Mutex<Streams>,
    /// A stream is gone, or all are.
    room: Condvar,
    rejected: AtomicU64,
    last_error: Mutex<Option<LastError>>,
}

#[derive(Debug)]
struct Streams {
    settings: IntakeSettings,
    max_streams: usize,
    /// Those that have ended among them, until their element has let go of them.
    present: BTreeMap<u32, (Name, Arc<Intake>)>,
    /// The newest of each name.
    newest: HashMap<Name, u32>,
    next: u32,
    drained: bool,
    /// Its pipeline is to come to its end: there is nothing new for it.
    ended: bool,
    closed: bool,
    /// What those that are gone had counted.
    gone: Sums,
}

impl Lobby {
    pub fn new(config: IntakeConfig, max_streams: usize) -> Self {
        let (entrance, settings) = Entrance::new(config, max_waiting(max_streams));
        Lobby {
            entrance,
            streams: Mutex::new(Streams {
                settings,
                max_streams,
                present: BTreeMap::new(),
                newest: HashMap::new(),
                next: 0,
                drained: false,
                ended: false,
                closed: false,
                gone: Sums::default(),
            }),
            room: Condvar::new(),
            rejected: AtomicU64::default(),
            last_error: Mutex::default(),
        }
    }

    /// Takes effect at once, also for the streams that there are.
    pub fn configure(&self, settings: IntakeSettings, max_streams: usize) {
        let mut streams = self.streams.lock();
        (streams.settings, streams.max_streams) = (settings, max_streams);
        for intake in streams.intakes() {
            intake.configure(settings);
        }
        self.entrance.set_max_waiting(max_waiting(max_streams));
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

    pub(super) fn entrance(&self) -> &Entrance {
        &self.entrance
    }

    pub(super) fn stream(&self, number: u32) -> Option<Arc<Intake>> {
        let streams = self.streams.lock();
        let found = streams.present.get(&number);
        found.map(|(_, intake)| intake.clone())
    }

    pub(super) fn sums(&self) -> Sums {
        let streams = self.streams.lock();
        let sums = streams.intakes().fold(streams.gone, Sums::with);
        sums.with_rejected(self.rejected())
    }

    /// Streams that have a publisher.
    pub fn publishing(&self) -> usize {
        let streams = self.streams.lock();
        let publishing = |intake: &&Arc<Intake>| intake.publisher().is_some();
        streams.intakes().filter(publishing).count()
    }

    /// Whether a publisher would be taken, as far as it can be said now.
    pub(super) fn availability(&self, publisher: &Publisher) -> Result<(), Refusal> {
        let deadline = Instant::now() + MAX_DEPARTURE;
        let present = self.streams.lock().going_on(&name(publisher))?;
        // Under no lock of ours: it may wait for one that is about to leave.
        if let Some(intake) = present {
            match intake.availability() {
                Err(Refusal::Ended) => {}
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
    ) -> Result<(), Refusal> {
        loop {
            match self.check(streams) {
                Err(Refusal::Full) if streams.intakes().any(|intake| intake.is_over()) => {}
                said => return said,
            }
            if self.room.wait_until(streams, deadline).timed_out() {
                return self.check(streams);
            }
        }
    }

    /// Whether there may be one more stream.
    fn check(&self, streams: &Streams) -> Result<(), Refusal> {
        if streams.closed || streams.ended {
            Err(Refusal::Ended)
        } else if streams.drained {
            Err(Refusal::Draining)
        } else if streams.present.len() >= streams.max_streams {
            Err(Refusal::Full)
        } else if self.entrance.is_behind() {
            Err(Refusal::Busy)
        } else {
            Ok(())
        }
    }

    /// Makes a client the publisher of the stream of its name, if it may be.
    pub(super) fn take(
        &self,
        publisher: &Publisher,
        link: &Arc<Link>,
    ) -> Result<(Arc<Intake>, Arc<Publisher>), Refusal> {
        let name = name(publisher);
        let deadline = Instant::now() + MAX_DEPARTURE;
        loop {
            let before = self.streams.lock().going_on(&name)?;
            if let Some(intake) = &before {
                match intake.take(publisher.clone(), link.clone()) {
                    Err(Refusal::Ended) => {}
                    taken => return taken.map(|publisher| (intake.clone(), publisher)),
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
        link: &Arc<Link>,
    ) -> Result<(Arc<Intake>, Arc<Publisher>), Refusal> {
        let number = streams.next;
        let entrance = self.entrance.clone();
        let intake = Arc::new(Intake::behind(entrance, streams.settings, Some(number)));
        // It waits for nothing, since nobody else knows of this one. The observer may be told before
        // it is listed: it has to wait for the lock then.
        let publisher = intake.take(publisher.clone(), link.clone())?;
        streams.next += 1;
        streams.newest.insert(name.clone(), number);
        streams.present.insert(number, (name, intake.clone()));
        Ok((intake, publisher))
    }

    /// The element lets go of a stream. Gives the client that published it.
    pub(super) fn close_stream(&self, number: u32) -> Option<u64> {
        let mut streams = self.streams.lock();
        let (name, intake) = streams.present.remove(&number)?;
        if streams.newest.get(&name) == Some(&number) {
            streams.newest.remove(&name);
        }
        let client = intake.close();
        streams.gone = streams.gone.with(&intake);
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
    pub(super) fn close(&self) -> Vec<u64> {
        let mut streams = self.streams.lock();
        streams.closed = true;
        let clients = streams.intakes().filter_map(|intake| intake.close());
        let clients = clients.collect();
        drop(streams);
        self.room.notify_all();
        clients
    }

    /// No new publishers from now on, see [`Intake::drain`]. Gives what is to be called when.
    pub(super) fn drain(&self, timeout: Duration) -> Vec<(Instant, Arc<Intake>)> {
        let mut streams = self.streams.lock();
        streams.drained = true;
        let drain = |intake: &Arc<Intake>| Some((intake.drain(timeout)?, intake.clone()));
        let due = streams.intakes().filter_map(drain).collect();
        drop(streams);
        self.room.notify_all();
        due
    }

    pub(super) fn stop_draining(&self) {
        let mut streams = self.streams.lock();
        streams.drained = false;
        streams.intakes().for_each(|intake| intake.stop_draining());
    }

    pub(super) fn is_draining(&self) -> bool {
        self.streams.lock().drained
    }

    pub(super) fn takes_publishers(&self) -> bool {
        let streams = self.streams.lock();
        !streams.drained && !streams.ended && !streams.closed
    }

    pub(super) fn set_last_error(&self, address: SocketAddr, reason: String) {
        let at = Instant::now();
        *self.last_error.lock() = Some(LastError {
            reason,
            address,
            at,
        });
    }

    pub(super) fn reject(&self, publisher: Arc<Publisher>, refusal: Refusal) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        self.set_last_error(publisher.address, refusal.reason());
        self.entrance.post(Notice::Rejected(publisher, refusal));
    }
}

impl Streams {
    fn intakes(&self) -> impl Iterator<Item = &Arc<Intake>> {
        self.present.values().map(|(_, intake)| intake)
    }

    /// The stream that the next publisher of a name would go on with.
    fn going_on(&self, name: &Name) -> Result<Option<Arc<Intake>>, Refusal> {
        if self.ended {
            return Err(Refusal::Ended);
        }
        Ok(self.newest(name))
    }

    fn newest(&self, name: &Name) -> Option<Arc<Intake>> {
        let number = self.newest.get(name)?;
        let found = self.present.get(number);
        found.map(|(_, intake)| intake.clone())
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

    use super::super::access::Access;
    use super::super::listener::{ListenerSettings, PortSettings};
    use super::super::observer::Observer;
    use super::super::publisher::Removal;
    use super::super::route::Route;
    use super::super::{Leak, Policy, QueueLimits};
    use super::*;

    /// Is busy with the first one until that is over.
    #[derive(Debug)]
    struct Busy(Mutex<mpsc::Receiver<()>>);

    impl Observer for Busy {
        fn may_publish(&self, _publisher: &Publisher) -> bool {
            true
        }

        fn notify(&self, _notice: &Notice) {
            let _ = self.0.lock().recv();
        }
    }

    fn settings() -> IntakeSettings {
        IntakeSettings {
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

    fn lobby(observer: Arc<dyn Observer>, max_streams: usize) -> Lobby {
        let config = IntakeConfig {
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
        Lobby::new(config, max_streams)
    }

    #[test]
    fn more_streams_may_be_more_that_the_application_has_not_heard_of() {
        let (go_on, may_go_on) = mpsc::channel();
        let lobby = lobby(Arc::new(Busy(Mutex::new(may_go_on))), 1);
        while !lobby.entrance.is_behind() {
            let notice = Notice::Removed(Arc::new(Publisher::example(1)), Removal::Closed);
            lobby.entrance.post(notice);
        }
        assert_eq!(
            lobby.availability(&Publisher::example(1)),
            Err(Refusal::Busy)
        );
        lobby.configure(settings(), MAX_WAITING);
        assert_eq!(lobby.availability(&Publisher::example(1)), Ok(()));
        drop(go_on);
        lobby.entrance.flush_notices();
    }

    #[test]
    fn nobody_is_taken_after_the_end() {
        let (_go_on, may_go_on) = mpsc::channel();
        let lobby = lobby(Arc::new(Busy(Mutex::new(may_go_on))), 1);
        assert_eq!(lobby.availability(&Publisher::example(1)), Ok(()));
        lobby.end();
        assert_eq!(
            lobby.availability(&Publisher::example(1)),
            Err(Refusal::Ended)
        );
        assert!(!lobby.takes_publishers());
    }
}
