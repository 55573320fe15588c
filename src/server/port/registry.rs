// SPDX-License-Identifier: MPL-2.0

//! The listeners of this process.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use once_cell::sync::Lazy;
use parking_lot::{Condvar, Mutex};

use crate::server::callback_thread;
use crate::server::port::listener::Listener;
use crate::server::port::process_counters::{ProcessCounters, ProcessStats};
use crate::server::routing::publish_point::PublishPoint;
use crate::server::stream::Stream;
use crate::server::stream::table::StreamTable;
use crate::server::transport::{Tls, TlsError};

static REGISTRY: Lazy<Registry> = Lazy::new(Registry::default);

#[derive(Default)]
struct Registry {
    entries: Mutex<HashMap<SocketAddr, Entry>>,
    /// An entry has closed.
    closed: Condvar,
    counters: Mutex<ProcessCounters>,
}

enum Entry {
    Open {
        listener: Arc<Listener>,
        claims: usize,
    },
    /// Its threads are being joined; the address is not free yet.
    Closing,
}

/// Why an element can't listen.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("Could not resolve host \"{host}\": {source}. Set host to an address of this machine")]
    Resolve { host: String, source: io::Error },
    #[error("Could not listen on {host}:{port}: {source}. {}", hint(source))]
    Bind {
        host: String,
        port: u16,
        source: io::Error,
    },
    #[error(
        "The route {route} on {address} is taken by element \"{other}\". \
         Set another application or stream-key"
    )]
    RouteTaken {
        address: SocketAddr,
        route: String,
        other: String,
    },
    #[error(
        "{property} must be the same for all elements on {address}, and element \"{other}\" has \
         another value. Set the same, or another port"
    )]
    PortDiffers {
        address: SocketAddr,
        property: &'static str,
        other: String,
    },
    #[error(
        "Clients authenticate before they say their stream key, so elements on {address} that may \
         have the same application must have the same authmod, and that of element \"{other}\" is \
         another. Set the same authmod, another application or another port"
    )]
    AuthenticationDiffers { address: SocketAddr, other: String },
    #[error("{0}")]
    Tls(TlsError),
    #[error(
        "{0} is still being closed by the handler that stopped it. Start the element again after that"
    )]
    Closing(SocketAddr),
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimErrorKind {
    /// The address or route is in use.
    Busy,
    /// What the properties say can't be.
    Settings,
    /// A file can't be read.
    File,
    Other,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "Another program listens there: set port to a free one, or to 0 for any"
        }
        io::ErrorKind::AddrNotAvailable => "Set host to an address of this machine",
        io::ErrorKind::PermissionDenied => "Ports below 1024 need rights: set port to a higher one",
        _ => "Set host and port to what this machine has",
    }
}

impl ClaimError {
    pub fn kind(&self) -> ClaimErrorKind {
        match self {
            ClaimError::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                ClaimErrorKind::Busy
            }
            ClaimError::RouteTaken { .. } | ClaimError::Closing(_) => ClaimErrorKind::Busy,
            ClaimError::PortDiffers { .. } | ClaimError::AuthenticationDiffers { .. } => {
                ClaimErrorKind::Settings
            }
            ClaimError::Tls(TlsError::Read { .. }) => ClaimErrorKind::File,
            ClaimError::Tls(_) => ClaimErrorKind::Settings,
            ClaimError::Resolve { .. } | ClaimError::Bind { .. } => ClaimErrorKind::Other,
        }
    }
}

/// An element's hold on a route of a listener. Dropping it closes the route and cuts off its
/// publisher; with the last one the listener and all its clients are gone.
#[derive(Debug)]
pub struct Claim {
    address: SocketAddr,
    listener: Arc<Listener>,
    point: PublishPoint,
}

/// An element's hold on one stream of a claim that takes many. Dropping it closes the stream and cuts
/// off its publisher.
#[derive(Debug)]
pub struct StreamClaim {
    listener: Arc<Listener>,
    table: Arc<StreamTable>,
    number: u32,
    stream: Arc<Stream>,
}

impl Claim {
    /// Where the listener is bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The stream with this number, if the claim takes many and there is one. To be held once.
    pub fn stream(&self, number: u32) -> Option<StreamClaim> {
        let PublishPoint::Many(table) = &self.point else {
            return None;
        };
        Some(StreamClaim {
            listener: self.listener.clone(),
            table: table.clone(),
            number,
            stream: table.stream(number)?,
        })
    }

    /// Takes nobody any more, cuts publishers off, and waits until they are gone and the application has
    /// heard of it.
    pub fn close(&self) {
        self.listener.remove_route(&self.point);
        self.point.rules().flush_notices();
    }

    /// For use without the claim, which has to stay where it is.
    pub fn drain_control(&self) -> DrainControl {
        DrainControl {
            listener: self.listener.clone(),
            point: self.point.clone(),
        }
    }
}

impl StreamClaim {
    pub fn number(&self) -> u32 {
        self.number
    }

    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }
}

impl Drop for StreamClaim {
    fn drop(&mut self) {
        let client = self.table.close_stream(self.number);
        self.listener.wait_for(client);
    }
}

