// SPDX-License-Identifier: MPL-2.0

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Weak};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

/// Connections that may wait to be accepted. After a restart of a network all publishers connect at
/// once, and one that does not fit waits for a second before it tries again.
const BACKLOG: i32 = 4096;

/// Opens a socket that accepts connections without blocking.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if is_any_ipv6(address) {
        bind_both_families(address)?
    } else {
        TcpListener::bind(address)?
    };
    socket.set_nonblocking(true)?;
    // It listens already, with a shorter queue.
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Binds to all addresses of IPv6 and of IPv4, also where the system's default is IPv6 alone.
fn bind_both_families(address: SocketAddr) -> io::Result<TcpListener> {
    let kind = (AddressFamily::INET6, SocketType::STREAM);
    let socket = socket_with(kind.0, kind.1, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_ipv6_v6only(&socket, false)?;
    bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn is_any_ipv6(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

/// Returns the address to listen on instead, where this one is every address of both families and the
/// system has no IPv6.
pub(crate) fn without_ipv6(address: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    let is_missing = [
        Errno::AFNOSUPPORT,
        Errno::ADDRNOTAVAIL,
        Errno::PROTONOSUPPORT,
    ]
    .iter()
    .any(|missing| error.raw_os_error() == Some(missing.raw_os_error()));
    (is_missing && is_any_ipv6(address)).then(|| (Ipv4Addr::UNSPECIFIED, address.port()).into())
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, TcpStream};

    use super::*;

    #[test]
    fn every_address_takes_both_families() {
        let socket = listen((Ipv6Addr::UNSPECIFIED, 0).into()).unwrap();
        let port = socket.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        // The port of both families is taken.
        let error = listen((Ipv4Addr::UNSPECIFIED, port).into()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_system_without_ipv6_listens_on_ipv4() {
        let missing = io::Error::from(Errno::AFNOSUPPORT);
        let any: SocketAddr = "[::]:1935".parse().unwrap();
        let any_ipv4 = "0.0.0.0:1935".parse().unwrap();
        assert_eq!(without_ipv6(any, &missing), Some(any_ipv4));
        let one = "[::1]:1935".parse().unwrap();
        assert_eq!(without_ipv6(one, &missing), None);
        let in_use = io::Error::from(Errno::ADDRINUSE);
        assert_eq!(without_ipv6(any, &in_use), None);
    }
}
