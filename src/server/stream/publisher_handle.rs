// SPDX-License-Identifier: MPL-2.0

//! A publisher's connection, as other threads than its own may use it.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Once, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionread;

use crate::rtmp::session::unsolicited;
use crate::server::publisher::{ReconnectError, RemovalReason};
use crate::server::threads::{TimerId, TimerService};
use crate::server::transport::Outbound;

/// Time for a dismissed client to read the reason, before its connection ends.
pub(crate) const DISMISSAL_TIME: Duration = Duration::from_millis(800);

const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// The parts of a connection that its handle shares.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionParts {
    pub(crate) socket: Arc<TcpStream>,
    pub(crate) outbound: Arc<Outbound>,
    pub(crate) timers: Arc<dyn TimerService>,
    /// Chunk size announced to the client, in bytes. Messages are cut accordingly.
    pub(crate) chunk_size: u32,
}

#[derive(Debug)]
pub(crate) struct PublisherHandle {
    pub(crate) client: u64,
    parts: ConnectionParts,
    /// Message stream id of its publish.
    msid: u32,
    can_reconnect: bool,
    /// Messages to send after the answer to `publish`. None once that is sent.
    after_start: Mutex<Option<Vec<u8>>>,
    /// Reason why the client was dismissed.
    dismissal: OnceLock<RemovalReason>,
    dismissal_sent: Once,
    dismissal_timer: TimerId,
    /// Ends a publisher that may publish for a while only.
    end_timer: TimerId,
    activity: Activity,
}

/// Signs of life, written by the connection's own thread.
#[derive(Debug)]
struct Activity {
    since: Instant,
    /// Arrival of the last media, in milliseconds after `since`.
    last_media: AtomicU64,
    /// Arrival of the last byte, in milliseconds after `since`.
    last_byte: AtomicU64,
    received_bytes: AtomicU64,
    /// The stall has been posted, and media has not resumed.
    is_stalled: AtomicBool,
    /// Number of contenders that wait for a sign of life.
    contenders: AtomicUsize,
    /// Generation of the stream's settings that the thread goes by.
    settings_generation: AtomicU64,
}

impl Activity {
    fn millis_at(&self, time: Instant) -> u64 {
        time.saturating_duration_since(self.since).as_millis() as u64
    }

    fn age(&self, of: &AtomicU64) -> Duration {
        let at = Duration::from_millis(of.load(Ordering::Relaxed));
        self.since.elapsed().saturating_sub(at)
    }
}

impl PublisherHandle {
    pub(crate) fn new(client: u64, parts: ConnectionParts, msid: u32, can_reconnect: bool) -> Self {
        PublisherHandle {
            client,
            parts,
            msid,
            can_reconnect,
            after_start: Mutex::new(Some(Vec::new())),
            dismissal: OnceLock::new(),
            dismissal_sent: Once::new(),
            dismissal_timer: TimerId::new(),
            end_timer: TimerId::new(),
            activity: Activity {
                since: Instant::now(),
                last_media: AtomicU64::new(0),
                last_byte: AtomicU64::new(0),
                received_bytes: AtomicU64::new(0),
                is_stalled: AtomicBool::new(false),
                contenders: AtomicUsize::new(0),
                settings_generation: AtomicU64::new(0),
            },
        }
    }

    /// Notes that media has made progress, or was accepted after a wait.
    pub(crate) fn note_media(&self, at: Instant) {
        let activity = &self.activity;
        let millis = activity.millis_at(at);
        activity.last_media.store(millis, Ordering::Relaxed);
    }

    /// Notes that bytes have arrived. Returns true where a contender waits for that.
    pub(crate) fn note_bytes(&self, count: usize, arrival: Instant) -> bool {
        let activity = &self.activity;
        let millis = activity.millis_at(arrival);
        activity.last_byte.store(millis, Ordering::Relaxed);
        // Ordered with `contend`: either the contender sees the bytes, or they see the contender.
        let count = count as u64;
        activity.received_bytes.fetch_add(count, Ordering::SeqCst);
        activity.contenders.load(Ordering::SeqCst) > 0
    }

    /// Returns the time of the last media.
    pub(crate) fn last_media(&self) -> Instant {
        let millis = self.activity.last_media.load(Ordering::Relaxed);
        self.activity.since + Duration::from_millis(millis)
    }

    /// Returns the time since the last media.
    pub(crate) fn media_age(&self) -> Duration {
        self.activity.age(&self.activity.last_media)
    }

    /// Returns the time since the last byte.
    pub(crate) fn byte_age(&self) -> Duration {
        self.activity.age(&self.activity.last_byte)
    }

    /// Sets if the publisher counts as stalled, and returns the value before.
    pub(crate) fn set_stalled(&self, is_stalled: bool) -> bool {
        let known = &self.activity.is_stalled;
        if known.load(Ordering::Relaxed) == is_stalled {
            return is_stalled;
        }
        known.swap(is_stalled, Ordering::AcqRel)
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.activity.is_stalled.load(Ordering::Acquire)
    }

    /// Notes which settings the connection's thread goes by from now on.
    pub(crate) fn note_settings(&self, generation: u64) {
        let known = &self.activity.settings_generation;
        known.store(generation, Ordering::Relaxed);
    }

    pub(crate) fn goes_by_settings(&self, generation: u64) -> bool {
        self.activity.settings_generation.load(Ordering::Relaxed) == generation
    }