/// Starts and stops the draining of a claim's route.
#[derive(Debug)]
pub struct DrainControl {
    listener: Arc<Listener>,
    point: PublishPoint,
}

impl DrainControl {
    /// Takes no new publishers, asks present ones to connect again, and cuts them off after
    /// `timeout`. Their streams end with them. None takes publishers again.
    ///
    /// # Errors
    ///
    /// The port was closed while all of its elements were drained, and can't be opened again.
    pub fn set(&self, timeout: Option<Duration>) -> io::Result<()> {
        match timeout {
            Some(timeout) => {
                for (deadline, stream) in self.point.drain(timeout) {
                    self.listener.call_at(deadline, &stream);
                }
            }
            None => self.point.stop_draining(),
        }
        self.listener.check_draining()
    }
}

/// Listens on an address, or joins those who do, and takes a route there. Port 0 is any free port,
/// and never one that is shared.
pub fn claim(host: &str, port: u16, point: &PublishPoint) -> Result<Claim, ClaimError> {
    let resolve_error = |source| ClaimError::Resolve {
        host: host.to_owned(),
        source,
    };
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = (literal, port).to_socket_addrs().map_err(resolve_error)?;

    let mut last = None;
    for address in addresses {
        // Files are read before any lock is taken: they may be far away.
        let files = point.rules().port_settings().tls.clone();
        let tls = files.map(Tls::load).transpose().map_err(ClaimError::Tls)?;
        match REGISTRY.claim(address, point, tls) {
            Ok(claim) => {
                REGISTRY.counters.lock().add(&claim.point);
                return Ok(claim);
            }
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Bind(source)) => last = Some(source),
        }
    }
    match last {
        Some(source) => Err(ClaimError::Bind {
            host: host.to_owned(),
            port,
            source,
        }),
        None => Err(resolve_error(io::Error::other("it has no addresses"))),
    }
}

/// What all elements of the process have counted, together.
pub fn process_stats() -> ProcessStats {
    let mut stats = REGISTRY.counters.lock().stats();
    let listeners: Vec<Arc<Listener>> = REGISTRY.listeners();
    stats.listeners = listeners.len() as u64;
    stats.clients = listeners.iter().map(|l| l.clients() as u64).sum();
    stats
}

enum Failure {
    Bind(io::Error),
    /// Another address would not help.
    Final(ClaimError),
}

impl Registry {
    fn claim(
        &self,
        wanted: SocketAddr,
        point: &PublishPoint,
        tls: Option<Tls>,
    ) -> Result<Claim, Failure> {
        let mut entries = self.entries.lock();
        // An element that stops and starts again finds its own port still closing.
        while wanted.port() != 0
            && entries.iter().any(|(address, entry)| {
                address.port() == wanted.port() && matches!(entry, Entry::Closing)
            })
        {
            // It waits for this very thread.
            if callback_thread::is() {
                return Err(Failure::Final(ClaimError::Closing(wanted)));
            }
            self.closed.wait(&mut entries);
        }
        let (address, listener) = match entries.get_mut(&wanted) {
            Some(Entry::Open { listener, claims }) => {
                listener.add_route(point).map_err(Failure::Final)?;
                *claims += 1;
                (wanted, listener.clone())
            }
            _ => {
                let listener = Listener::start(wanted, point.clone(), tls);
                let listener = listener.map_err(Failure::Bind)?;
                let listener = Arc::new(listener);
                let address = listener.address();
                let entry = Entry::Open {
                    listener: listener.clone(),
                    claims: 1,
                };
                entries.insert(address, entry);
                (address, listener)
            }
        };
        Ok(Claim {
            address,
            listener,
            point: point.clone(),
        })
    }

    fn listeners(&self) -> Vec<Arc<Listener>> {
        let entries = self.entries.lock();
        let open = entries.values().filter_map(|entry| match entry {
            Entry::Open { listener, .. } => Some(listener.clone()),
            Entry::Closing => None,
        });
        open.collect()
    }

    /// Gives the listener back if this was the last claim on it.
    fn release(&self, address: SocketAddr) -> Option<Arc<Listener>> {
        let mut entries = self.entries.lock();
        let Some(Entry::Open { claims, .. }) = entries.get_mut(&address) else {
            return None;
        };
        *claims -= 1;
        if *claims > 0 {
            return None;
        }
        match entries.insert(address, Entry::Closing) {
            Some(Entry::Open { listener, .. }) => Some(listener),
            _ => None,
        }
    }

    fn closed(&self, address: SocketAddr) {
        let mut entries = self.entries.lock();
        // The system may have given the port to another listener of this process meanwhile.
        if matches!(entries.get(&address), Some(Entry::Closing)) {
            entries.remove(&address);
        }
        self.closed.notify_all();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.close();
        REGISTRY.counters.lock().remove(&self.point);
        // No lock is held over the joins: a client thread may be on its way to take one.
        if let Some(listener) = REGISTRY.release(self.address) {
            let address = self.address;
            let shut_down = move || {
                listener.shut_down();
                REGISTRY.closed(address);
            };
            // A signal handler that stops the element runs on one of the threads to be joined, and
            // others may be in handlers that wait for this one.
            if callback_thread::is() {
                thread::spawn(shut_down);
            } else {
                shut_down();
            }
        }
    }
}
