// SPDX-License-Identifier: MPL-2.0

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Weak};

/// Connections that may wait to be accepted. After a restart of a network all publishers connect at
/// once, and one that does not fit waits for a second before it tries again.
const BACKLOG: i32 = 4096;

/// Opens a socket that accepts connections without blocking.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpListener::bind(address)?;
    socket.set_nonblocking(true)?;
    // It listens already, with a shorter queue.
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// A listening socket that can be closed and opened again.
#[derive(Debug)]
pub(crate) struct ListeningSocket {
    address: SocketAddr,
    open: Option<Arc<TcpListener>>,
    /// The last open socket. The accept thread may still hold it.
    last: Weak<TcpListener>,
}

impl ListeningSocket {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = Arc::new(listen(address)?);
        Ok(ListeningSocket {
            address: socket.local_addr()?,
            last: Arc::downgrade(&socket),
            open: Some(socket),
        })
    }

    /// Returns the bound address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn get(&self) -> Option<Arc<TcpListener>> {
        self.open.clone()
    }

    /// Returns true if it was open.
    pub(crate) fn close(&mut self) -> bool {
        self.open.take().is_some()
    }

    /// Returns true if it was closed.
    pub(crate) fn reopen(&mut self) -> io::Result<bool> {
        if self.open.is_some() {
            return Ok(false);
        }
        let socket = match self.last.upgrade() {
            Some(last) => last,
            None => Arc::new(listen(self.address)?),
        };
        self.last = Arc::downgrade(&socket);
        self.open = Some(socket);
        Ok(true)
    }
}
