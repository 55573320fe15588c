// SPDX-License-Identifier: MPL-2.0

//! The listeners of this process, and the claims of elements on them.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use once_cell::sync::Lazy;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::server::callback_thread;
use crate::server::error::ClaimError;
use crate::server::log::CAT;
use crate::server::port::listener::Listener;
use crate::server::port::process_counters::ProcessCounters;
use crate::server::port::socket;
use crate::server::port::state::ConnectionMain;
use crate::server::routing::publish_point::PublishPoint;
use crate::server::stats::ProcessStats;
use crate::server::stream::Stream;
use crate::server::stream::table::StreamTable;
use crate::server::threads::{self, NewThread, SpawnThread};
use crate::server::transport::Tls;

static REGISTRY: Lazy<Registry> = Lazy::new(|| Registry::new(threads::spawn));

struct Registry {
    entries: Mutex<HashMap<SocketAddr, Entry>>,
    /// An entry has closed.
    closed: Condvar,
    counters: Mutex<ProcessCounters>,
    spawn: SpawnThread,
}

enum Entry {
    Open {
        listener: Arc<Listener>,
        claims: usize,
    },
    /// Its threads are being joined.
    Closing,
    /// It has stopped, and no thread could be started to join its threads. The next claim of the
    /// port does.
    Abandoned(Arc<Listener>),
}

/// A route of a listener that an element holds. Dropping it closes the route and disconnects its
/// publishers; the last one closes the listener and all its connections.
#[derive(Debug)]
pub(crate) struct Claim {
    registry: &'static Registry,
    address: SocketAddr,
    listener: Arc<Listener>,
    point: PublishPoint,
}

/// One stream of a claim with many, as held by an element. Dropping it closes the stream and
/// disconnects its publisher.
#[derive(Debug)]
pub(crate) struct StreamClaim {
    listener: Arc<Listener>,
    table: Arc<StreamTable>,
    number: u32,
    stream: Arc<Stream>,
}

impl Claim {
    /// Returns the bound address of the listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the stream with this number, if the claim has many. Hold it once.
    pub(crate) fn stream(&self, number: u32) -> Option<StreamClaim> {
        let table = self.point.table()?;
        Some(StreamClaim {
            listener: self.listener.clone(),
            table: table.clone(),
            number,
            stream: table.stream(number)?,
        })
    }

    /// Accepts no publisher any more, disconnects the present ones, and waits until they are gone
    /// and the application has handled all events.
    pub(crate) fn close(&self) {
        self.listener.remove_route(&self.point);
        self.point.flush_events();
    }

    /// Returns the control of draining, for use apart from the claim.
    pub(crate) fn drain_control(&self) -> DrainControl {
        DrainControl {
            listener: self.listener.clone(),
            point: self.point.clone(),
        }
    }
}

impl StreamClaim {
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }
}

impl Drop for StreamClaim {
    fn drop(&mut self) {
        let client = self.table.close_stream(self.number);
        self.listener.wait_for(client.into_iter());
    }
}

/// Starts and stops the draining of a claim's route.
#[derive(Debug)]
pub(crate) struct DrainControl {
    listener: Arc<Listener>,
    point: PublishPoint,
}

impl DrainControl {
    /// Accepts no new publishers, asks present ones to reconnect, and disconnects them after
    /// `timeout`. Their streams end with them. A second call sets the time again. None accepts
    /// publishers again.
    ///
    /// # Errors
    ///
    /// The port was closed while all of its elements were drained, and can't be opened again.
    pub(crate) fn set(&self, timeout: Option<Duration>) -> io::Result<()> {
        match timeout {
            Some(timeout) => self.point.drain(timeout),
            None => self.point.stop_draining(),
        }
        self.listener.update_draining(&self.point)
    }
}

