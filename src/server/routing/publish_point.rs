// SPDX-License-Identifier: MPL-2.0

//! The point at which clients publish to an element.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::server::config::{ListenerSettings, Policy, PortSettings, StreamSettings};
use crate::server::events::{EventDispatcher, MAX_WAITING, Observer, PublisherEvent};
use crate::server::publisher::{Publisher, RejectReason};
use crate::server::routing::access::Access;
use crate::server::routing::authorizer::Grant;
use crate::server::routing::route::Route;
use crate::server::stats::Totals;
use crate::server::stream::Stream;
use crate::server::stream::patience::Patience;
use crate::server::stream::publisher_handle::PublisherHandle;
use crate::server::stream::table::StreamTable;
use crate::server::threads::TimerService;

/// Configuration of a publish point.
#[derive(Debug)]
pub(crate) struct PublishPointConfig {
    /// Name of the element, for the error of another one that claims the same route.
    pub name: String,
    pub route: Route,
    pub access: Access,
    pub settings: StreamSettings,
    pub listener: ListenerSettings,
    pub port: PortSettings,
    pub observer: Arc<dyn Observer>,
}

/// Rules and callbacks that apply before a client may publish. They do not change while the element
/// runs, and all streams of an element share them.
#[derive(Debug)]
pub(crate) struct PublishRules {
    pub(crate) name: String,
    pub(crate) route: Arc<Route>,
    pub(crate) access: Access,
    pub(crate) listener: ListenerSettings,
    pub(crate) port: PortSettings,
}

/// A route with the streams of the clients that publish on it.
#[derive(Debug, Clone)]
pub(crate) struct PublishPoint {
    /// A point that was made later has a higher one.
    id: u64,
    rules: Arc<PublishRules>,
    observer: Arc<dyn Observer>,
    events: Arc<EventDispatcher>,
    streams: Streams,
}

#[derive(Debug, Clone)]
enum Streams {
    /// One stream, which all publishers of the route continue.
    Fixed(Arc<Stream>),
    /// A stream for each application and stream key.
    Dynamic(Arc<StreamTable>),
}

impl PublishPoint {
    /// Makes a publish point with one stream.
    pub(crate) fn fixed(config: PublishPointConfig) -> (Self, Arc<Stream>) {
        let settings = config.settings;
        let codecs = config.access.codecs.clone();
        let events = events(&config);
        let stream = Arc::new(Stream::new(None, settings, codecs, events.clone()));
        let streams = Streams::Fixed(stream.clone());
        (Self::new(config, events, streams), stream)
    }

    /// Makes a publish point with a stream for each name, up to `max_streams`.
    pub(crate) fn dynamic(
        config: PublishPointConfig,
        max_streams: usize,
    ) -> (Self, Arc<StreamTable>) {
        let settings = config.settings;
        let codecs = config.access.codecs.clone();
        let events = events(&config);
        let table = StreamTable::new(settings, max_streams, codecs, events.clone());
        let table = Arc::new(table);
        let streams = Streams::Dynamic(table.clone());
        (Self::new(config, events, streams), table)
    }

