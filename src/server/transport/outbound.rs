// SPDX-License-Identifier: MPL-2.0

//! Writing to a client that may not read.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustls::ServerConnection;

use crate::server::transport::received::{Received, TransportError};
use crate::server::transport::sealed::{Sealed, unseal};

/// The client does not read its replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blocked;

/// Time for which other threads wait for the lock. The connection's own thread holds it longer only
/// while it waits for a client that does not read. Everything else takes microseconds.
const PATIENCE_OF_OTHERS: Duration = Duration::from_millis(20);

/// Bytes of memory that stay for the next message. The replies of a handshake need more, once.
const KEPT_CAPACITY: usize = 512;

/// The writing half of a connection. Its own thread writes replies and may wait for the client;
/// other threads never wait for it.
#[derive(Debug)]
pub(crate) struct Outbound {
    socket: Arc<TcpStream>,
    state: Mutex<State>,
    total: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Both halves of a TLS connection, since either may have to write.
    tls: Option<Box<ServerConnection>>,
    /// Bytes for the socket, encrypted where it is TLS.
    unsent: Vec<u8>,
    /// The client accepts nothing any more. Media that it has sent may still be unread.
    closed: bool,
}

impl Outbound {
    pub(crate) fn new(socket: Arc<TcpStream>) -> Self {
        Outbound {
            socket,
            state: Mutex::default(),
            total: AtomicU64::new(0),
        }
    }

    pub(crate) fn start_tls(&self, tls: ServerConnection) {
        self.state.lock().tls = Some(Box::new(tls));
    }

    /// Returns the number of bytes written.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Writes replies, waiting for space no longer than `patience`, and droppable messages, which
    /// are dropped while earlier bytes wait. Everything leaves in one write if possible. Returns
    /// false if the droppable messages were dropped.
    pub(crate) fn send(
        &self,
        replies: &[u8],
        droppable: &[u8],
        patience: Duration,
    ) -> Result<bool, Blocked> {
        let mut state = self.state.lock();
        if !state.unsent.is_empty() {
            self.write(&mut state);
        }
        let keeps_up = state.unsent.is_empty();
        state.seal(replies);
        let awaited = if replies.is_empty() {
            0
        } else {
            state.unsent.len()
        };
        if keeps_up {
            state.seal(droppable);
        }
        let deadline = Instant::now() + patience;
        let mut sent = 0;
        loop {
            sent += self.write(&mut state);
            if sent >= awaited || state.closed {
                return Ok(keeps_up);
            }
            self.wait_for_room(deadline)?;
        }
    }

    /// Writes a message that is no reply, if that does not have to wait.
    pub(crate) fn try_send(&self, bytes: &[u8]) -> bool {
        let Some(mut state) = self.state.try_lock_for(PATIENCE_OF_OTHERS) else {
            return false;
        };
        if !state.unsent.is_empty() || state.closed {
            return false;
        }
        state.seal(bytes);
        self.write(&mut state);
        !state.closed
    }

    /// Ends the writing half.
    pub(crate) fn finish(&self) {
        if let Some(mut state) = self.state.try_lock_for(PATIENCE_OF_OTHERS) {
            if let Some(tls) = &mut state.tls {
                tls.send_close_notify();
                state.collect();
            }
            self.write(&mut state);
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Returns true while TLS has begun and is not yet agreed on.
    pub(super) fn is_in_handshake(&self) -> bool {
        let state = self.state.lock();
        state.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Decrypts `sealed`, and returns the bytes that can be read.
    pub(crate) fn unseal(
        &self,
        sealed: &mut Sealed,
        buffer: &mut [u8],
    ) -> Result<Received, TransportError> {
        let mut state = self.state.lock();
        let Some(tls) = &mut state.tls else {
            return Ok(Received::Nothing);
        };
        let received = unseal(tls, sealed, buffer);
        // The handshake has answers, and so have errors.
        if tls.wants_write() {
            state.collect();
            self.write(&mut state);
        }
        received
    }

    /// Writes as much as the socket accepts at once.
    fn write(&self, state: &mut State) -> usize {
        let mut sent = 0;
        while sent < state.unsent.len() && !state.closed {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&*self.socket, &state.unsent[sent..], flags) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => state.closed = true,
            }
        }
        self.total.fetch_add(sent as u64, Ordering::Relaxed);
        state.unsent.drain(..sent);
        if state.unsent.is_empty() && state.unsent.capacity() > KEPT_CAPACITY {
            state.unsent = Vec::new();
        }
        sent
    }

    fn wait_for_room(&self, deadline: Instant) -> Result<(), Blocked> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| Blocked)?;
        let mut fds = [PollFd::new(&*self.socket, PollFlags::OUT)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => Err(Blocked),
            _ => Ok(()),
        }
    }
}

impl State {
    fn seal(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            None => self.unsent.extend_from_slice(bytes),
            Some(_) => {
                let mut rest = bytes;
                // It takes so much at a time, and nothing at all once it is closed.
                while let Some(tls) = &mut self.tls
                    && let Ok(count @ 1..) = tls.writer().write(rest)
                {
                    rest = &rest[count..];
                    self.collect();
                }
            }
        }
    }

    /// Collects the bytes that TLS wants to write.
    fn collect(&mut self) {
        let Some(tls) = &mut self.tls else { return };
        while tls.wants_write() {
            let written: io::Result<usize> = tls.write_tls(&mut self.unsent);
            if written.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn pair() -> (Outbound, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = listener.accept().unwrap().0;
        (Outbound::new(Arc::new(server)), client)
    }

    #[test]
    fn replies_wait_for_a_slow_reader_and_notices_do_not() {
        const LENGTH: usize = 20_000_000;
        let (outbound, mut client) = pair();
        // Far more than the buffers of both sockets.
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            client.read_to_end(&mut all).unwrap();
            all
        });
        outbound.send(&vec![1; LENGTH], &[], PATIENCE).unwrap();
        drop(outbound);
        assert_eq!(reader.join().unwrap(), vec![1; LENGTH]);

        let (outbound, client) = pair();
        let notice = [2; 18];
        for _ in 0..10_000_000 / notice.len() {
            outbound.send(&[], &notice, PATIENCE).unwrap();
        }
        // Whole notices only: half of one would make what follows unreadable.
        let (taken, waiting) = (outbound.total(), outbound.state.lock().unsent.len());
        assert!(taken < 10_000_000 / 2 && waiting <= notice.len());
        assert_eq!((taken + waiting as u64) % notice.len() as u64, 0);
        // The kernel goes on to move bytes to the client's side, which makes space for a few more.
        let mut tries = 0..10_000_000 / notice.len();
        assert!(tries.any(|_| !outbound.try_send(&notice)));
        let (taken, waiting) = (outbound.total(), outbound.state.lock().unsent.len());
        assert_eq!((taken + waiting as u64) % notice.len() as u64, 0);
        drop(client);
    }

    #[test]
    fn a_client_that_is_gone_is_no_error() {
        let (outbound, client) = pair();
        drop(client);
        for _ in 0..100 {
            outbound.send(&[0; 1000], &[0; 10], PATIENCE).unwrap();
        }
    }
}
