// SPDX-License-Identifier: MPL-2.0

//! A listening socket, its accept thread, and the threads of its clients.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use super::CAT;
use super::client::Client;
use super::intake::Intake;
use super::registry::ClaimError;
use super::route::{Matched, Request};

/// Enough for the protocol with its nested AMF values, and touched only as far as it is used.
const CLIENT_STACK: usize = 256 * 1024;
const ACCEPT_STACK: usize = 128 * 1024;

/// Clients that are accepted before looking after anything else.
const MAX_ACCEPTS: usize = 64;

/// How long to wait for descriptors or threads when the system has none left.
const EXHAUSTED_PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// What counts for clients before it is known whom they publish to. Where elements share a
/// listener and differ, the most generous value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerSettings {
    pub chunk_size: u32,
    pub max_message_size: u32,
    pub max_clients: usize,
    /// From accept to publish.
    pub handshake_timeout: Duration,
}

impl ListenerSettings {
    fn merge(self, other: Self) -> Self {
        ListenerSettings {
            chunk_size: self.chunk_size.max(other.chunk_size),
            max_message_size: self.max_message_size.max(other.max_message_size),
            max_clients: self.max_clients.max(other.max_clients),
            handshake_timeout: self.handshake_timeout.max(other.handshake_timeout),
        }
    }
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
    clients: Mutex<Clients>,
    /// Writing to it wakes the accept thread.
    wake: OwnedFd,
    closing: AtomicBool,
}

#[derive(Debug, Default)]
struct Clients {
    running: HashMap<u64, Running>,
    /// Threads at their end, for the accept thread to join.
    finished: Vec<JoinHandle<()>>,
    next_id: u64,
}

#[derive(Debug)]
struct Running {
    socket: Arc<TcpStream>,
    thread: JoinHandle<()>,
}

/// Whom a request goes to.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) intake: Arc<Intake>,
    pub(super) matched: Matched,
}