    fn new(config: PublishPointConfig, events: Arc<EventDispatcher>, streams: Streams) -> Self {
        let rules = PublishRules {
            name: config.name,
            route: Arc::new(config.route),
            access: config.access,
            listener: config.listener,
            port: config.port,
        };
        static NEXT: AtomicU64 = AtomicU64::new(0);
        PublishPoint {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            rules: Arc::new(rules),
            observer: config.observer,
            events,
            streams,
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn rules(&self) -> &PublishRules {
        &self.rules
    }

    pub(crate) fn table(&self) -> Option<&Arc<StreamTable>> {
        match &self.streams {
            Streams::Fixed(_) => None,
            Streams::Dynamic(table) => Some(table),
        }
    }

    pub(crate) fn is(&self, other: &PublishPoint) -> bool {
        self.id == other.id
    }

    /// Sets where the waits of the streams end. Called once, by the listener that has the route.
    pub(crate) fn set_timers(&self, timers: &Arc<dyn TimerService>) {
        self.events.set_timers(timers.clone());
        match &self.streams {
            Streams::Fixed(stream) => stream.set_timers(timers.clone()),
            Streams::Dynamic(table) => table.set_timers(timers.clone()),
        }
    }

    /// Returns true where waits end on these timers.
    #[cfg(test)]
    pub(crate) fn goes_by(&self, timers: &Arc<dyn TimerService>) -> bool {
        self.events.goes_by(timers)
    }

    /// Waits until the publisher's stream accepts it, or rejects it. Nothing is reserved from
    /// others: of several contenders the first that [starts](Reservation::start) is accepted.
    pub(crate) fn reserve(
        &self,
        publisher: &Publisher,
        grant: &Grant,
        patience: &mut Patience,
    ) -> Result<Reservation, RejectReason> {
        let policy = grant.kicks_others.then_some(Policy::Replace);
        match &self.streams {
            Streams::Fixed(stream) => stream.reserve(policy, patience)?,
            Streams::Dynamic(table) => table.reserve(publisher, policy, patience)?,
        }
        Ok(Reservation {
            point: self.clone(),
            publisher: publisher.clone(),
            policy,
            max_duration: grant.max_duration,
            patience: *patience,
        })
    }

    /// Notes that a client waits for the application's answer, until the returned value is dropped.
    pub(crate) fn begin_authorization(&self, client: u64) -> Authorizing {
        let stream = match &self.streams {
            Streams::Fixed(stream) => Some(stream.clone()),
            // The client belongs to no stream yet.
            Streams::Dynamic(_) => None,
        };
        if let Some(stream) = &stream {
            stream.begin_authorization(client);
        }
        Authorizing { stream, client }
    }

    /// Asks the application. It may take its time.
    pub(crate) fn may_publish(&self, publisher: &Publisher) -> bool {
        self.observer.may_publish(publisher)
    }

    pub(crate) fn reject(&self, publisher: Arc<Publisher>, reason: RejectReason) {
        match &self.streams {
            Streams::Fixed(stream) => stream.reject(publisher, reason),
            Streams::Dynamic(table) => table.reject(publisher, reason),
        }
    }

    /// Notes why a client was rejected or disconnected before it published. `reason` contains no
    /// secret.
    pub(crate) fn set_last_error(&self, address: SocketAddr, reason: String) {
        match &self.streams {
            Streams::Fixed(stream) => stream.set_last_error(address, reason),
            Streams::Dynamic(table) => table.set_last_error(address, reason),
        }
    }

    /// Tells the application about a client that has not published.
    pub(crate) fn post(&self, event: PublisherEvent) {
        self.events.post(event);
    }

    /// Accepts no publishers from now on. Present ones are asked to reconnect, and disconnected
    /// after `timeout`.
    pub(crate) fn drain(&self, timeout: Duration) {
        match &self.streams {
            Streams::Fixed(stream) => stream.drain(timeout),
            Streams::Dynamic(table) => table.drain(timeout),
        }
    }

    pub(crate) fn stop_draining(&self) {
        match &self.streams {
            Streams::Fixed(stream) => stream.stop_draining(),
            Streams::Dynamic(table) => table.stop_draining(),
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        match &self.streams {
            Streams::Fixed(stream) => stream.is_draining(),
            Streams::Dynamic(table) => table.is_draining(),
        }
    }

    /// Returns true while publishers may be accepted, now or later.
    pub(crate) fn is_open(&self) -> bool {
        match &self.streams {
            Streams::Fixed(stream) => stream.is_open(),
            Streams::Dynamic(table) => table.is_open(),
        }
    }

    pub(crate) fn totals(&self, now: Instant) -> Totals {
        match &self.streams {
            Streams::Fixed(stream) => stream.totals(now),
            Streams::Dynamic(table) => table.totals(now),
        }
    }

    /// Returns the number of streams that have a publisher.
    pub(crate) fn publishing(&self) -> usize {
        match &self.streams {
            Streams::Fixed(stream) => usize::from(stream.publisher().is_some()),
            Streams::Dynamic(table) => table.publishing(),
        }
    }

    /// Stops all streams. Returns the clients that published.
    pub(crate) fn close(&self) -> Vec<u64> {
        if let Some(authorizer) = &self.rules.access.authorizer {
            authorizer.shut_down();
        }
        match &self.streams {
            Streams::Fixed(stream) => stream.close().into_iter().collect(),
            Streams::Dynamic(table) => table.close(),
        }
    }

    /// Waits until the application has handled all events.
    pub(crate) fn flush_events(&self) {
        self.events.flush();
    }
}

fn events(config: &PublishPointConfig) -> Arc<EventDispatcher> {
    let observer = config.observer.clone();
    Arc::new(EventDispatcher::new(observer, MAX_WAITING))
}

/// The chance to publish on a stream, for a client that has met all of its rules.
#[derive(Debug)]
pub(crate) struct Reservation {
    point: PublishPoint,
    publisher: Publisher,
    /// Policy instead of the stream's own.
    policy: Option<Policy>,
    /// Time after which the publisher is ended.
    max_duration: Option<Duration>,
    patience: Patience,
}

impl Reservation {
    pub(crate) fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    pub(crate) fn point(&self) -> &PublishPoint {
        &self.point
    }

    /// Makes the client the publisher. Another contender may have been faster.
    pub(crate) fn start(
        &mut self,
        handle: &Arc<PublisherHandle>,
    ) -> Result<(Arc<Stream>, Arc<Publisher>), RejectReason> {
        let (policy, patience) = (self.policy, &mut self.patience);
        let (stream, publisher) = match &self.point.streams {
            Streams::Fixed(stream) => {
                let publisher = self.publisher.clone();
                let started = stream.start(publisher, handle.clone(), policy, patience)?;
                (stream.clone(), started)
            }
            Streams::Dynamic(table) => table.start(&self.publisher, handle, policy, patience)?,
        };
        if let Some(duration) = self.max_duration {
            stream.limit_time(handle, duration);
        }
        Ok((stream, publisher))
    }
}

/// A client that waits for the application's answer. The wait ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Authorizing {
    stream: Option<Arc<Stream>>,
    client: u64,
}

impl Drop for Authorizing {
    fn drop(&mut self) {
        if let Some(stream) = &self.stream {
            stream.end_authorization(self.client);
        }
    }
}
