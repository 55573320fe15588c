// SPDX-License-Identifier: MPL-2.0

//! A listening socket: what its elements and its clients share.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rustix::event::{EventfdFlags, eventfd};

use crate::server::callback_thread;
use crate::server::log::CAT;
use crate::server::port::acceptor::{self, Acceptor};
use crate::server::port::connection_table::{ConnectionTable, Full, Stage};
use crate::server::port::registry::ClaimError;
use crate::server::routing::publish_point::PublishPoint;
use crate::server::routing::route::{MatchedNames, RequestedPath};
use crate::server::routing::rules::PublishRules;
use crate::server::stream::Stream;
use crate::server::transport::{ProxyProtocol, Tls, TlsFiles};

/// How long a client that has to go may take to read why.
pub(crate) const FAREWELL: Duration = Duration::from_millis(800);

/// What counts for clients before it is known whom they publish to. Where elements share a
/// listener and differ, the most generous value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerSettings {
    pub chunk_size: u32,
    pub max_message_size: u32,
    pub max_clients: usize,
    pub max_clients_per_address: usize,
    /// From accept to publish.
    pub handshake_timeout: Duration,
}

impl ListenerSettings {
    fn merge(self, other: Self) -> Self {
        ListenerSettings {
            chunk_size: self.chunk_size.max(other.chunk_size),
            max_message_size: self.max_message_size.max(other.max_message_size),
            max_clients: self.max_clients.max(other.max_clients),
            max_clients_per_address: self
                .max_clients_per_address
                .max(other.max_clients_per_address),
            handshake_timeout: self.handshake_timeout.max(other.handshake_timeout),
        }
    }
}

/// What a port speaks before RTMP. All elements that share a listener have to agree on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortSettings {
    pub proxy_protocol: ProxyProtocol,
    /// None for plain RTMP.
    pub tls: Option<TlsFiles>,
}

