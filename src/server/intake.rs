// SPDX-License-Identifier: MPL-2.0

//! Where an element and its publisher meet.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::listener::ListenerSettings;
use super::queue::{Item, MediaQueue, QueueLimits};
use super::route::Route;

/// What an element decides for its publishers.
#[derive(Debug, Clone, Copy)]
pub struct IntakeSettings {
    pub limits: QueueLimits,
    /// A publisher that sends nothing for this long is cut off. Zero for never.
    pub timeout: Duration,
    /// Whether there may be another publisher after one has left.
    pub keep_listening: bool,
}

/// A client that publishes.
#[derive(Clone, PartialEq, Eq)]
pub struct Publisher {
    pub client: u64,
    pub address: SocketAddr,
    pub application: String,
    pub stream_key: String,
    pub query: String,
    pub tc_url: String,
    pub flash_ver: String,
    pub since: Instant,
}

impl std::fmt::Debug for Publisher {
    /// Without what is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher")
            .field("client", &self.client)
            .field("address", &self.address)
            .field("application", &self.application)
            .finish_non_exhaustive()
    }
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
    pub keyframes: u64,
    /// Messages left out because no decoder could use them.
    pub skipped: u64,
    /// Bits in the last second or so.
    pub bitrate: u64,
    pub bitrate_at: Option<Instant>,
}

/// Publishers that may have come and gone without the streaming thread having noticed the first.
const MAX_WAITING_STARTS: usize = 16;

/// Why a publisher can't have a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unavailable {
    Busy,
    /// The stream has ended and there will be no other.
    Ended,
}

/// The receiving end of one route: who publishes on it, the queue of what it sends, and counters.
#[derive(Debug)]
pub struct Intake {
    name: String,
    route: Route,
    listener_settings: ListenerSettings,
    queue: MediaQueue,
    seat: Mutex<Seat>,
    stats: Mutex<ClientStats>,
    keep_listening: AtomicBool,
    timeout_millis: AtomicU64,
}

#[derive(Debug)]
enum Seat {
    Vacant,
    Taken {
        publisher: Arc<Publisher>,
        socket: Arc<TcpStream>,
        /// It has ended its stream, and is about to go: the next one need not wait for that.
        leaving: bool,
    },
    Ended,
}

impl Intake {
    /// `name` is shown to whoever claims the same route again.
    pub fn new(
        name: String,
        route: Route,
        settings: IntakeSettings,
        listener_settings: ListenerSettings,
    ) -> Self {
        let intake = Intake {
            name,
            route,
            listener_settings,
            queue: MediaQueue::new(settings.limits),
            seat: Mutex::new(Seat::Vacant),
            stats: Mutex::default(),
            keep_listening: AtomicBool::default(),
            timeout_millis: AtomicU64::default(),
        };
        intake.configure(settings);
        intake
    }

    /// Takes effect at once.
    pub fn configure(&self, settings: IntakeSettings) {
        self.queue.set_limits(settings.limits);
        self.keep_listening
            .store(settings.keep_listening, Ordering::Relaxed);
        let millis = u64::try_from(settings.timeout.as_millis()).unwrap_or(u64::MAX);
        self.timeout_millis.store(millis, Ordering::Relaxed);
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn route(&self) -> &Route {
        &self.route
    }

    pub fn queue(&self) -> &MediaQueue {
        &self.queue
    }

    /// Whether the stream goes on after a publisher has left.
    pub fn keep_listening(&self) -> bool {
        self.keep_listening.load(Ordering::Relaxed)
    }

    pub fn publisher(&self) -> Option<Arc<Publisher>> {
        match &*self.seat.lock() {
            Seat::Taken { publisher, .. } => Some(publisher.clone()),
            Seat::Vacant | Seat::Ended => None,
        }
    }

    pub fn stats(&self) -> ClientStats {
        *self.stats.lock()
    }

    pub(super) fn listener_settings(&self) -> ListenerSettings {
        self.listener_settings
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        let millis = self.timeout_millis.load(Ordering::Relaxed);
        (millis > 0).then(|| Duration::from_millis(millis))
    }

    pub(super) fn set_stats(&self, stats: ClientStats) {
        *self.stats.lock() = stats;
    }

    pub(super) fn availability(&self) -> Result<(), Unavailable> {
        self.check(&self.seat.lock())
    }

    fn check(&self, seat: &Seat) -> Result<(), Unavailable> {
        match seat {
            Seat::Vacant => Ok(()),
            Seat::Taken { leaving: true, .. } if self.keep_listening() => Ok(()),
            Seat::Taken { leaving: true, .. } | Seat::Ended => Err(Unavailable::Ended),
            Seat::Taken { .. } => Err(Unavailable::Busy),
        }
    }

    /// Makes a client the publisher, if there is none. One of several that try at once gets it.
    pub(super) fn take(
        &self,
        publisher: Arc<Publisher>,
        socket: Arc<TcpStream>,
    ) -> Result<(), Unavailable> {
        let mut seat = self.seat.lock();
        self.check(&seat)?;
        // A client that publishes and leaves over and over must not fill the queue with itself.
        if self.queue.levels().starts >= MAX_WAITING_STARTS {
            return Err(Unavailable::Busy);
        }
        // A start takes no room, so this does not wait. Failure means that the element stops, and
        // it will close the socket.
        let mut items = vec![Item::Start(publisher.clone())];
        if matches!(*seat, Seat::Taken { .. }) {
            items.insert(0, Item::End);
        }
        let _ = self.queue.push(&mut items);
        *seat = Seat::Taken {
            publisher,
            socket,
            leaving: false,
        };
        Ok(())
    }

    /// The publisher has ended its stream, and will [leave](Intake::leave) in a moment.
    pub(super) fn set_leaving(&self, client: u64) {
        if let Seat::Taken {
            publisher, leaving, ..
        } = &mut *self.seat.lock()
            && publisher.client == client
        {
            *leaving = true;
        }
    }

    /// The publisher has left. What it sent before is still in the queue.
    pub(super) fn leave(&self, client: u64) {
        let mut seat = self.seat.lock();
        if !matches!(&*seat, Seat::Taken { publisher, .. } if publisher.client == client) {
            return;
        }
        // Before the seat is free, so that the next publisher's start comes after it.
        let _ = self.queue.push(&mut vec![Item::End]);
        *seat = if self.keep_listening() {
            Seat::Vacant
        } else {
            Seat::Ended
        };
    }

    /// The element stops: nobody may wait in here, and the publisher has to go. Gives its id.
    pub(super) fn close(&self) -> Option<u64> {
        self.queue.close();
        let seat = std::mem::replace(&mut *self.seat.lock(), Seat::Ended);
        match seat {
            Seat::Taken {
                publisher, socket, ..
            } => {
                let _ = socket.shutdown(Shutdown::Both);
                Some(publisher.client)
            }
            Seat::Vacant | Seat::Ended => None,
        }
    }
}
