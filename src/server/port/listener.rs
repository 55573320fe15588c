// SPDX-License-Identifier: MPL-2.0

//! One bound address of the process, from its start to its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::server::callback_thread;
use crate::server::error::ClaimError;
use crate::server::log::CAT;
use crate::server::port::acceptor::Acceptor;
use crate::server::port::socket::ListeningSocket;
use crate::server::port::state::{ConnectionMain, ListenerState};
use crate::server::routing::publish_point::PublishPoint;
#[cfg(test)]
use crate::server::threads::TimerService;
use crate::server::threads::{SpawnThread, join};
use crate::server::transport::Tls;

#[derive(Debug)]
pub(crate) struct Listener {
    state: Arc<ListenerState>,
    accept_thread: Mutex<Option<JoinHandle<()>>>,
}

impl Listener {
    pub(crate) fn start(
        address: SocketAddr,
        first: PublishPoint,
        tls: Option<Tls>,
        main: ConnectionMain,
        spawn: SpawnThread,
    ) -> io::Result<Self> {
        let socket = ListeningSocket::open(address)?;
        let port = first.rules().port.clone();
        let state = Arc::new(ListenerState::new(socket, port, tls)?);
        let accept_thread =
            state.add_first(&first, || Acceptor::start(state.clone(), main, spawn))?;
        gst::info!(CAT, "Listening on {}", state.address());
        Ok(Listener {
            state,
            accept_thread: Mutex::new(Some(accept_thread)),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.state.address()
    }

    #[cfg(test)]
    pub(crate) fn timer_service(&self) -> Arc<dyn TimerService> {
        self.state.timer_service()
    }

    /// Returns false while the port is closed, since all of its elements are drained.
    pub(crate) fn is_open(&self) -> bool {
        self.state.socket().is_some()
    }

    /// Returns the name of an element that listens here.
    pub(crate) fn element_name(&self) -> String {
        self.state.element_name().unwrap_or_default()
    }

    /// Opens or closes the port after the draining of a route has changed.
    pub(crate) fn update_draining(&self, point: &PublishPoint) -> io::Result<()> {
        self.state.update_draining(point)
    }

    /// Returns the number of present connections.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections().lock().count()
    }

    pub(crate) fn add_route(&self, point: &PublishPoint) -> Result<(), ClaimError> {
        let address = self.address();
        self.state.add(point)?;
        // The port may be closed while all other elements are drained.
        self.state.update_socket().map_err(|source| {
            self.state.remove(point);
            ClaimError::Bind {
                host: address.ip().to_string(),
                port: address.port(),
                source,
            }
        })
    }

    /// Closes a route and waits until its publishers are gone.
    pub(crate) fn remove_route(&self, point: &PublishPoint) {
        self.state.remove(point);
        // The others may all be drained.
        let _ = self.state.update_socket();
        self.wait_for(point.close().into_iter());
    }

    /// Waits for the threads of connections that were ended. On a callback thread it does not wait:
    /// the handler may be what they wait for.
    pub(crate) fn wait_for(&self, clients: impl DoubleEndedIterator<Item = u64>) {
        if callback_thread::is() {
            return;
        }
        // The last one was told last: the others end while it is awaited.
        for client in clients.rev() {
            let thread = self.state.connections().lock().take(client);
            thread.into_iter().for_each(join);
        }
    }

    /// Closes the port and ends all connections. Waits for the accept thread, which calls no
    /// handler of the application, but for no connection.
    pub(crate) fn stop(&self) {
        self.state.set_closing();
        let accept_thread = self.accept_thread.lock().take();
        let Some(thread) = accept_thread else {
            return;
        };
        join(thread);
        // The claim of a stream may keep the listener for longer.
        self.state.close_socket();
        // No connection is accepted any more.
        self.state.connections().lock().disconnect_all();
        gst::info!(CAT, "Stopped listening on {}", self.address());
    }

    /// Stops, and waits for the threads of the connections.
    pub(crate) fn shut_down(&self) {
        self.stop();
        let threads = self.state.connections().lock().take_all();
        threads.into_iter().for_each(join);
    }
}
