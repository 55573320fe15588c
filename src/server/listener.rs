// SPDX-License-Identifier: MPL-2.0

//! A listening socket: what its elements and its clients share.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rustix::pipe::{PipeFlags, pipe_with};

use super::CAT;
use super::acceptor::{self, Acceptor};
use super::client;
use super::crowd::{Crowd, Full, Standing};
use super::intake::Intake;
use super::registry::ClaimError;
use super::route::{Matched, Request};
use super::transport::{ProxyProtocol, Tls, TlsError, TlsFiles};

/// How long a client that has to go may take to read why.
pub(super) const FAREWELL: Duration = Duration::from_millis(800);

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
pub(super) struct Listener {
    address: SocketAddr,
    shared: Arc<Shared>,
    accept_thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the accept thread and the clients share.
#[derive(Debug)]
pub(super) struct Shared {
    routes: RwLock<Vec<Arc<Intake>>>,
    crowd: Mutex<Crowd>,
    /// Clients whose time to go by themselves ends.
    last_calls: Mutex<Vec<(Instant, u64)>>,
    port: PortSettings,
    tls: Option<Tls>,
    /// Writing to it wakes the accept thread.
    wake: OwnedFd,
    closing: AtomicBool,
}

/// Whom a request goes to.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) intake: Arc<Intake>,
    pub(super) matched: Matched,
}

/// Why there is no listener.
#[derive(Debug)]
pub(super) enum StartError {
    Io(io::Error),
    Tls(TlsError),
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        StartError::Io(error)
    }
}