    /// Returns true where the client has closed its side. Earlier data may still be unread.
    pub(crate) fn is_closing(&self) -> bool {
        let mut fds = [PollFd::new(&*self.parts.socket, PollFlags::RDHUP)];
        let ended = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        matches!(poll(&mut fds, Some(&AT_ONCE)), Ok(1..)) && fds[0].revents().intersects(ended)
    }

    fn unread_bytes(&self) -> u64 {
        ioctl_fionread(&*self.parts.socket).unwrap_or(0)
    }

    /// Returns true where data of the client is still to be read.
    pub(crate) fn has_unread(&self) -> bool {
        self.unread_bytes() > 0
    }

    /// Asks the client to connect again, perhaps elsewhere.
    pub(crate) fn request_reconnect(
        &self,
        tc_url: Option<&str>,
        description: &str,
    ) -> Result<(), ReconnectError> {
        if !self.can_reconnect {
            return Err(ReconnectError::NotSupported);
        }
        let request = unsolicited::reconnect_request(self.parts.chunk_size, tc_url, description);
        let mut after_start = self.after_start.lock();
        if let Some(waiting) = &mut *after_start {
            waiting.extend(request);
            return Ok(());
        }
        drop(after_start);
        if self.parts.outbound.try_send(&request) {
            Ok(())
        } else {
            Err(ReconnectError::NotReading)
        }
    }

    /// Sends the messages that had to wait for the answer to `publish`, which is sent now.
    pub(crate) fn note_started(&self) {
        let waiting = self.after_start.lock().take();
        if let Some(waiting) = waiting.filter(|waiting| !waiting.is_empty()) {
            self.parts.outbound.try_send(&waiting);
        }
    }

    pub(crate) fn end_timer(&self) -> TimerId {
        self.end_timer
    }

    pub(crate) fn dismissal(&self) -> Option<RemovalReason> {
        self.dismissal.get().copied()
    }

    /// Fixes the reason of the dismissal. The first one counts.
    pub(crate) fn mark(&self, reason: RemovalReason) {
        let _ = self.dismissal.set(reason);
    }

    /// Sends the client the reason, and ends its connection a moment later.
    pub(crate) fn dismiss(&self, reason: RemovalReason) {
        self.mark(reason);
        self.send_dismissal();
        let socket = Arc::downgrade(&self.parts.socket);
        let disconnect = move |_| {
            if let Some(socket) = socket.upgrade() {
                let _ = socket.shutdown(Shutdown::Both);
            }
        };
        let deadline = Instant::now() + DISMISSAL_TIME;
        let timers = &self.parts.timers;
        timers.set(self.dismissal_timer, deadline, Box::new(disconnect));
    }

    /// Sends the client the reason of its dismissal. A second caller waits until that is written.
    pub(crate) fn send_dismissal(&self) {
        self.dismissal_sent.call_once(|| {
            let ConnectionParts {
                outbound,
                chunk_size,
                ..
            } = &self.parts;
            if let Some(status) = self.dismissal().and_then(RemovalReason::status) {
                outbound.try_send(&unsolicited::status(*chunk_size, self.msid, &status));
            }
            outbound.finish();
        });
    }

    /// Ends the connection at once.
    pub(crate) fn disconnect(&self, reason: RemovalReason) {
        self.mark(reason);
        let _ = self.parts.socket.shutdown(Shutdown::Both);
    }
}

impl Drop for PublisherHandle {
    fn drop(&mut self) {
        self.parts.timers.clear(self.dismissal_timer);
        self.parts.timers.clear(self.end_timer);
    }
}

/// A contender's wait for a sign of life.
#[derive(Debug)]
pub(crate) struct Contention {
    handle: Arc<PublisherHandle>,
    since: Instant,
    /// Bytes received and waiting to be read when the wait began. More of them are new.
    known_bytes: u64,
    /// The publisher counted as stalled when the wait began.
    is_stalled: bool,
}

/// Bytes that are read sooner than this may have been on their way before: the end of a killed
/// process takes the system about as long.
const MIN_PROOF_AGE: Duration = Duration::from_millis(5);

/// A publisher that sends nothing for this long does not prove that it lives.
pub(crate) const MAX_PROOF_WAIT: Duration = Duration::from_millis(500);

impl Contention {
    pub(crate) fn new(handle: &Arc<PublisherHandle>, is_stalled: bool) -> Self {
        let activity = &handle.activity;
        activity.contenders.fetch_add(1, Ordering::SeqCst);
        let received = activity.received_bytes.load(Ordering::SeqCst);
        Contention {
            handle: handle.clone(),
            since: Instant::now(),
            known_bytes: received + handle.unread_bytes(),
            is_stalled,
        }
    }

    pub(crate) fn is_about(&self, handle: &Arc<PublisherHandle>) -> bool {
        Arc::ptr_eq(&self.handle, handle)
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.is_stalled
    }

    /// Returns true once bytes have arrived that were sent after the wait began.
    pub(crate) fn is_proven(&self) -> bool {
        let received = self.handle.activity.received_bytes.load(Ordering::SeqCst);
        received > self.known_bytes && self.since.elapsed() >= MIN_PROOF_AGE
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.since + MAX_PROOF_WAIT
    }
}

impl Drop for Contention {
    fn drop(&mut self) {
        let contenders = &self.handle.activity.contenders;
        contenders.fetch_sub(1, Ordering::SeqCst);
    }
}