#[derive(Debug)]
pub(crate) struct Listener {
    address: SocketAddr,
    shared: Arc<ListenerState>,
    accept_thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the accept thread and the clients share.
#[derive(Debug)]
pub(crate) struct ListenerState {
    routes: RwLock<Vec<PublishPoint>>,
    connections: Mutex<ConnectionTable>,
    address: SocketAddr,
    socket: Mutex<Socket>,
    timers: Mutex<Vec<(Instant, Timer)>>,
    port: PortSettings,
    tls: Option<Tls>,
    /// Wakes the accept thread. Unlike a pipe it has one end, so nobody is left to write to a
    /// closed one.
    wake: OwnedFd,
    closing: AtomicBool,
}

#[derive(Debug)]
struct Socket {
    /// None while nobody would be let in.
    open: Option<Arc<TcpListener>>,
    /// The last one that was: the accept thread may not have let go of it yet.
    last: Weak<TcpListener>,
}

/// What is due at a time.
#[derive(Debug)]
pub(crate) enum Timer {
    /// To cut off a client that should have gone by itself.
    Client(u64),
    /// To call [`Stream::end_wait`].
    Stream(Weak<Stream>),
}

/// Whom a request goes to.
#[derive(Debug)]
pub(crate) struct RouteMatch {
    pub(crate) point: PublishPoint,
    pub(crate) matched: MatchedNames,
}

impl Listener {
    pub(crate) fn start(
        address: SocketAddr,
        first: PublishPoint,
        tls: Option<Tls>,
    ) -> io::Result<Self> {
        let socket = Arc::new(acceptor::listen(address)?);
        let address = socket.local_addr()?;
        let shared = Arc::new(ListenerState {
            port: first.rules().port_settings().clone(),
            routes: RwLock::new(vec![first]),
            connections: Mutex::default(),
            address,
            socket: Mutex::new(Socket {
                last: Arc::downgrade(&socket),
                open: Some(socket),
            }),
            timers: Mutex::default(),
            tls,
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            closing: AtomicBool::new(false),
        });
        let accept_thread = Acceptor::start(address, shared.clone())?;
        gst::info!(CAT, "Listening on {address}");
        Ok(Listener {
            address,
            shared,
            accept_thread: Mutex::new(Some(accept_thread)),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Something about the draining of a route has changed. It fails where the port had been closed
    /// for it, and somebody else has taken that since.
    pub(crate) fn check_draining(&self) -> io::Result<()> {
        let opened = self.shared.open_or_close();
        self.shared.wake();
        opened
    }

    pub(crate) fn clients(&self) -> usize {
        self.shared.connections.lock().count()
    }

    pub(crate) fn call_at(&self, when: Instant, stream: &Arc<Stream>) {
        let timer = Timer::Stream(Arc::downgrade(stream));
        self.shared.call_at(when, timer);
    }

    pub(crate) fn add_route(&self, point: &PublishPoint) -> Result<(), ClaimError> {
        let mut routes = self.shared.routes.write();
        for other in routes.iter() {
            check_compatible(self.address, point.rules(), other.rules())?;
        }
        routes.push(point.clone());
        drop(routes);
        // It may have stopped to listen while all others were drained.
        self.check_draining().map_err(|source| {
            self.shared.routes.write().retain(|other| !other.is(point));
            ClaimError::Bind {
                host: self.address.ip().to_string(),
                port: self.address.port(),
                source,
            }
        })
    }

    /// Closes a route and waits until its publishers are gone.
    pub(crate) fn remove_route(&self, point: &PublishPoint) {
        self.shared.routes.write().retain(|other| !other.is(point));
        // The others may all be drained.
        let _ = self.check_draining();
        self.wait_for(point.close());
    }

    /// Waits for the threads of clients that were cut off.
    pub(crate) fn wait_for(&self, clients: impl IntoIterator<Item = u64>) {
        // From within a signal handler nobody is waited for: see `Claim::drop`.
        if callback_thread::is() {
            return;
        }
        for client in clients {
            let thread = self.shared.connections.lock().take(client);
            thread.into_iter().for_each(join);
        }
    }

    /// Ends all threads and waits for them.
    pub(crate) fn shut_down(&self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.wake();
        let accept_thread = self.accept_thread.lock().take();
        if let Some(thread) = accept_thread {
            join(thread);
        }
        // Whoever has a stream may keep the listener for longer.
        self.shared.socket.lock().open = None;
        // Nobody is accepted any more.
        let threads = self.shared.connections.lock().take_all();
        threads.into_iter().for_each(join);
        gst::info!(CAT, "Stopped listening on {}", self.address);
    }
}

/// Whether two elements can share a listener.
fn check_compatible(
    address: SocketAddr,
    own: &PublishRules,
    other: &PublishRules,
) -> Result<(), ClaimError> {
    let name = other.name().to_owned();
    let differs = |property| ClaimError::PortDiffers {
        address,
        property,
        other: name.clone(),
    };
    let (port, theirs) = (own.port_settings(), other.port_settings());
    if port.proxy_protocol != theirs.proxy_protocol {
        return Err(differs("proxy-protocol"));
    }
    if port.tls != theirs.tls {
        return Err(differs("certificate-file and private-key-file"));
    }
    if own.route().is_same(other.route()) {
        return Err(ClaimError::RouteTaken {
            address,
            route: own.route().to_string(),
            other: name,
        });
    }
    let method = |of: &PublishRules| of.access().credentials.as_ref().map(|c| c.method);
    if method(own) != method(other) && own.route().shares_application(other.route()) {
        return Err(ClaimError::AuthenticationDiffers {
            address,
            other: name,
        });
    }
    Ok(())
}

pub(crate) fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        gst::error!(CAT, "A thread has panicked");
    }
}

impl ListenerState {
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(crate) fn proxy_protocol(&self) -> ProxyProtocol {
        self.port.proxy_protocol
    }

    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    pub(crate) fn connections(&self) -> &Mutex<ConnectionTable> {
        &self.connections
    }

    /// The settings for a client of which nothing is known yet.
    pub(crate) fn settings(&self) -> Option<ListenerSettings> {
        let routes = self.routes.read();
        let settings = routes.iter().map(|route| route.rules().listener_settings());
        settings.reduce(ListenerSettings::merge)
    }

    /// Whether any element takes clients from there.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        let routes = self.routes.read();
        let allows = |r: &PublishPoint| r.rules().access().addresses.allows(address);
        routes.iter().any(allows)
    }

