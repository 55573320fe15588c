// SPDX-License-Identifier: MPL-2.0

//! One TCP client: a thread that blocks in read, and nowhere else but in a full media queue, in a
//! write that has to wait for the client, or in a push that is about to be relieved.

mod admission;
mod capture_clock;
mod close;
mod collecting;
mod counters;
mod delivery;
mod frame_rate;
mod liveness;
mod phase;
mod read_buffer;
mod relief;
mod requests;
mod timer_table;

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use crate::flv::{FRONT_LENGTH, TRAILER_LENGTH, Tag, TagKind};
use crate::rtmp::Headroom;
use crate::rtmp::session::{AckDue, Media, MediaKind, Session, SessionConfig, SessionEvent};
use crate::server::config::ListenerSettings;
use crate::server::log::CAT;
use crate::server::port::state::{Accepted, Listed, ListenerState};
use crate::server::publisher::RemovalReason;
use crate::server::quality::LowFigures;
use crate::server::stream::publisher_handle::{ConnectionParts, DISMISSAL_TIME};
use crate::server::stream::queue::QueueEvent;
use crate::server::transport::{Received, Transport, TransportError, Wait};
use admission::Authorization;
use close::CloseReason;
use collecting::Collecting;
use counters::ConnectionCounters;
use delivery::Delivery;
use phase::{Phase, Published};
use read_buffer::ReadBuffer;
use relief::{ReliefSlot, Resume};
use timer_table::{Timer, TimerTable};

/// A client that is silent for this long may be waiting for an acknowledgement.
const ACK_PAUSE: Duration = Duration::from_millis(100);

/// A publisher that has announced a window gets an acknowledgement after this long without a byte from
/// here. rtmp2sink of GStreamer 1.29.1 gives up after five seconds without one, and a window lasts for
/// a minute at a low bitrate.
const MAX_QUIET: Duration = Duration::from_secs(2);

/// A client that does not accept a reply for this long is disconnected.
const MAX_BLOCKED: Duration = Duration::from_secs(5);

/// The body of a connection's thread.
pub(crate) fn run(accepted: Accepted, listed: Listed) {
    let address = accepted.address;
    match open(accepted, listed) {
        Ok(connection) => connection.begin(),
        Err(error) => gst::debug!(CAT, "Lost {address}: {error}"),
    }
}

/// Builds a connection on the heap, since it may move to another thread. Its parts cross the stack in
/// a frame that is gone when the conversation starts: a page of the stack that was touched once is the
/// connection's for good.
#[inline(never)]
fn open(accepted: Accepted, listed: Listed) -> io::Result<Box<Connection>> {
    Connection::new(accepted, listed).map(Box::new)
}

struct Connection {
    id: u64,
    address: SocketAddr,
    settings: ListenerSettings,
    listener: Arc<ListenerState>,
    parts: ConnectionParts,
    transport: Transport,
    session: Session,
    buffer: ReadBuffer,
    delivery: Delivery,
    collecting: Collecting,
    /// A load balancer has not sent the client's address, and its own has not been admitted.
    is_unadmitted: bool,
    authorization: Authorization,
    phase: Phase,
    timers: TimerTable,
    last_read: Instant,
    last_sent: Instant,
    /// End of the handling of the last read, which may have waited for the pipeline.
    idle_since: Instant,
    /// The time, where nothing has waited since it was read.
    present: Option<Instant>,
    /// A ping was sent since the client last sent something.
    is_pinged: bool,
    counters: ConnectionCounters,
    relief: Arc<ReliefSlot<Connection>>,
    /// The last field: the connection is listed until all else of it is gone.
    _listed: Listed,
}