/// Claims a route on an address, with a new listener or the one that the process has there. Port 0
/// is any free port, and never one that is shared. `main` is the body of a connection's thread.
pub(crate) fn claim(
    host: &str,
    port: u16,
    point: &PublishPoint,
    main: ConnectionMain,
) -> Result<Claim, ClaimError> {
    let resolve_error = |source| ClaimError::Resolve {
        host: host.to_owned(),
        source,
    };
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = (literal, port).to_socket_addrs().map_err(resolve_error)?;

    let claim_at = |address| {
        // Files are read without a lock: they may be on a slow network.
        let files = point.rules().port.tls.clone();
        let tls = files.map(Tls::load).transpose();
        let tls = tls.map_err(|error| Failure::Final(ClaimError::Tls(error)))?;
        REGISTRY.claim(address, point, tls, main)
    };
    let mut last = None;
    for address in addresses.map(canonical) {
        let mut claimed = claim_at(address);
        if let Err(Failure::Bind(error)) = &claimed
            && let Some(ipv4) = socket::without_ipv6(address, error)
        {
            claimed = claim_at(ipv4);
        }
        match claimed {
            Ok(claim) => return Ok(claim),
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

/// Returns the counters of all elements of the process.
pub(crate) fn process_stats() -> ProcessStats {
    let mut stats = REGISTRY.counters.lock().stats();
    let listeners: Vec<Arc<Listener>> = REGISTRY.listeners();
    stats.listeners = listeners.len() as u64;
    stats.clients = listeners.iter().map(|l| l.connections() as u64).sum();
    stats
}

/// Returns an IPv4 address that is written as one of IPv6 as what it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

enum Failure {
    Bind(io::Error),
    /// Another address would not help.
    Final(ClaimError),
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registry")
    }
}

impl Registry {
    fn new(spawn: SpawnThread) -> Self {
        Registry {
            entries: Mutex::default(),
            closed: Condvar::new(),
            counters: Mutex::default(),
            spawn,
        }
    }

    fn claim(
        &'static self,
        wanted: SocketAddr,
        point: &PublishPoint,
        tls: Option<Tls>,
        main: ConnectionMain,
    ) -> Result<Claim, Failure> {
        let mut entries = self.wait_for_port(wanted).map_err(Failure::Final)?;
        let open = match entries.get(&wanted) {
            Some(Entry::Open { listener, .. }) => Some(listener.clone()),
            _ => None,
        };
        let (address, listener) = match open {
            Some(listener) => {
                listener.add_route(point).map_err(|error| match error {
                    ClaimError::Bind { source, .. } => explain_bind(&entries, wanted, source),
                    error => Failure::Final(error),
                })?;
                if let Some(Entry::Open { claims, .. }) = entries.get_mut(&wanted) {
                    *claims += 1;
                }
                (wanted, listener)
            }
            None => {
                let listener = Listener::start(wanted, point.clone(), tls, main, self.spawn);
                let listener = listener.map_err(|error| explain_bind(&entries, wanted, error))?;
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
        drop(entries);
        self.counters.lock().add(point);
        Ok(Claim {
            registry: self,
            address,
            listener,
            point: point.clone(),
        })
    }

    /// Waits while the port is being closed: an element that stops and starts again finds its own
    /// port still closing.
    fn wait_for_port(
        &self,
        wanted: SocketAddr,
    ) -> Result<MutexGuard<'_, HashMap<SocketAddr, Entry>>, ClaimError> {
        let mut entries = self.entries.lock();
        if wanted.port() == 0 {
            return Ok(entries);
        }
        loop {
            let mut of_port = entries
                .iter_mut()
                .filter(|(address, _)| address.port() == wanted.port());
            let closing = of_port.find(|(_, entry)| !matches!(entry, Entry::Open { .. }));
            let Some((address, entry)) = closing else {
                return Ok(entries);
            };
            // The end of the port may wait for this very thread.
            if callback_thread::is() {
                return Err(ClaimError::Closing(wanted));
            }
            let address = *address;
            match std::mem::replace(entry, Entry::Closing) {
                Entry::Abandoned(listener) => {
                    drop(entries);
                    listener.shut_down();
                    self.closed(address);
                    entries = self.entries.lock();
                }
                _ => self.closed.wait(&mut entries),
            }
        }
    }

    fn listeners(&self) -> Vec<Arc<Listener>> {
        let entries = self.entries.lock();
        let open = entries.values().filter_map(|entry| match entry {
            Entry::Open { listener, .. } => Some(listener.clone()),
            Entry::Closing | Entry::Abandoned(_) => None,
        });
        open.collect()
    }

    /// Returns the listener if this was the last claim on it.
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

    fn shut_down_elsewhere(&'static self, listener: Arc<Listener>) {
        let on_thread = listener.clone();
        let spawned = (self.spawn)(NewThread {
            name: "rtmp-close".into(),
            stack_size: None,
            body: Box::new(move || {
                on_thread.shut_down();
                self.closed(on_thread.address());
            }),
        });
        if let Err(error) = spawned {
            gst::warning!(CAT, "Could not start a thread to join others: {error}");
            self.abandon(listener);
        }
    }

    /// Leaves a listener to the next claim of its port.
    fn abandon(&self, listener: Arc<Listener>) {
        let address = listener.address();
        let entry = Entry::Abandoned(listener);
        self.entries.lock().insert(address, entry);
        self.closed.notify_all();
    }

    fn closed(&self, address: SocketAddr) {
        let mut entries = self.entries.lock();
        // The system may have assigned the port to another listener of this process meanwhile.
        if matches!(entries.get(&address), Some(Entry::Closing)) {
            entries.remove(&address);
        }
        self.closed.notify_all();
    }
}

/// Names the listener of this process that is in the way, if one is.
fn explain_bind(
    entries: &HashMap<SocketAddr, Entry>,
    wanted: SocketAddr,
    source: io::Error,
) -> Failure {
    if source.kind() != io::ErrorKind::AddrInUse {
        return Failure::Bind(source);
    }
    // "::" takes IPv4 too.
    let covers =
        |wide: IpAddr, other: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || other.is_ipv4());
    let overlaps = |address: &SocketAddr| {
        let (one, other) = (address.ip(), wanted.ip());
        address.port() == wanted.port() && (covers(one, other) || covers(other, one))
    };
    let overlap = entries.iter().find_map(|(address, entry)| match entry {
        // The port is closed while all of its elements are drained.
        Entry::Open { listener, .. } if overlaps(address) && listener.is_open() => {
            Some((*address, listener.element_name()))
        }
        _ => None,
    });
    match overlap {
        Some((listening, other)) => Failure::Final(ClaimError::Overlap {
            address: wanted,
            listening,
            other,
            source,
        }),
        None => Failure::Bind(source),
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.close();
        let registry = self.registry;
        registry.counters.lock().remove(&self.point);
        // No lock is held over the joins: a connection's thread may be about to take one.
        let Some(listener) = registry.release(self.address) else {
            return;
        };
        // A handler that stops the element runs on one of the threads to join, and others may be in
        // handlers that wait for this one.
        if callback_thread::is() {
            listener.stop();
            registry.shut_down_elsewhere(listener);
        } else {
            listener.shut_down();
            registry.closed(self.address);
        }
    }
}

#[cfg(test)]
mod tests;
