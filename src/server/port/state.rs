// SPDX-License-Identifier: MPL-2.0

//! State of a listener, shared by its accept thread, its connections and its elements.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::server::config::{ListenerSettings, PortSettings, ProxyProtocol};
use crate::server::error::{AddressRejected, ClaimError};
use crate::server::events::PublisherEvent;
use crate::server::log::CAT;
use crate::server::port::connection_table::{ConnectionTable, Stage};
use crate::server::port::socket::ListeningSocket;
use crate::server::port::timers::Timers;
use crate::server::routing::publish_point::PublishPoint;
use crate::server::routing::route::{MatchedNames, RequestedPath};
use crate::server::routing::route_table::{Candidates, RouteTable};
use crate::server::threads::{NewThread, TimerService, spawn};
use crate::server::transport::Tls;

/// An accepted connection, on its way to its thread.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) id: u64,
    pub(crate) socket: Arc<TcpStream>,
    pub(crate) address: SocketAddr,
    pub(crate) settings: ListenerSettings,
    pub(crate) state: Arc<ListenerState>,
}

/// Keeps a connection listed until its thread ends, by whatever way.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) id: u64,
    pub(crate) state: Arc<ListenerState>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.state.finished(self.id);
    }
}

/// The body of a connection's thread.
pub(crate) type ConnectionMain = fn(Accepted, Listed);

#[derive(Debug)]
pub(crate) struct ListenerState {
    routes: RwLock<RouteTable>,
    connections: Mutex<ConnectionTable>,
    address: SocketAddr,
    socket: Mutex<ListeningSocket>,
    timers: Arc<Timers>,
    port: PortSettings,
    tls: Option<Arc<Tls>>,
    is_closing: AtomicBool,
}

/// The publish point for a request.
#[derive(Debug)]
pub(crate) struct RouteMatch {
    pub(crate) point: PublishPoint,
    pub(crate) names: MatchedNames,
}