impl Listener {
    pub(super) fn start(address: SocketAddr, first: Arc<Intake>) -> Result<Self, StartError> {
        let port = first.port_settings().clone();
        let tls = port.tls.clone().map(Tls::load).transpose();
        let tls = tls.map_err(StartError::Tls)?;
        let socket = acceptor::listen(address)?;
        let address = socket.local_addr()?;
        let (woken, wake) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .map_err(|errno| StartError::Io(errno.into()))?;
        let shared = Arc::new(Shared {
            routes: RwLock::new(vec![first]),
            crowd: Mutex::default(),
            last_calls: Mutex::default(),
            port,
            tls,
            wake,
            closing: AtomicBool::new(false),
        });
        let accept_thread = Acceptor::start(address, socket, woken, shared.clone())?;
        gst::info!(CAT, "Listening on {address}");
        Ok(Listener {
            address,
            shared,
            accept_thread: Mutex::new(Some(accept_thread)),
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// To tell it that something about a route has changed.
    pub(super) fn wake(&self) {
        self.shared.wake();
    }

    pub(super) fn add_route(&self, intake: &Arc<Intake>) -> Result<(), ClaimError> {
        let mut routes = self.shared.routes.write();
        for other in routes.iter() {
            check_compatible(self.address, intake, other)?;
        }
        routes.push(intake.clone());
        drop(routes);
        // It may have stopped to listen while all others were drained.
        self.shared.wake();
        Ok(())
    }

    /// Closes a route and waits until its publisher is gone.
    pub(super) fn remove_route(&self, intake: &Arc<Intake>) {
        let other = |r: &Arc<Intake>| !Arc::ptr_eq(r, intake);
        self.shared.routes.write().retain(other);
        // The others may all be drained.
        self.shared.wake();
        let Some(client) = intake.close() else {
            return;
        };
        // From within a signal handler nobody is waited for: see `Claim::drop`.
        if client::is_client_thread() {
            return;
        }
        let thread = self.shared.crowd.lock().take(client);
        if let Some(thread) = thread {
            join(thread);
        }
    }

    /// Ends all threads and waits for them.
    pub(super) fn shut_down(&self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.wake();
        let accept_thread = self.accept_thread.lock().take();
        if let Some(thread) = accept_thread {
            join(thread);
        }
        // Nobody is accepted any more.
        let threads = self.shared.crowd.lock().take_all();
        threads.into_iter().for_each(join);
        gst::info!(CAT, "Stopped listening on {}", self.address);
    }
}

/// Whether two elements can share a listener.
fn check_compatible(
    address: SocketAddr,
    intake: &Intake,
    other: &Intake,
) -> Result<(), ClaimError> {
    let name = other.name().to_owned();
    let differs = |property| ClaimError::PortDiffers {
        address,
        property,
        other: name.clone(),
    };
    let (own, theirs) = (intake.port_settings(), other.port_settings());
    if own.proxy_protocol != theirs.proxy_protocol {
        return Err(differs("proxy-protocol"));
    }
    if own.tls != theirs.tls {
        return Err(differs("certificate-file and private-key-file"));
    }
    if intake.route().is_same(other.route()) {
        return Err(ClaimError::RouteTaken {
            address,
            route: intake.route().to_string(),
            other: name,
        });
    }
    let method = |intake: &Intake| intake.access().credentials.as_ref().map(|c| c.method);
    if method(intake) != method(other) && intake.route().shares_application(other.route()) {
        return Err(ClaimError::AuthenticationDiffers {
            address,
            other: name,
        });
    }
    Ok(())
}

/// A client thread that stops its own element can't wait for itself.
pub(super) fn join(thread: JoinHandle<()>) {
    if thread.thread().id() != thread::current().id() && thread.join().is_err() {
        gst::error!(CAT, "A thread has panicked");
    }
}

impl Shared {
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(super) fn proxy_protocol(&self) -> ProxyProtocol {
        self.port.proxy_protocol
    }

    pub(super) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    pub(super) fn crowd(&self) -> &Mutex<Crowd> {
        &self.crowd
    }

    /// The settings for a client of which nothing is known yet.
    pub(super) fn settings(&self) -> Option<ListenerSettings> {
        let routes = self.routes.read();
        let settings = routes.iter().map(|route| route.listener_settings());
        settings.reduce(ListenerSettings::merge)
    }

    /// Whether any element takes clients from there.
    pub(super) fn allows(&self, address: IpAddr) -> bool {
        let routes = self.routes.read();
        routes.iter().any(|r| r.access().addresses.allows(address))
    }

    /// A load balancer has said where a client comes from: whether it may stay.
    pub(super) fn admit(
        &self,
        client: u64,
        address: IpAddr,
        max_per_address: usize,
    ) -> Result<(), NotAdmitted> {
        if !self.allows(address) {
            return Err(NotAdmitted::Address);
        }
        let mut crowd = self.crowd.lock();
        crowd.make_room_at(address, max_per_address)?;
        crowd.set_address(client, address);
        Ok(())
    }

    /// False if the client has been cut off.
    pub(super) fn set_standing(&self, client: u64, standing: Standing) -> bool {
        self.crowd.lock().set_standing(client, standing)
    }

    /// Those that a client of this application might publish to.
    pub(super) fn candidates(&self, application: &str) -> Vec<Arc<Intake>> {
        let routes = self.routes.read();
        let may_match = |r: &&Arc<Intake>| r.route().may_match(application);
        routes.iter().filter(may_match).cloned().collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<Intake>> {
        self.routes.read().clone()
    }

    /// The narrowest route that matches.
    pub(super) fn find(&self, request: &Request) -> Option<Found> {
        let routes = self.routes.read();
        let found = routes.iter().filter_map(|intake| {
            let matched = intake.route().matches(request)?;
            let intake = intake.clone();
            Some(Found { intake, matched })
        });
        found.max_by_key(|found| found.intake.route().specificity())
    }

    /// Gives a client a moment to go by itself.
    pub(super) fn cut_off_soon(&self, client: u64) {
        let when = Instant::now() + FAREWELL;
        self.last_calls.lock().push((when, client));
        self.wake();
    }

    /// Cuts off those whose time has come, and says when to call this again.
    pub(super) fn cut_off_due(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut due = Vec::new();
        let mut calls = self.last_calls.lock();
        calls.retain(|(when, client)| {
            let is_due = *when <= now;
            due.extend(is_due.then_some(*client));
            !is_due
        });
        let mut next = calls.iter().map(|(when, _)| *when).min();
        drop(calls);
        if !due.is_empty() {
            let mut crowd = self.crowd.lock();
            due.into_iter().for_each(|client| crowd.cut_off(client));
        }
        for intake in self.all() {
            match intake.deadline() {
                Some(deadline) if deadline <= now => intake.end_wait(),
                Some(deadline) => next = Some(next.map_or(deadline, |next| next.min(deadline))),
                None => {}
            }
        }
        next
    }

    /// Whether anybody can be let in. Where all elements are drained the port is closed, so that a
    /// load balancer notices.
    pub(super) fn takes_clients(&self) -> bool {
        !self.routes.read().iter().all(|route| route.is_draining())
    }

    /// A client thread is at its end.
    pub(super) fn finished(&self, client: u64) {
        let is_listed = self.crowd.lock().finished(client);
        if is_listed {
            self.wake();
        }
    }

    pub(super) fn wake(&self) {
        // A full pipe wakes as well as one more byte.
        let _ = rustix::io::write(&self.wake, &[0]);
    }
}

/// Why a client has to go as soon as its address is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotAdmitted {
    #[error("its address is not in allowed-addresses")]
    Address,
    #[error("{0}")]
    Full(#[from] Full),
}