impl Connection {
    fn new(accepted: Accepted, listed: Listed) -> io::Result<Self> {
        let Accepted {
            id,
            socket,
            address,
            settings,
            state,
        } = accepted;
        // On some systems an accepted socket does not block by default.
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        let config = SessionConfig {
            chunk_size: settings.chunk_size,
            max_message_size: settings.max_message_size,
            headroom: Headroom {
                front: FRONT_LENGTH,
                back: TRAILER_LENGTH,
            },
            seed: fastrand::u64(..),
            ..SessionConfig::default()
        };
        let now = Instant::now();
        let is_tls = state.tls().is_some() && !state.is_tls_optional();
        let transport = Transport::new(socket.clone(), state.proxy_protocol(), is_tls);
        let parts = ConnectionParts {
            socket,
            outbound: transport.outbound().clone(),
            timers: state.timer_service(),
            chunk_size: config.chunk_size,
        };
        let mut timers = TimerTable::default();
        timers.set(Timer::Handshake, Some(now + settings.handshake_timeout));
        Ok(Connection {
            id,
            address,
            settings,
            relief: ReliefSlot::new(id, state.clone()),
            listener: state,
            parts,
            transport,
            session: Session::new(config),
            buffer: ReadBuffer::default(),
            delivery: Delivery::new(id),
            collecting: Collecting::default(),
            is_unadmitted: false,
            authorization: Authorization::default(),
            phase: Phase::Negotiating,
            timers,
            last_read: now,
            last_sent: now,
            idle_since: now,
            present: None,
            is_pinged: false,
            counters: ConnectionCounters::new(&config, now),
            _listed: listed,
        })
    }

    fn begin(mut self: Box<Self>) {
        gst::trace!(CAT, "{} has connected", self.address);
        let listener = self.listener.clone();
        let started = match listener.tls() {
            Some(tls) if listener.is_tls_optional() => {
                self.transport.offer_tls(tls.clone());
                Ok(())
            }
            Some(tls) => self.transport.start_tls(tls),
            None => Ok(()),
        };
        match started {
            Ok(()) => self.converse(),
            Err(error) => self.close(&error.into()),
        }
    }

    /// Reads and answers until the end, or until another thread continues.
    fn converse(mut self: Box<Self>) {
        loop {
            let turn = self.turn();
            let stream = match self.phase.published() {
                Some(published) if self.delivery.is_due() => Some(published.stream.clone()),
                _ => None,
            };
            if let Err(reason) = turn {
                if let Some(stream) = stream {
                    stream.queue().announce();
                }
                return self.close(&reason);
            }
            if let Some(stream) = stream {
                self.delivery.set_delivered();
                let relief = self.relief.clone();
                let Some((connection, ended)) = relief.deliver(self, &stream) else {
                    return;
                };
                self = connection;
                self.note_handled(ended);
            }
        }
    }

    fn close(mut self: Box<Self>, reason: &CloseReason) {
        let ended = Instant::now();
        // Load balancers and monitors open connections and close them again: not worth a line.
        let is_probe = !self.counters.has_received() && reason.is_by_client();
        if is_probe {
            gst::trace!(CAT, "{} is closed: {reason}", self.address);
        } else {
            gst::info!(CAT, "{} is closed: {reason}", self.address);
        }
        self.note_last_error(reason);
        if self.phase.published().is_none() {
            let is_challenged = self.authorization.is_challenged();
            let has_sent = self.counters.has_received();
            let event = reason.event(self.address, is_challenged, has_sent);
            event.iter().for_each(|event| self.listener.post(event));
        }
        // The stream ends now; sending the reason may take a moment.
        let handle = self.phase.published().map(|p| p.handle.clone());
        self.leave(reason.removal());
        self.authorization.withdraw();
        match reason {
            CloseReason::Dismissed(_) => {
                if let Some(handle) = handle {
                    handle.send_dismissal();
                }
                self.wait_for_close(ended + DISMISSAL_TIME);
            }
            CloseReason::Refused(_) => {
                self.parts.outbound.finish();
                self.wait_for_close(ended + DISMISSAL_TIME);
            }
            _ => {}
        }
    }

