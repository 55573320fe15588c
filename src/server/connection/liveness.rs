// SPDX-License-Identifier: MPL-2.0

//! Detection of publishers whose network is gone without a word on the connection.
//!
//! Arriving bytes count: `timeout` ends a connection without any. A publisher that is silent is
//! asked for a sign of life before that, and the system is told to find out by itself where the
//! other end has vanished, also where `timeout` is off.

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

/// An option of the system's keepalive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeepaliveOption {
    Enabled,
    /// Silence before the first probe.
    Idle(Duration),
    /// Time between two probes.
    Interval(Duration),
    Probes(u32),
}

impl KeepaliveOption {
    fn set(self, socket: &TcpStream) -> rustix::io::Result<()> {
        match self {
            KeepaliveOption::Enabled => sockopt::set_socket_keepalive(socket, true),
            KeepaliveOption::Idle(time) => sockopt::set_tcp_keepidle(socket, time),
            KeepaliveOption::Interval(time) => sockopt::set_tcp_keepintvl(socket, time),
            KeepaliveOption::Probes(count) => sockopt::set_tcp_keepcnt(socket, count),
        }
    }
}

/// Makes the system end a connection without traffic when its other end is gone.
pub(super) fn watch(socket: &TcpStream, timeout: Duration) {
    set_each(keepalive_options(timeout), |option| option.set(socket));
}

fn keepalive_options(timeout: Duration) -> [KeepaliveOption; 4] {
    let patience = patience(timeout);
    // The system counts in whole seconds, and these must not add up to more than the patience.
    let whole = |time: Duration| Duration::from_secs(time.as_secs().clamp(1, MAX_KEEPALIVE));
    [
        KeepaliveOption::Enabled,
        KeepaliveOption::Idle(whole(patience / 2)),
        KeepaliveOption::Interval(whole(patience / (2 * (PROBES + 1)))),
        KeepaliveOption::Probes(PROBES),
    ]
}

/// Sets each option by itself: a system that refuses one of them still gets the others.
fn set_each(
    options: impl IntoIterator<Item = KeepaliveOption>,
    mut set: impl FnMut(KeepaliveOption) -> rustix::io::Result<()>,
) {
    for option in options {
        if let Err(error) = set(option) {
            gst::debug!(CAT, "Could not set {option:?} of a connection: {error}");
        }
    }
}

/// Limits how long data that was sent may stay unacknowledged, for a silent publisher; None for no
/// limit. A publisher that sends is not limited: one that never reads would be disconnected once
/// its receive buffer is full.
pub(super) fn limit_unacknowledged(socket: &TcpStream, limit: Option<Duration>) {
    let millis = limit.map_or(0, |limit| {
        // A signed number to the system.
        limit.as_millis().min(i32::MAX as u128) as u32
    });
    if let Err(error) = sockopt::set_tcp_user_timeout(socket, millis) {
        gst::debug!(CAT, "Could not limit unacknowledged data: {error}");
    }
}

/// Returns true where the system has found that the other end is gone. The end of a read timeout is
/// another error.
pub(super) fn has_vanished(error: &io::Error) -> bool {
    [Errno::TIMEDOUT, Errno::HOSTUNREACH, Errno::NETUNREACH]
        .iter()
        .any(|vanished| error.raw_os_error() == Some(vanished.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_refused_keepalive_option_does_not_keep_others_from_being_set() {
        let options = keepalive_options(Duration::from_secs(30));
        for refused in options {
            let mut set = Vec::new();
            set_each(options, |option| {
                if option == refused {
                    return Err(Errno::INVAL);
                }
                set.push(option);
                Ok(())
            });
            let others: Vec<_> = options.into_iter().filter(|o| *o != refused).collect();
            assert_eq!(set, others);
        }
    }

    #[test]
    fn the_system_accepts_the_keepalive_options_of_every_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let longest = Duration::from_secs(u32::MAX.into());
        for timeout in [Duration::ZERO, Duration::from_secs(1), longest] {
            for option in keepalive_options(timeout) {
                assert_eq!(option.set(&socket), Ok(()), "{option:?} for {timeout:?}");
            }
            assert_eq!(sockopt::socket_keepalive(&socket), Ok(true));
            assert_eq!(sockopt::tcp_keepcnt(&socket), Ok(PROBES));
        }
    }

    #[test]
    fn all_probes_fit_into_the_timeout() {
        let options = keepalive_options(Duration::from_secs(30));
        let [
            _,
            KeepaliveOption::Idle(idle),
            KeepaliveOption::Interval(interval),
            _,
        ] = options
        else {
            panic!("{options:?}");
        };
        assert!(idle + interval * PROBES <= Duration::from_secs(30));
    }
}
