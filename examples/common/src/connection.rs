// SPDX-License-Identifier: MPL-2.0

//! Connections of the programs' HTTP servers, whose cost is bounded: their number is limited, and
//! each must make progress.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

#[derive(Debug)]
pub struct LimitedListener {
    socket: TcpListener,
    slots: Arc<Semaphore>,
    timeout: Duration,
}

impl LimitedListener {
    /// Connections beyond the limit wait until another one ends.
    pub fn new(socket: TcpListener, connections: usize, timeout: Duration) -> Self {
        LimitedListener {
            socket,
            slots: Arc::new(Semaphore::new(connections)),
            timeout,
        }
    }
}

impl Listener for LimitedListener {
    type Io = LimitedConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (LimitedConnection, SocketAddr) {
        let slot = self.slots.clone().acquire_owned().await;
        let slot = slot.expect("the semaphore is never closed");
        // It handles transient errors itself.
        let (stream, address) = Listener::accept(&mut self.socket).await;
        // Without it the connection is slower, and nothing else.
        let _ = stream.set_nodelay(true);
        let connection = LimitedConnection {
            stream,
            timeout: self.timeout,
            timer: Box::pin(sleep(self.timeout)),
            _slot: slot,
        };
        (connection, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// A connection that fails once nothing could be written for too long. Received bytes do not count:
/// a request must be complete in that time, and its client must read the answer.
#[derive(Debug)]
pub struct LimitedConnection {
    stream: TcpStream,
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
    _slot: OwnedSemaphorePermit,
}

impl LimitedConnection {
    fn unless_timed_out<T>(
        &mut self,
        context: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if poll.is_pending() {
            ready!(self.timer.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        poll
    }

    fn restart_timer<T>(
        &mut self,
        context: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            let deadline = Instant::now() + self.timeout;
            self.timer.as_mut().reset(deadline);
        }
        self.unless_timed_out(context, poll)
    }
}

impl AsyncRead for LimitedConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.unless_timed_out(context, poll)
    }
}

impl AsyncWrite for LimitedConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.restart_timer(context, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.restart_timer(context, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream as Client;

    use axum::Router;

    const BODY: usize = 50_000_000;

    /// Starts a server whose connections have little patience. Returns its address.
    fn serve(connections: usize, timeout: Duration) -> SocketAddr {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(socket.local_addr().unwrap()).unwrap();
                let get = || async { vec![0_u8; BODY] };
                let router = Router::new().route("/", axum::routing::get(get));
                let listener = LimitedListener::new(socket, connections, timeout);
                axum::serve(listener, router).await.unwrap();
            });
        });
        receiver.recv().unwrap()
    }

    fn ends(client: &mut Client) {
        // An error is an end, too.
        let _ = client.read_to_end(&mut Vec::new());
    }

    #[test]
    fn clients_that_send_or_read_nothing_are_cut_off() {
        let address = serve(1, Duration::from_millis(100));
        // There is one slot, so each client gets it when the one before is cut off.
        let mut silent = Client::connect(address).unwrap();
        let mut endless = Client::connect(address).unwrap();
        endless.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").unwrap();
        let mut deaf = Client::connect(address).unwrap();
        deaf.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        let mut polite = Client::connect(address).unwrap();
        polite
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .unwrap();
        ends(&mut silent);
        ends(&mut endless);
        let mut answer = Vec::new();
        polite.read_to_end(&mut answer).unwrap();
        assert!(answer.len() > BODY);
        ends(&mut deaf);
    }

    #[test]
    fn a_client_that_dribbles_is_cut_off() {
        let address = serve(10, Duration::from_millis(100));
        let mut client = Client::connect(address).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: ").unwrap();
        // Each byte arrives before the timeout; the connection ends all the same.
        while client.write_all(b"a").is_ok() {
            client
                .set_read_timeout(Some(Duration::from_millis(10)))
                .unwrap();
            if client.read(&mut [0; 1]).is_ok_and(|count| count == 0) {
                break;
            }
        }
    }
}