    /// A load balancer has said where a client comes from: whether it may stay.
    pub(crate) fn admit_address(
        &self,
        client: u64,
        address: IpAddr,
        max_per_address: usize,
    ) -> Result<(), NotAllowed> {
        if !self.allows(address) {
            return Err(NotAllowed::Address);
        }
        let mut connections = self.connections.lock();
        connections.reserve_for(address, max_per_address)?;
        connections.set_address(client, address);
        Ok(())
    }

    /// False if the client has been cut off.
    pub(crate) fn set_stage(&self, client: u64, standing: Stage) -> bool {
        self.connections.lock().set_stage(client, standing)
    }

    /// Those that a client of this application might publish to.
    pub(crate) fn candidates(&self, application: &str) -> Vec<PublishPoint> {
        let routes = self.routes.read();
        let may_match = |r: &&PublishPoint| r.rules().route().may_match(application);
        routes.iter().filter(may_match).cloned().collect()
    }

    pub(crate) fn all(&self) -> Vec<PublishPoint> {
        self.routes.read().clone()
    }

    /// The narrowest route that matches.
    pub(crate) fn find(&self, request: &RequestedPath) -> Option<RouteMatch> {
        let routes = self.routes.read();
        let found = routes.iter().filter_map(|point| {
            let matched = point.rules().route().matches(request)?;
            let point = point.clone();
            Some(RouteMatch { point, matched })
        });
        found.max_by_key(|found| found.point.rules().route().specificity())
    }

    /// Gives a client a moment to go by itself.
    pub(crate) fn cut_off_soon(&self, client: u64) {
        self.call_at(Instant::now() + FAREWELL, Timer::Client(client));
    }

    pub(crate) fn call_at(&self, when: Instant, timer: Timer) {
        self.timers.lock().push((when, timer));
        self.wake();
    }

    /// Does what is due, and says when to call this again.
    pub(crate) fn run_timers(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut timers = self.timers.lock();
        let due = timers.extract_if(.., |(when, _)| *when <= now);
        let due: Vec<Timer> = due.map(|(_, timer)| timer).collect();
        let next = timers.iter().map(|(when, _)| *when).min();
        drop(timers);
        for timer in due {
            match timer {
                Timer::Client(client) => self.connections.lock().disconnect(client),
                Timer::Stream(stream) => {
                    if let Some(stream) = stream.upgrade() {
                        stream.end_wait(now);
                    }
                }
            }
        }
        next
    }

    /// Whether anybody can be let in. Where elements are drained and there is no other, the port is
    /// closed, so that a load balancer notices.
    fn takes_clients(&self) -> bool {
        let routes = self.routes.read();
        routes.iter().any(|route| route.takes_publishers())
            || !routes.iter().any(|route| route.is_draining())
    }

    /// Listens, or does not.
    fn open_or_close(&self) -> io::Result<()> {
        let mut socket = self.socket.lock();
        let takes_clients = self.takes_clients();
        if !takes_clients && socket.open.take().is_some() {
            gst::info!(CAT, "Closed {}: its elements are drained", self.address);
        } else if takes_clients && socket.open.is_none() && !self.is_closing() {
            let opened = match socket.last.upgrade() {
                Some(last) => last,
                None => Arc::new(acceptor::listen(self.address)?),
            };
            socket.last = Arc::downgrade(&opened);
            socket.open = Some(opened);
            gst::info!(CAT, "Listening on {} again", self.address);
        }
        Ok(())
    }

    /// The listening socket, for the accept thread. It must not keep it longer than it waits.
    pub(crate) fn socket(&self) -> Option<Arc<TcpListener>> {
        self.socket.lock().open.clone()
    }

    /// A client thread is at its end.
    pub(crate) fn finished(&self, client: u64) {
        let is_listed = self.connections.lock().finished(client);
        if is_listed {
            self.wake();
        }
    }

    pub(crate) fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    pub(crate) fn wake_fd(&self) -> &OwnedFd {
        &self.wake
    }
}

/// Why a client has to go as soon as its address is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAllowed {
    #[error("its address is not in allowed-addresses")]
    Address,
    #[error("{0}")]
    Full(#[from] Full),
}
