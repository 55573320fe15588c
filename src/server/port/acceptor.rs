// SPDX-License-Identifier: MPL-2.0

//! The accept thread of a listener. It also joins the threads of connections that have ended, and
//! runs the timers.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::server::callback_thread;
use crate::server::config::ProxyProtocol;
use crate::server::error::AddressRejected;
use crate::server::events::PublisherEvent;
use crate::server::log::CAT;
use crate::server::port::state::{Accepted, ConnectionMain, Listed, ListenerState};
use crate::server::threads::{NewThread, SpawnThread, join};

const ACCEPT_STACK: usize = 128 * 1024;

/// Connections that are accepted before anything else is looked after.
const MAX_ACCEPTS: usize = 64;

/// Pause before another attempt when the system has no descriptors or threads left.
const EXHAUSTED_PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};

pub(crate) struct Acceptor {
    state: Arc<ListenerState>,
    main: ConnectionMain,
    spawn: SpawnThread,
}

impl Acceptor {
    pub(crate) fn start(
        state: Arc<ListenerState>,
        main: ConnectionMain,
        spawn: SpawnThread,
    ) -> io::Result<JoinHandle<()>> {
        let name = format!("rtmp-{}", state.address().port());
        let acceptor = Acceptor { state, main, spawn };
        spawn(NewThread {
            name,
            stack_size: Some(ACCEPT_STACK),
            body: Box::new(move || acceptor.run()),
        })
    }

    fn run(self) {
        let mut exhausted = false;
        let mut deadline = None;
        while !self.state.is_closing() {
            // Not kept, so that it can be closed meanwhile.
            let socket = self.state.socket();
            if self.wait(socket.as_deref(), exhausted, deadline).is_err() {
                continue;
            }
            self.state.timers().wake().clear();
            let finished = self.state.connections().lock().take_finished();
            finished.into_iter().for_each(join);
            deadline = self.state.timers().run_due();
            let accepted = socket.map_or(Ok(()), |socket| self.accept_some(&socket));
            exhausted = accepted.is_err();
            if exhausted {
                // Other connections hold descriptors and threads.
                self.state.connections().lock().evict_one();
            }
        }
    }

    fn wait(
        &self,
        socket: Option<&TcpListener>,
        exhausted: bool,
        deadline: Option<Instant>,
    ) -> rustix::io::Result<()> {
        let timeout = if exhausted {
            Some(EXHAUSTED_PAUSE)
        } else {
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            left.and_then(|left| Timespec::try_from(left).ok())
        };
        let wake = PollFd::new(self.state.timers().wake().fd(), PollFlags::IN);
        match socket {
            // Waiting for connections would spin: they are there, and can't be accepted.
            Some(socket) if !exhausted => {
                let accept = PollFd::new(socket, PollFlags::IN);
                poll(&mut [wake, accept], timeout.as_ref())
            }
            _ => poll(&mut [wake], timeout.as_ref()),
        }?;
        Ok(())
    }

    /// Accepts waiting connections, up to a limit: stopping and joining must not wait for the end of
    /// a flood. An error means that the system has no resources left for them.
    fn accept_some(&self, listening: &TcpListener) -> io::Result<()> {
        for _ in 0..MAX_ACCEPTS {
            match listening.accept() {
                Ok((socket, address)) => self.start_connection(socket, address)?,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(()),
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => {
                        gst::warning!(CAT, "Could not accept a client: {error}");
                        return Err(error);
                    }
                },
            }
        }
        Ok(())
    }

    fn start_connection(&self, socket: TcpStream, address: SocketAddr) -> io::Result<()> {
        // A socket for both families shows IPv4 addresses as IPv6 ones.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let Some(settings) = self.state.settings() else {
            return Ok(());
        };
        // Behind a load balancer, this is not the client's address.
        let is_own = self.state.proxy_protocol() == ProxyProtocol::Off;
        if is_own && !self.state.allows(address.ip()) {
            gst::info!(CAT, "Closed {address}: {}", AddressRejected::NotAllowed);
            let reason = AddressRejected::NotAllowed.to_string();
            self.state.post(&PublisherEvent::Failed(address, reason));
            return Ok(());
        }
        let mut connections = self.state.connections().lock();
        let mut space = Ok(());
        if is_own {
            space = connections.reserve_for(address.ip(), settings.max_clients_per_address);
        }
        let space = space.and_then(|()| connections.reserve(settings.max_clients));
        if let Err(too_many) = space {
            drop(connections);
            gst::warning!(CAT, "Closed {address}: {too_many}");
            let reason = too_many.to_string();
            self.state.post(&PublisherEvent::Failed(address, reason));
            return Ok(());
        }
        let id = connections.next_id();
        let socket = Arc::new(socket);
        let accepted = Accepted {
            id,
            socket: socket.clone(),
            address,
            settings,
            state: self.state.clone(),
        };
        let (state, main) = (self.state.clone(), self.main);
        let spawned = (self.spawn)(NewThread::connection(Box::new(move || {
            let listed = Listed { id, state };
            callback_thread::enter();
            main(accepted, listed);
        })));
        match spawned {
            // The lock is still held, so the thread can't end before it is listed. Without a thread
            // its parts are dropped under the lock, and must not need it.
            Ok(thread) => {
                connections.add(id, socket, thread);
                if is_own {
                    connections.set_address(id, address.ip());
                }
                Ok(())
            }
            Err(error) => {
                gst::warning!(CAT, "Could not start a thread for {address}: {error}");
                Err(error)
            }
        }
    }
}
