// SPDX-License-Identifier: MPL-2.0

//! The accept thread of a listener. It also joins the threads of clients that have ended, and cuts
//! off those whose time has come.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::server::callback_thread;
use crate::server::connection::Client;
use crate::server::log::CAT;
use crate::server::port::listener::{ListenerState, NotAllowed, join};
use crate::server::transport::ProxyProtocol;

/// Enough for the protocol with its nested AMF values and for TLS, and touched only as far as it
/// is used. Signal handlers of the application run on it too.
const CLIENT_STACK: usize = 512 * 1024;
const ACCEPT_STACK: usize = 128 * 1024;

/// Clients that are accepted before looking after anything else.
const MAX_ACCEPTS: usize = 64;

/// How long to wait for descriptors or threads when the system has none.
const EXHAUSTED_PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};

/// Connections that may wait to be accepted. After a restart of a network all publishers come at
/// once, and one that does not fit waits for a second before it tries again.
const BACKLOG: i32 = 4096;

/// A socket that takes connections, and does not block.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpListener::bind(address)?;
    socket.set_nonblocking(true)?;
    // It listens already, with a shorter queue.
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

pub(crate) struct Acceptor {
    shared: Arc<ListenerState>,
}

impl Acceptor {
    pub(crate) fn start(
        address: SocketAddr,
        shared: Arc<ListenerState>,
    ) -> io::Result<JoinHandle<()>> {
        let acceptor = Acceptor { shared };
        thread::Builder::new()
            .name(format!("rtmp-{}", address.port()))
            .stack_size(ACCEPT_STACK)
            .spawn(move || acceptor.run())
    }

    fn run(self) {
        let mut exhausted = false;
        let mut deadline = None;
        while !self.shared.is_closing() {
            // Not kept: others may close it.
            let socket = self.shared.socket();
            if self.wait(socket.as_deref(), exhausted, deadline).is_err() {
                continue;
            }
            let _ = rustix::io::read(self.shared.wake_fd(), &mut [0; 8]);
            let finished = self.shared.connections().lock().take_finished();
            finished.into_iter().for_each(join);
            deadline = self.shared.run_timers();
            let accepted = socket.map_or(Ok(()), |socket| self.accept_some(&socket));
            exhausted = accepted.is_err();
            if exhausted {
                // Descriptors and threads are clients too.
                self.shared.connections().lock().evict_one();
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
        let wake = PollFd::new(self.shared.wake_fd(), PollFlags::IN);
        match socket {
            // Waiting for clients would spin: they are there, and can't be taken.
            Some(socket) if !exhausted => {
                let accept = PollFd::new(socket, PollFlags::IN);
                poll(&mut [wake, accept], timeout.as_ref())
            }
            _ => poll(&mut [wake], timeout.as_ref()),
        }?;
        Ok(())
    }

    /// Takes clients that wait, some of them where they are many: stopping and joining must not
    /// wait for the end of a flood. An error means that the system has nothing left for them.
    fn accept_some(&self, listening: &TcpListener) -> io::Result<()> {
        for _ in 0..MAX_ACCEPTS {
            match listening.accept() {
                Ok((socket, address)) => self.start_client(socket, address)?,
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

    fn start_client(&self, socket: TcpStream, address: SocketAddr) -> io::Result<()> {
        // A socket for both families shows IPv4 addresses as IPv6 ones.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let Some(settings) = self.shared.settings() else {
            return Ok(());
        };
        // Behind a load balancer the address says nothing yet.
        let is_own = self.shared.proxy_protocol() == ProxyProtocol::Off;
        if is_own && !self.shared.allows(address.ip()) {
            gst::info!(CAT, "Closed {address}: {}", NotAllowed::Address);
            return Ok(());
        }
        let mut connections = self.shared.connections().lock();
        let mut room = Ok(());
        if is_own {
            room = connections.reserve_for(address.ip(), settings.max_clients_per_address);
        }
        let room = room.and_then(|()| connections.reserve(settings.max_clients));
        if let Err(full) = room {
            gst::warning!(CAT, "Closed {address}: {full}");
            return Ok(());
        }
        let id = connections.next_id();
        let socket = Arc::new(socket);
        let shared = self.shared.clone();
        let listed = shared.clone();
        let client = match Client::new(id, socket.clone(), address, settings, shared) {
            // On the heap, so that moving it does not touch the small stack twice over.
            Ok(client) => Box::new(client),
            // It is gone again.
            Err(error) => {
                drop(connections);
                gst::debug!(CAT, "Lost {address}: {error}");
                return Ok(());
            }
        };
        let spawned = thread::Builder::new()
            .name("rtmp-client".into())
            .stack_size(CLIENT_STACK)
            .spawn(move || {
                let _listed = Listed { id, shared: listed };
                callback_thread::enter();
                client.run();
            });
        match spawned {
            // The lock is still held, so the thread can't be done before it is listed. Where
            // there is no thread, the client is dropped here, and must not need the lock.
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

/// Takes a client thread off the list when it ends, however it does.
struct Listed {
    id: u64,
    shared: Arc<ListenerState>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.shared.finished(self.id);
    }
}
