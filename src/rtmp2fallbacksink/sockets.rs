// SPDX-License-Identifier: MPL-2.0

//! The socket of a connection. rtmp2sink keeps it to itself, and the system would let it buffer megabytes: all
//! of that is lost with a server that stops reading, which is noticed only when there is no more room. One
//! that reads slowly would seem to read nothing, since room is told of only when there is much of it.
//!
//! So it is looked for among those of the process, where the system allows that, which Linux does.

use std::collections::HashSet;

/// What may wait that was not even sent. What is under way is not bounded by it, so long ways are no slower.
#[cfg(target_os = "linux")]
const MAX_UNSENT: i32 = 128 * 1024;

/// `IPPROTO_TCP` and `TCP_NOTSENT_LOWAT` (tcp(7)).
#[cfg(target_os = "linux")]
const OPTION: (i32, i32) = (6, 25);

/// Those that there were at some time, by their numbers in the system.
#[derive(Debug, Default)]
pub(super) struct Sockets(HashSet<String>);

#[cfg(target_os = "linux")]
impl Sockets {
    pub(super) fn now() -> Self {
        Sockets(all().map(|(_, inode)| inode).collect())
    }

    /// Bounds what those buffer that have come since and lead to this port. There may be some of other
    /// connections that were made in the same moment, to an RTMP server too.
    pub(super) fn bound_new(&self, port: u16) {
        let new = all().filter(|(_, inode)| !self.0.contains(inode));
        for (descriptor, _) in new {
            let _ = bound(descriptor, port);
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Sockets {
    pub(super) fn now() -> Self {
        Self::default()
    }

    pub(super) fn bound_new(&self, _port: u16) {}
}

/// Descriptors, and which sockets they are.
#[cfg(target_os = "linux")]
fn all() -> impl Iterator<Item = (i32, String)> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    entries.flatten().filter_map(|entry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:")?.to_owned();
        let descriptor = entry.file_name().to_str()?.parse().ok()?;
        Some((descriptor, inode))
    })
}

#[cfg(target_os = "linux")]
fn bound(descriptor: i32, port: u16) -> Result<(), Box<dyn std::error::Error>> {
    use gio::prelude::SocketExt;
    use rustix::fs::{OFlags, fcntl_getfl};
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let process = pidfd_open(getpid(), PidfdFlags::empty())?;
    // Another name for the same socket, and gone in a moment: whoever closes it then has closed it.
    let socket = pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty())?;
    let socket = std::net::TcpStream::from(socket);
    // Those of GIO never block, and it would make others so.
    let never_blocks = fcntl_getfl(&socket)?.contains(OFlags::NONBLOCK);
    if never_blocks && socket.peer_addr()?.port() == port {
        let (level, name) = OPTION;
        gio::Socket::from_fd(socket.into())?.set_option(level, name, MAX_UNSENT)?;
    }
    Ok(())
}
