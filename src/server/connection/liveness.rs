// SPDX-License-Identifier: MPL-2.0

//! How a publisher is noticed whose network is gone, without a word of it on the connection.
//!
//! What counts is that bytes come: `timeout` ends a connection without any. A publisher that has
//! nothing to send is asked for a sign of life before that, and the system is told to find out by
//! itself where the other end has vanished, also where `timeout` is off.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt;

use crate::server::log::CAT;

/// How long the other end may be gone where there is no `timeout`.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(60);

/// Keepalive probes that have to go unanswered.
const PROBES: u32 = 3;

/// How long the other end may be gone.
pub(crate) fn patience(timeout: Option<Duration>) -> Duration {
    timeout.unwrap_or(DEFAULT_PATIENCE)
}

/// The silence before a ping: the answer has as long again.
pub(crate) fn ping_after(timeout: Option<Duration>) -> Duration {
    patience(timeout) / 2
}

/// Makes the system end a connection without traffic when its other end is gone.
pub(crate) fn watch(socket: &TcpStream, timeout: Option<Duration>) {
    let patience = patience(timeout);
    // The system counts in seconds here, and these may not come to more than there is.
    let whole = |time: Duration| Duration::from_secs(time.as_secs().max(1));
    let set = || {
        sockopt::set_socket_keepalive(socket, true)?;
        sockopt::set_tcp_keepidle(socket, whole(patience / 2))?;
        sockopt::set_tcp_keepintvl(socket, whole(patience / (2 * (PROBES + 1))))?;
        sockopt::set_tcp_keepcnt(socket, PROBES)
    };
    report(set());
}

/// The publisher is silent, and what it was sent may stay without acknowledgement for this long,
/// for ever if there is none. It is not limited while the publisher sends: those that never read
/// would be cut off once their receive buffer is full.
pub(crate) fn limit_unacknowledged(socket: &TcpStream, limit: Option<Duration>) {
    let millis = limit.map_or(0, |limit| {
        u32::try_from(limit.as_millis()).unwrap_or(u32::MAX)
    });
    report(sockopt::set_tcp_user_timeout(socket, millis));
}

fn report(set: rustix::io::Result<()>) {
    if let Err(error) = set {
        gst::debug!(CAT, "Could not watch over a connection: {error}");
    }
}

/// Whether the system has found that the other end is gone. The end of the time that a read may
/// take is another error.
pub(crate) fn has_vanished(error: &io::Error) -> bool {
    [Errno::TIMEDOUT, Errno::HOSTUNREACH, Errno::NETUNREACH]
        .iter()
        .any(|vanished| error.raw_os_error() == Some(vanished.raw_os_error()))
}
