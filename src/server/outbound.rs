// SPDX-License-Identifier: MPL-2.0

//! Writing to a client that may not read.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

/// The client does not read what it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blocked;

#[derive(Debug)]
pub(super) struct Outbound {
    socket: Arc<TcpStream>,
    /// The end of a notice whose front has left.
    unsent: Vec<u8>,
    total: u64,
    /// The client takes nothing any more. It may still have sent media that is to be read.
    closed: bool,
}

impl Outbound {
    pub(super) fn new(socket: Arc<TcpStream>) -> Self {
        Outbound {
            socket,
            unsent: Vec::new(),
            total: 0,
            closed: false,
        }
    }

    /// Bytes that have left.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Writes replies, waiting for room no longer than `patience`, and then notices, which are
    /// dropped where they would have to wait. All that there is goes out in one write if it can.
    pub(super) fn send(
        &mut self,
        replies: Vec<u8>,
        notices: &[u8],
        patience: Duration,
    ) -> Result<(), Blocked> {
        let mut bytes = std::mem::take(&mut self.unsent);
        let begun = bytes.len();
        bytes.extend(replies);
        // Half of a message would make the rest unreadable, so what has begun goes first. Only
        // replies are waited for.
        let started = bytes.len();
        let awaited = if started > begun { started } else { 0 };
        bytes.extend_from_slice(notices);

        let deadline = Instant::now() + patience;
        let mut sent = 0;
        while sent < bytes.len() && !self.closed {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&*self.socket, &bytes[sent..], flags) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if sent < awaited => self.wait_for_room(deadline)?,
                Err(Errno::AGAIN) => break,
                Err(_) => self.closed = true,
            }
        }
        self.total += sent as u64;
        if sent <= started {
            bytes.truncate(started);
        }
        self.unsent = bytes.split_off(sent);
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::io::Read;
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
        let (mut outbound, mut client) = pair();
        // Far more than the buffers of both sockets.
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            client.read_to_end(&mut all).unwrap();
            all
        });
        outbound.send(vec![1; LENGTH], &[], PATIENCE).unwrap();
        drop(outbound);
        assert_eq!(reader.join().unwrap(), vec![1; LENGTH]);

        let (mut outbound, client) = pair();
        let notice = [2; 18];
        for _ in 0..10_000_000 / notice.len() {
            outbound.send(Vec::new(), &notice, PATIENCE).unwrap();
        }
        let (taken, dropped) = (outbound.total(), outbound.unsent.len() as u64);
        assert!(taken < 10_000_000 / 2);
        assert_eq!((taken + dropped) % notice.len() as u64, 0);
        drop(client);
    }

    #[test]
    fn a_client_that_is_gone_is_no_error() {
        let (mut outbound, client) = pair();
        drop(client);
        for _ in 0..100 {
            outbound.send(vec![0; 1000], &[0; 10], PATIENCE).unwrap();
        }
    }
}