    /// Reads once, and handles what was read.
    fn turn(&mut self) -> Result<(), CloseReason> {
        self.prepare_read()?;
        let mut buffer = self.buffer.take();
        let result = self.read(&mut buffer);
        let mut filled = 0;
        let outcome = match result {
            Ok(Received::Data(count)) => {
                filled = count;
                self.received(&buffer[..count], count == buffer.len())
            }
            Ok(Received::Nothing) => Ok(()),
            Ok(Received::Header(source)) => self.set_source(source),
            Ok(Received::End) => Err(CloseReason::Closed),
            Err(TransportError::Io(error)) if liveness::has_vanished(&error) => {
                Err(CloseReason::Vanished)
            }
            Err(TransportError::Io(error)) => match error.kind() {
                io::ErrorKind::Interrupted => Ok(()),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    self.collecting.note_silence();
                    self.handle_timers()
                }
                // A client that closes with unread data resets the connection. That is an end.
                io::ErrorKind::ConnectionReset => Err(CloseReason::Closed),
                _ => Err(TransportError::Io(error).into()),
            },
            Err(error) => Err(error.into()),
        };
        self.buffer.put_back(buffer, filled);
        self.check_dismissal()?;
        outcome
    }

    /// Ends the conversation if another thread has dismissed this publisher.
    fn check_dismissal(&self) -> Result<(), CloseReason> {
        let Some(published) = self.phase.published() else {
            return Ok(());
        };
        match published.handle.dismissal() {
            None => Ok(()),
            Some(RemovalReason::Timeout) => {
                Err(CloseReason::Timeout(published.stream.settings().timeout))
            }
            Some(reason) => Err(CloseReason::Dismissed(reason)),
        }
    }

    /// Reads. Before it would wait, earlier items that are due have to be delivered, and media that is
    /// collected takes with it what the last read has left.
    fn read(&mut self, buffer: &mut [u8]) -> Result<Received, TransportError> {
        let has_unannounced = self.delivery.is_unannounced();
        let published = self.phase.published().filter(|_| has_unannounced);
        let has_left_more = self.collecting.is_on() && self.transport.may_have_left_more();
        if published.is_some() || has_left_more {
            match self.transport.read(buffer, Wait::Poll) {
                Err(TransportError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Some(published) = published {
                        self.delivery.announce(&published.stream);
                        if self.delivery.is_due() {
                            return Ok(Received::Nothing);
                        }
                    }
                }
                result => return result,
            }
        }
        self.transport.read(buffer, Wait::Block)
    }

    /// Handles the PROXY header of a load balancer.
    fn set_source(&mut self, source: Option<SocketAddr>) -> Result<(), CloseReason> {
        match source {
            Some(source) => {
                gst::debug!(CAT, "{} is behind {}", source, self.address);
                self.address = SocketAddr::new(source.ip().to_canonical(), source.port());
                self.admit_address()
            }
            // The balancer's own connection. A health check sends nothing more.
            None => {
                self.is_unadmitted = true;
                Ok(())
            }
        }
    }

    fn admit_address(&self) -> Result<(), CloseReason> {
        let (address, max) = (self.address.ip(), self.settings.max_clients_per_address);
        Ok(self.listener.admit_address(self.id, address, max)?)
    }

    fn received(&mut self, bytes: &[u8], is_filled: bool) -> Result<(), CloseReason> {
        if std::mem::take(&mut self.is_unadmitted) {
            self.admit_address()?;
        }
        let arrival = Instant::now();
        self.last_read = arrival;
        if std::mem::take(&mut self.is_pinged) {
            liveness::limit_unacknowledged(&self.parts.socket, None);
        }
        self.counters.received(bytes.len(), arrival);
        if let Some(published) = self.phase.published()
            && published.handle.note_bytes(bytes.len(), arrival)
        {
            published.stream.notify_contenders();
        }
        let outcome = self.read_events(bytes, arrival);
        if self.session.ack_due() == AckDue::Now || self.has_been_quiet(arrival) {
            self.session.acknowledge();
        }
        let patience = match outcome {
            Err(CloseReason::Refused(_)) => DISMISSAL_TIME,
            _ => MAX_BLOCKED,
        };
        self.collecting.note_read();
        let more_is_likely = is_filled && outcome.is_ok();
        // A reply says that all before it has arrived: a client may leave then. It goes first only where
        // the media has to wait for space in the queue.
        let has_replies = !self.session.output().is_empty();
        let is_early = has_replies && self.delivery.fits(self.phase.published());
        let early = is_early.then(|| self.hand_over(more_is_likely));
        let flushed = self.flush(patience);
        // Also the media of a client that reads no reply.
        let handed_over = early.unwrap_or_else(|| self.hand_over(more_is_likely));
        if is_early {
            self.update_stats();
        }
        flushed.and(handed_over)?;
        if !self.delivery.is_due() {
            self.note_handled(Instant::now());
        }
        outcome
    }

    /// Returns true where a publisher with a window has not got a byte for too long.
    fn has_been_quiet(&self, now: Instant) -> bool {
        self.session.in_window_ack_size() > 0
            && self.session.is_publishing()
            && now.saturating_duration_since(self.last_sent) >= MAX_QUIET
    }

    /// Notes the end of the handling of a read, just now.
    fn note_handled(&mut self, now: Instant) {
        self.idle_since = now;
        self.present = Some(now);
        self.set_timers();
    }

    fn read_events(&mut self, bytes: &[u8], arrival: Instant) -> Result<(), CloseReason> {
        let mut input = bytes;
        while let Some(event) = self.session.read(&mut input)? {
            match event {
                SessionEvent::Media(media) => self.media(media, arrival),
                event => self.handle(event, arrival)?,
            }
        }
        let abandoned = self.session.take_abandoned();
        if abandoned > 0 {
            self.counters.skipped(abandoned);
            gst::debug!(CAT, "{}: {abandoned} incomplete messages", self.address);
        }
        Ok(())
    }

    fn handle(&mut self, event: SessionEvent, arrival: Instant) -> Result<(), CloseReason> {
        match event {
            SessionEvent::Media(media) => self.media(media, arrival),
            SessionEvent::Connect(request) => return self.connect(&request),
            SessionEvent::Announce(request) => return self.announce(&request),
            SessionEvent::Publish(request) => {
                self.leave(RemovalReason::Unpublished);
                return self.publish(&request);
            }
            SessionEvent::Unpublish => self.unpublish(arrival)?,
            SessionEvent::Refused(reason) => return Err(CloseReason::Refused(reason.to_owned())),
            SessionEvent::Ignored(ignored) => {
                self.counters.skipped(ignored.messages());
                gst::debug!(CAT, "{}: ignored {ignored:?}", self.address);
            }
        }
        Ok(())
    }

    #[inline]
    fn media(&mut self, media: Media, arrival: Instant) {
        let kind = match media.kind {
            MediaKind::Audio => TagKind::Audio,
            MediaKind::Video => TagKind::Video,
            MediaKind::Data => TagKind::Script,
        };
        match Tag::check(kind, &media.payload) {
            Ok(info) => {
                let mut tag = Tag::checked(kind, info, media.timestamp, media.payload);
                self.delivery.read(&mut tag, arrival);
                self.counters.count(&tag, arrival);
                self.collecting.note_tag(&tag, arrival);
                self.delivery.add(tag, arrival);
            }
            Err(error) => {
                self.counters.skipped(1);
                gst::debug!(CAT, "{}: skipped {kind:?}: {error}", self.address);
            }
        }
    }

    fn flush(&mut self, patience: Duration) -> Result<(), CloseReason> {
        let output = self.session.output();
        if !output.is_empty() {
            let (replies, droppable) = (output.take_replies(), output.take_droppable());
            if !self.parts.outbound.send(&replies, &droppable, patience)? {
                output.keep_pong();
            }
            self.last_sent = Instant::now();
            if let Some(published) = self.phase.published() {
                published.handle.note_started();
            }
        }
        Ok(())
    }

    /// Moves the media of a read to the queue.
    fn hand_over(&mut self, more_is_likely: bool) -> Result<(), CloseReason> {
        self.update_stats();
        self.post_verdicts();
        let (published, partial) = (self.phase.published(), self.session.partial_media());
        self.delivery
            .hand_over(published, partial, self.last_read, more_is_likely)?;
        Ok(())
    }

    fn update_stats(&mut self) {
        if let Some(published) = self.phase.published() {
            let sent = self.parts.outbound.total();
            let capture = self.delivery.capture_stats();
            let stats = self
                .counters
                .stats(&self.session, capture, sent, self.last_read);
            published.stream.set_stats(self.id, stats);
            if self.counters.take_skipped() {
                published.stream.queue().note_drop();
            }
        }
    }

    /// Measures the publisher against the limits of its stream.
    fn limit_quality(&mut self) {
        if let Phase::Publishing(published) = &self.phase
            && self.counters.limit_quality(published.settings.quality)
        {
            published.stream.set_quality(self.id, LowFigures::default());
            self.post_verdicts();
        }
    }

    /// Reports the figures that are beyond their limits, or within them again.
    fn post_verdicts(&mut self) {
        let Some((verdicts, low)) = self.counters.take_quality() else {
            return;
        };
        if let Some(published) = self.phase.published() {
            published.stream.set_quality(self.id, low);
            let queue = published.stream.queue();
            let events = verdicts.into_iter().map(QueueEvent::Quality);
            events.for_each(|event| queue.post(event));
        }
    }

    /// Sets the timers of a publisher, after a read or a change of its settings.
    fn set_timers(&mut self) {
        let Phase::Publishing(published) = &mut self.phase else {
            return;
        };
        let has_changed = published.update_settings();
        published.set_timers(&mut self.timers, self.idle_since, self.is_pinged);
        if has_changed {
            self.limit_quality();
        }
        let pause = match self.session.ack_due() {
            AckDue::WhenIdle => Some(ACK_PAUSE),
            _ if self.session.in_window_ack_size() > 0 => Some(MAX_QUIET),
            _ => None,
        };
        let ack = pause.map(|pause| self.idle_since + pause);
        self.timers.set(Timer::Ack, ack);
    }

    /// Sets for how long and for how much the next read may wait. Mostly there is nothing to set.
    fn prepare_read(&mut self) -> Result<(), CloseReason> {
        if !self.session.is_publishing() {
            // The client's system may hold its next small write back until the acknowledgement of
            // this one, which would be delayed otherwise.
            let _ = sockopt::set_tcp_quickack(&*self.parts.socket, true);
            self.handle_timers()?;
        }
        let now = self.present.take().unwrap_or_else(Instant::now);
        let collecting = match &self.phase {
            Phase::Publishing(published) => {
                let interval = published.settings.delivery_interval;
                self.collecting.longest_wait(self.last_read, interval)
            }
            _ => None,
        };
        let socket = &self.parts.socket;
        self.collecting.set_low_water(socket, collecting.is_some());
        if let Some(timeout) = self.timers.change_read_timeout(now, collecting) {
            let set = self.parts.socket.set_read_timeout(timeout);
            set.map_err(TransportError::Io)?;
        }
        Ok(())
    }

    /// Handles the timers that are due.
    fn handle_timers(&mut self) -> Result<(), CloseReason> {
        if let Phase::Publishing(published) = &mut self.phase
            && published.update_settings()
        {
            self.limit_quality();
            self.set_timers();
        }
        let mut is_due = false;
        while let Some(timer) = self.timers.take_due(Instant::now()) {
            is_due = true;
            match timer {
                Timer::Handshake if self.authorization.is_challenged() => {
                    return Err(CloseReason::NotAuthenticated);
                }
                Timer::Handshake => {
                    let timeout = self.settings.handshake_timeout;
                    return Err(CloseReason::HandshakeTimeout(timeout));
                }
                Timer::Closing => self.leave(RemovalReason::Unpublished),
                Timer::Timeout => {
                    let published = self.phase.published();
                    let timeout = published.map(|published| published.settings.timeout);
                    return Err(CloseReason::Timeout(timeout.unwrap_or_default()));
                }
                Timer::Stall => {
                    if let Phase::Publishing(Published { stream, handle, .. }) = &self.phase {
                        stream.post_stalled(handle, self.last_read);
                    }
                }
                Timer::Ping => self.ping(),
                Timer::Ack => {
                    self.session.acknowledge();
                    if self.session.in_window_ack_size() > 0 {
                        let next = Instant::now() + MAX_QUIET;
                        self.timers.set(Timer::Ack, Some(next));
                    }
                }
            }
        }
        if is_due {
            self.flush(MAX_BLOCKED)?;
        }
        Ok(())
    }

    fn ping(&mut self) {
        let Phase::Publishing(published) = &self.phase else {
            return;
        };
        if !std::mem::replace(&mut self.is_pinged, true) {
            let silence = self.last_read.elapsed();
            self.session.ping(silence.as_millis() as u32);
            let patience = liveness::ping_after(published.settings.timeout);
            liveness::limit_unacknowledged(&self.parts.socket, Some(patience));
        }
    }

    /// Notes for elements why the connection ended, unless they know it already.
    fn note_last_error(&self, reason: &CloseReason) {
        let is_publishing = self.session.is_publishing();
        let has_sent = self.counters.has_received();
        let Some(text) = reason.last_error(is_publishing, has_sent) else {
            return;
        };
        match self.phase.published() {
            Some(published) => published.stream.set_last_error(self.address, text),
            None => admission::note_last_error(&self.listener, self.address, &text),
        }
    }

    /// Lets a dismissed or refused client read the reason. Closing at once, with unread data of the
    /// client, would reset the connection and discard the reason.
    fn wait_for_close(&mut self, deadline: Instant) {
        let mut buffer = self.buffer.take();
        self.transport.discard_until(deadline, &mut buffer);
    }
}

impl Resume for Connection {
    fn resume(mut self: Box<Self>) {
        self.note_handled(Instant::now());
        self.converse();
    }
}

impl Drop for Connection {
    /// Also in a panic: nobody may wait for this publisher.
    fn drop(&mut self) {
        self.leave(RemovalReason::Closed);
        self.authorization.withdraw();
        let _ = self.parts.socket.shutdown(Shutdown::Both);
    }
}
