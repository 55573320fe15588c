// SPDX-License-Identifier: MPL-2.0

//! Detection of publishers whose network is gone without a word on the connection.
//!
//! Arriving bytes count: `timeout` ends a connection without any. A publisher that is silent is asked
//! for a sign of life before that, and the system is told to find out by itself where the other end has
//! vanished, also where `timeout` is off.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt;

use crate::server::log::CAT;

/// Time for which the other end may be gone where there is no `timeout`.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(60);

/// Keepalive probes without an answer after which the other end counts as gone.
const PROBES: u32 = 3;

/// The longest times that the system accepts for keepalive, in seconds.
const MAX_KEEPALIVE: u64 = 32_767;

/// Returns the time for which the other end may be gone.
fn patience(timeout: Duration) -> Duration {
    if timeout.is_zero() {
        DEFAULT_PATIENCE
    } else {
        timeout
    }
}

/// Returns the silence after which a ping is sent. The answer has as long again.
pub(super) fn ping_after(timeout: Duration) -> Duration {
    patience(timeout) / 2
}

/// Makes the system end a connection without traffic when its other end is gone.
pub(super) fn watch(socket: &TcpStream, timeout: Duration) {
    let patience = patience(timeout);
    // The system counts in whole seconds, and these must not add up to more than the patience.
    let whole = |time: Duration| Duration::from_secs(time.as_secs().clamp(1, MAX_KEEPALIVE));
    let interval = whole(patience / (2 * (PROBES + 1)));
    // Each by itself: a system that refuses one of them still gets the others.
    report(sockopt::set_socket_keepalive(socket, true));
    report(sockopt::set_tcp_keepidle(socket, whole(patience / 2)));
    report(sockopt::set_tcp_keepintvl(socket, interval));
    report(sockopt::set_tcp_keepcnt(socket, PROBES));
}

/// Limits how long data that was sent may stay unacknowledged, for a silent publisher; None for no
/// limit. A publisher that sends is not limited: one that never reads would be disconnected once its
/// receive buffer is full.
pub(super) fn limit_unacknowledged(socket: &TcpStream, limit: Option<Duration>) {
    let millis = limit.map_or(0, |limit| {
        u32::try_from(limit.as_millis()).unwrap_or(u32::MAX)
    });
    report(sockopt::set_tcp_user_timeout(socket, millis));
}

fn report(set: rustix::io::Result<()>) {
    if let Err(error) = set {
        gst::debug!(CAT, "Could not set an option of a connection: {error}");
    }
}

/// Returns true where the system has found that the other end is gone. The end of a read timeout is
/// another error.
pub(super) fn has_vanished(error: &io::Error) -> bool {
    [Errno::TIMEDOUT, Errno::HOSTUNREACH, Errno::NETUNREACH]
        .iter()
        .any(|vanished| error.raw_os_error() == Some(vanished.raw_os_error()))
}