impl ListenerState {
    pub(crate) fn new(
        socket: ListeningSocket,
        port: PortSettings,
        tls: Option<Tls>,
    ) -> io::Result<Self> {
        Ok(ListenerState {
            port,
            routes: RwLock::default(),
            connections: Mutex::default(),
            address: socket.address(),
            socket: Mutex::new(socket),
            timers: Arc::new(Timers::new()?),
            tls: tls.map(Arc::new),
            is_closing: AtomicBool::new(false),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds the first route once `start` has succeeded. Clients that connect meanwhile wait for it. A
    /// route whose listener does not start has no part of it.
    pub(crate) fn add_first<T, E>(
        &self,
        point: &PublishPoint,
        start: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let mut routes = self.routes.write();
        let started = start()?;
        point.set_timers(&self.timer_service());
        // Nothing is there that it could conflict with.
        let _ = routes.add(self.address, point);
        Ok(started)
    }

    /// Adds a route, unless it does not go together with another.
    pub(crate) fn add(&self, point: &PublishPoint) -> Result<(), ClaimError> {
        let mut routes = self.routes.write();
        routes.add(self.address, point)?;
        // Before any client finds the route.
        point.set_timers(&self.timer_service());
        Ok(())
    }

    pub(crate) fn remove(&self, point: &PublishPoint) {
        self.routes.write().remove(point);
    }

    /// Returns the name of an element that listens here.
    pub(crate) fn element_name(&self) -> Option<String> {
        let routes = self.routes.read();
        routes.first().map(|point| point.rules().name.clone())
    }

    pub(crate) fn timers(&self) -> &Timers {
        &self.timers
    }

    pub(crate) fn timer_service(&self) -> Arc<dyn TimerService> {
        self.timers.clone()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    pub(crate) fn set_closing(&self) {
        self.is_closing.store(true, Ordering::Release);
        self.wake();
    }

    pub(crate) fn proxy_protocol(&self) -> ProxyProtocol {
        self.port.proxy_protocol
    }

    pub(crate) fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// Returns true where each client chooses between RTMP and RTMPS.
    pub(crate) fn is_tls_optional(&self) -> bool {
        self.tls.is_some() && self.port.plain_beside_tls
    }

    pub(crate) fn connections(&self) -> &Mutex<ConnectionTable> {
        &self.connections
    }

    /// Returns the settings for a client whose route is not known yet.
    pub(crate) fn settings(&self) -> Option<ListenerSettings> {
        self.routes.read().settings()
    }

    /// Returns true where any element accepts clients from an address.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        self.routes.read().allows(address)
    }

    /// Decides if a client may stay whose address a load balancer has sent.
    pub(crate) fn admit_address(
        &self,
        client: u64,
        address: IpAddr,
        max_per_address: usize,
    ) -> Result<(), AddressRejected> {
        if !self.allows(address) {
            return Err(AddressRejected::NotAllowed);
        }
        let mut connections = self.connections.lock();
        connections.reserve_for(address, max_per_address)?;
        connections.set_address(client, address);
        Ok(())
    }

    /// Returns false if the client has been evicted.
    pub(crate) fn set_stage(&self, client: u64, stage: Stage) -> bool {
        self.connections.lock().set_stage(client, stage)
    }

    /// Returns the publish points that a client of this application might publish to.
    pub(crate) fn candidates(&self, application: &str) -> Candidates {
        self.routes.read().candidates(application)
    }

    /// Returns all publish points, if they are few enough to be notified of a client.
    pub(crate) fn affected(&self) -> Vec<PublishPoint> {
        self.routes.read().affected()
    }

    /// Tells all elements about a client that has not published, if they are few.
    pub(crate) fn post(&self, event: &PublisherEvent) {
        for point in self.affected() {
            point.post(event.clone());
        }
    }

    /// Returns the narrowest route that matches.
    pub(crate) fn find(&self, request: &RequestedPath) -> Option<RouteMatch> {
        let routes = self.routes.read();
        let (point, names) = routes.find(request)?;
        Some(RouteMatch {
            point: point.clone(),
            names,
        })
    }

    /// Opens or closes the port after the draining of a route has changed.
    pub(crate) fn update_draining(&self, point: &PublishPoint) -> io::Result<()> {
        self.routes.write().update_draining(point);
        self.update_socket()
    }

    /// Opens or closes the port after a change of the routes.
    ///
    /// # Errors
    ///
    /// The port was closed, and another program has bound it since.
    pub(crate) fn update_socket(&self) -> io::Result<()> {
        let updated = self.open_or_close();
        self.wake();
        updated
    }

    fn open_or_close(&self) -> io::Result<()> {
        let mut socket = self.socket.lock();
        if !self.routes.read().accepts_clients() {
            if socket.close() {
                gst::info!(CAT, "Closed {}: its elements are drained", self.address);
            }
        } else if !self.is_closing() && socket.reopen()? {
            gst::info!(CAT, "Listening on {} again", self.address);
        }
        Ok(())
    }

    /// Returns the listening socket. The accept thread must not keep it longer than it waits.
    pub(crate) fn socket(&self) -> Option<Arc<TcpListener>> {
        self.socket.lock().get()
    }

    pub(crate) fn close_socket(&self) {
        self.socket.lock().close();
    }

    /// Continues a connection on another thread. The present one ends after the call that it is in.
    pub(crate) fn continue_connection(
        &self,
        client: u64,
        body: Box<dyn FnOnce() + Send>,
    ) -> io::Result<()> {
        let mut connections = self.connections.lock();
        connections.continue_on(client, || spawn(NewThread::connection(body)))
    }

    /// Notes that a connection's thread ends.
    pub(crate) fn finished(&self, client: u64) {
        let is_listed = self.connections.lock().finished(client);
        if is_listed {
            self.wake();
        }
    }

    pub(crate) fn wake(&self) {
        self.timers.wake().set();
    }
}
