// SPDX-License-Identifier: MPL-2.0

//! The socket of a connection. rtmp2sink does not expose it, and the system would let it buffer
//! megabytes: all of that is lost with a server that stops reading, which is noticed only when the
//! buffer is full. A server that reads slowly would seem to read nothing, since the system reports
//! free space only when there is much of it.
//!
//! So the socket is looked up among those of the process, on systems that allow it, such as Linux.

use std::collections::HashSet;

/// Maximum bytes waiting that were not sent yet. Data in flight is not limited, so connections with
/// a long round trip are no slower.
#[cfg(target_os = "linux")]
const MAX_UNSENT_BYTES: i32 = 128 * 1024;

/// `IPPROTO_TCP` and `TCP_NOTSENT_LOWAT` (tcp(7)).
#[cfg(target_os = "linux")]
const NOTSENT_LOWAT: (i32, i32) = (6, 25);

/// The inodes of the sockets that existed at some time.
#[derive(Debug, Default)]
pub(super) struct SocketSnapshot(HashSet<String>);

#[cfg(target_os = "linux")]
impl SocketSnapshot {
    pub(super) fn now() -> Self {
        SocketSnapshot(open_sockets().map(|(_, inode)| inode).collect())
    }

    /// Limits the unsent data of sockets opened since the snapshot and connected to this port.
    /// Other connections that were made to that port at the same moment are limited, too.
    pub(super) fn limit_new(&self, port: u16) {
        let new = open_sockets().filter(|(_, inode)| !self.0.contains(inode));
        for (descriptor, _) in new {
            let _ = limit_unsent(descriptor, port);
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl SocketSnapshot {
    pub(super) fn now() -> Self {
        Self::default()
    }

    pub(super) fn limit_new(&self, _port: u16) {}
}

/// Returns the descriptors of all sockets of the process, with their inodes.
#[cfg(target_os = "linux")]
fn open_sockets() -> impl Iterator<Item = (i32, String)> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    entries.flatten().filter_map(|entry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:")?.to_owned();
        let descriptor = entry.file_name().to_str()?.parse().ok()?;
        Some((descriptor, inode))
    })
}

#[cfg(target_os = "linux")]
fn limit_unsent(descriptor: i32, port: u16) -> Result<(), Box<dyn std::error::Error>> {
    use gio::prelude::SocketExt;
    use rustix::fs::{OFlags, fcntl_getfl};
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let process = pidfd_open(getpid(), PidfdFlags::empty())?;
    // A duplicate of the descriptor, closed at once, so that the owner's close still closes the
    // socket.
    let socket = pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty())?;
    let socket = std::net::TcpStream::from(socket);
    // GIO's own sockets never block, and it would make any other socket non-blocking.
    let never_blocks = fcntl_getfl(&socket)?.contains(OFlags::NONBLOCK);
    if never_blocks && socket.peer_addr()?.port() == port {
        let (level, name) = NOTSENT_LOWAT;
        gio::Socket::from_fd(socket.into())?.set_option(level, name, MAX_UNSENT_BYTES)?;
    }
    Ok(())
}