impl Listener {
    pub(super) fn start(address: SocketAddr, first: Arc<Intake>) -> io::Result<Self> {
        let socket = TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let (woken, wake) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let shared = Arc::new(Shared {
            routes: RwLock::new(vec![first]),
            clients: Mutex::default(),
            wake,
            closing: AtomicBool::new(false),
        });
        let acceptor = Acceptor {
            socket,
            woken,
            shared: shared.clone(),
        };
        let accept_thread = thread::Builder::new()
            .name(format!("rtmp-{}", address.port()))
            .stack_size(ACCEPT_STACK)
            .spawn(move || acceptor.run())?;
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

    pub(super) fn add_route(&self, intake: &Arc<Intake>) -> Result<(), ClaimError> {
        let mut routes = self.shared.routes.write();
        let same = routes.iter().find(|r| r.route() == intake.route());
        if let Some(other) = same {
            return Err(ClaimError::RouteTaken {
                address: self.address,
                route: intake.route().to_string(),
                other: other.name().to_owned(),
            });
        }
        routes.push(intake.clone());
        Ok(())
    }

    /// Closes a route and waits until its publisher is gone.
    pub(super) fn remove_route(&self, intake: &Arc<Intake>) {
        let other = |r: &Arc<Intake>| !Arc::ptr_eq(r, intake);
        self.shared.routes.write().retain(other);
        let Some(client) = intake.close() else {
            return;
        };
        let running = self.shared.clients.lock().running.remove(&client);
        if let Some(running) = running {
            join(running.thread);
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
        let (running, finished) = {
            let mut clients = self.shared.clients.lock();
            let running: Vec<_> = clients.running.drain().map(|(_, r)| r).collect();
            (running, std::mem::take(&mut clients.finished))
        };
        for client in &running {
            let _ = client.socket.shutdown(Shutdown::Both);
        }
        let threads = running.into_iter().map(|client| client.thread);
        threads.chain(finished).for_each(join);
        gst::info!(CAT, "Stopped listening on {}", self.address);
    }
}

/// A client thread that stops its own element can't wait for itself.
fn join(thread: JoinHandle<()>) {
    if thread.thread().id() != thread::current().id() && thread.join().is_err() {
        gst::error!(CAT, "A thread has panicked");
    }
}

impl Shared {
    /// The settings for a client of which nothing is known yet.
    pub(super) fn settings(&self) -> Option<ListenerSettings> {
        let routes = self.routes.read();
        let settings = routes.iter().map(|route| route.listener_settings());
        settings.reduce(ListenerSettings::merge)
    }

    pub(super) fn may_match(&self, application: &str) -> bool {
        let routes = self.routes.read();
        routes.iter().any(|r| r.route().may_match(application))
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

    /// A client thread is at its end.
    fn finished(&self, client: u64) {
        let mut clients = self.clients.lock();
        // Whoever stops the client has taken the handle out, and joins it.
        if let Some(running) = clients.running.remove(&client) {
            clients.finished.push(running.thread);
            drop(clients);
            self.wake();
        }
    }

    fn wake(&self) {
        // A full pipe wakes as well as one more byte.
        let _ = rustix::io::write(&self.wake, &[0]);
    }
}

/// Takes a client thread off the list when it ends, however it does.
struct Listed {
    id: u64,
    shared: Arc<Shared>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.shared.finished(self.id);
    }
}

struct Acceptor {
    socket: TcpListener,
    woken: OwnedFd,
    shared: Arc<Shared>,
}

impl Acceptor {
    fn run(self) {
        let mut exhausted = false;
        while !self.shared.closing.load(Ordering::Acquire) {
            let wake = PollFd::new(&self.woken, PollFlags::IN);
            let accept = PollFd::new(&self.socket, PollFlags::IN);
            let polled = if exhausted {
                // Waiting for clients would spin: they are there, and can't be taken.
                poll(&mut [wake], Some(&EXHAUSTED_PAUSE))
            } else {
                poll(&mut [wake, accept], None)
            };
            if polled.is_err() {
                continue;
            }
            self.join_finished();
            exhausted = self.accept_some().is_err();
        }
    }

    fn join_finished(&self) {
        while let Ok(1..) = rustix::io::read(&self.woken, &mut [0; 64]) {}
        let finished = std::mem::take(&mut self.shared.clients.lock().finished);
        finished.into_iter().for_each(join);
    }

    /// Takes clients that wait, some of them where they are many: stopping and joining must not
    /// wait for the end of a flood. An error means that the system has nothing left for them.
    fn accept_some(&self) -> io::Result<()> {
        for _ in 0..MAX_ACCEPTS {
            match self.socket.accept() {
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
        let Some(settings) = self.shared.settings() else {
            return Ok(());
        };
        let mut clients = self.shared.clients.lock();
        if clients.running.len() >= settings.max_clients {
            gst::warning!(
                CAT,
                "Closed {address}: there are {} clients already, which is max-clients",
                clients.running.len()
            );
            return Ok(());
        }
        let id = clients.next_id;
        clients.next_id += 1;
        let socket = Arc::new(socket);
        let shared = self.shared.clone();
        let listed = shared.clone();
        let client = match Client::new(id, socket.clone(), address, settings, shared) {
            // On the heap, so that moving it does not touch the small stack twice over.
            Ok(client) => Box::new(client),
            // It is gone again.
            Err(error) => {
                gst::debug!(CAT, "Lost {address}: {error}");
                return Ok(());
            }
        };
        let spawned = thread::Builder::new()
            .name("rtmp-client".into())
            .stack_size(CLIENT_STACK)
            .spawn(move || {
                let _listed = Listed { id, shared: listed };
                client.run();
            });
        match spawned {
            // The lock is still held, so the thread can't be done before it is listed. Where
            // there is no thread, the client is dropped here, and must not need the lock.
            Ok(thread) => {
                clients.running.insert(id, Running { socket, thread });
                Ok(())
            }
            Err(error) => {
                gst::warning!(CAT, "Could not start a thread for {address}: {error}");
                Err(error)
            }
        }
    }
}
