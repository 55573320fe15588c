// SPDX-License-Identifier: MPL-2.0

//! What others than its own thread can do with a publisher's connection.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionread;

use crate::rtmp::session::unsolicited;
use crate::server::port::listener::{ListenerState, Timer};
use crate::server::publisher::RemovalReason;
use crate::server::stream::{ReconnectError, Stream};
use crate::server::transport::Outbound;

#[derive(Debug)]
pub(crate) struct PublisherHandle {
    pub(crate) client: u64,
    connection: Connection,
    /// The message stream that it publishes.
    msid: u32,
    can_reconnect: bool,
    /// What it is to be told behind the answer that it publishes; None once it has that.
    behind_start: Mutex<Option<Vec<u8>>>,
    /// Why it has to go, once it has to.
    dismissal: OnceLock<RemovalReason>,
    goodbye: Once,
    since: Instant,
    /// When media came last, in milliseconds since then.
    last_media: AtomicU64,
}

/// What a link needs of the client's connection.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) socket: Arc<TcpStream>,
    pub(crate) outbound: Arc<Outbound>,
    pub(crate) shared: Arc<ListenerState>,
    /// What the client was told, so that messages are cut accordingly.
    pub(crate) chunk_size: u32,
}

const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

impl PublisherHandle {
    pub(crate) fn new(client: u64, connection: Connection, msid: u32, can_reconnect: bool) -> Self {
        PublisherHandle {
            client,
            connection,
            msid,
            can_reconnect,
            behind_start: Mutex::new(Some(Vec::new())),
            dismissal: OnceLock::new(),
            goodbye: Once::new(),
            since: Instant::now(),
            last_media: AtomicU64::new(0),
        }
    }

    /// Media of the publisher has come, or was taken after a wait.
    pub(crate) fn media_came(&self) {
        let millis = self.since.elapsed().as_millis() as u64;
        self.last_media.store(millis, Ordering::Relaxed);
    }

    /// How long ago media came.
    pub(crate) fn silent_for(&self) -> Duration {
        let last = Duration::from_millis(self.last_media.load(Ordering::Relaxed));
        self.since.elapsed().saturating_sub(last)
    }

    /// Whether the client has closed its side. What it sent before may still wait to be read.
    pub(crate) fn has_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&*self.connection.socket, PollFlags::RDHUP)];
        let ended = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        matches!(poll(&mut fds, Some(&AT_ONCE)), Ok(1..)) && fds[0].revents().intersects(ended)
    }

    /// Whether it has sent something that was not read yet.
    pub(crate) fn has_unread(&self) -> bool {
        ioctl_fionread(&*self.connection.socket).is_ok_and(|count| count > 0)
    }

    pub(crate) fn request_reconnect(
        &self,
        tc_url: Option<&str>,
        description: &str,
    ) -> Result<(), ReconnectError> {
        if !self.can_reconnect {
            return Err(ReconnectError::NotSupported);
        }
        let request =
            unsolicited::reconnect_request(self.connection.chunk_size, tc_url, description);
        let mut behind_start = self.behind_start.lock();
        if let Some(waiting) = &mut *behind_start {
            waiting.extend(request);
            return Ok(());
        }
        drop(behind_start);
        let sent = self.connection.outbound.try_send(&request);
        if sent {
            Ok(())
        } else {
            Err(ReconnectError::NotReading)
        }
    }

    /// The client was told that it publishes. The application may have wanted something of it before.
    pub(crate) fn has_started(&self) {
        let waiting = self.behind_start.lock().take();
        if let Some(waiting) = waiting.filter(|waiting| !waiting.is_empty()) {
            self.connection.outbound.try_send(&waiting);
        }
    }

    pub(crate) fn dismissal(&self) -> Option<RemovalReason> {
        self.dismissal.get().copied()
    }

    /// Fixes why the client has to go; the first reason counts.
    pub(crate) fn mark(&self, removal: RemovalReason) {
        let _ = self.dismissal.set(removal);
    }

    /// Tells the client that it has to go, and waits a moment for it to do so.
    pub(crate) fn dismiss(&self, removal: RemovalReason) {
        self.mark(removal);
        self.say_goodbye();
        let Connection { shared, .. } = &self.connection;
        shared.cut_off_soon(self.client);
    }

    /// Tells the client why it has to go. Whoever comes second waits until that is written.
    pub(crate) fn say_goodbye(&self) {
        self.goodbye.call_once(|| {
            let Connection {
                outbound,
                chunk_size,
                ..
            } = &self.connection;
            if let Some(status) = self.dismissal().and_then(RemovalReason::status) {
                outbound.try_send(&unsolicited::status(*chunk_size, self.msid, &status));
            }
            outbound.finish();
        });
    }

    pub(crate) fn call_at(&self, when: Instant, stream: Weak<Stream>) {
        let Connection { shared, .. } = &self.connection;
        shared.call_at(when, Timer::Stream(stream));
    }

    /// Ends the connection, whatever is under way.
    pub(crate) fn cut_off(&self, removal: RemovalReason) {
        self.mark(removal);
        let _ = self.connection.socket.shutdown(Shutdown::Both);
    }
}
