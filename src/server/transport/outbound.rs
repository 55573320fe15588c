// SPDX-License-Identifier: MPL-2.0

//! Writing to a client that may not read.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustls::ServerConnection;

use super::{Received, Sealed, TransportError, unseal};

/// The client does not read what it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) struct Blocked;

/// The writing half of a connection. The client's own thread writes replies here and may wait for
/// the client while it does; others never wait, neither for the client nor for that thread.
#[derive(Debug)]
pub(in crate::server) struct Outbound {
    socket: Arc<TcpStream>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Both halves of a TLS connection, since either may have to write.
    tls: Option<Box<ServerConnection>>,
    /// For the socket, as it goes out.
    unsent: Vec<u8>,
    total: u64,
    /// The client takes nothing any more. It may still have sent media that is to be read.
    closed: bool,
}

impl Outbound {
    pub(super) fn new(socket: Arc<TcpStream>, tls: Option<ServerConnection>) -> Self {
        Outbound {
            socket,
            state: Mutex::new(State {
                tls: tls.map(Box::new),
                unsent: Vec::new(),
                total: 0,
                closed: false,
            }),
        }
    }

    /// Bytes that have left.
    pub(in crate::server) fn total(&self) -> u64 {
        self.state.lock().total
    }

    /// Writes replies, waiting for room no longer than `patience`, and notices, which are dropped
    /// while anything from before waits. All that there is goes out in one write if it can.
    pub(in crate::server) fn send(
        &self,
        replies: &[u8],
        notices: &[u8],
        patience: Duration,
    ) -> Result<(), Blocked> {
        let mut state = self.state.lock();
        let keeps_up = state.unsent.is_empty();
        state.seal(replies);
        let awaited = if replies.is_empty() {
            0
        } else {
            state.unsent.len()
        };
        if keeps_up {
            state.seal(notices);
        }
        let deadline = Instant::now() + patience;
        let mut sent = 0;
        loop {
            sent += state.write(&self.socket);
            if sent >= awaited || state.closed {
                return Ok(());
            }
            self.wait_for_room(deadline)?;
        }
    }

    /// Writes what is not part of the client's own conversation, if that does not have to wait.
    pub(in crate::server) fn try_send(&self, bytes: &[u8]) -> bool {
        let Some(mut state) = self.state.try_lock() else {
            return false;
        };
        if !state.unsent.is_empty() || state.closed {
            return false;
        }
        state.seal(bytes);
        state.write(&self.socket);
        !state.closed
    }

    /// Says that nothing more will be written.
    pub(in crate::server) fn finish(&self) {
        if let Some(mut state) = self.state.try_lock() {
            if let Some(tls) = &mut state.tls {
                tls.send_close_notify();
                state.collect();
            }
            state.write(&self.socket);
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Gives `sealed` to TLS, and takes what can be read out of it.
    pub(super) fn unseal(
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
            state.write(&self.socket);
        }
        received
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

    /// Takes out of TLS what it wants to write.
    fn collect(&mut self) {
        let Some(tls) = &mut self.tls else { return };
        while tls.wants_write() {
            let written: io::Result<usize> = tls.write_tls(&mut self.unsent);
            if written.is_err() {
                return;
            }
        }
    }

    /// Writes as much as the socket takes at once.
    fn write(&mut self, socket: &TcpStream) -> usize {
        let mut sent = 0;
        while sent < self.unsent.len() && !self.closed {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(socket, &self.unsent[sent..], flags) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => self.closed = true,
            }
        }
        self.total += sent as u64;
        self.unsent.drain(..sent);
        sent
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
        (Outbound::new(Arc::new(server), None), client)
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
        assert!(!outbound.try_send(&notice));
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
