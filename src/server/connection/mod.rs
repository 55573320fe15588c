// SPDX-License-Identifier: MPL-2.0

//! One TCP client: a thread that blocks in read, and nowhere else but in a full media queue or a
//! write that has to wait for the client.

mod admission;
mod close;
mod counters;
mod delivery;
mod frame_rate;
mod liveness;
mod phase;
mod read_buffer;
mod timer_table;

use std::convert::Infallible;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use crate::flv::{FRONT_LENGTH, TRAILER_LENGTH, Tag, TagKind};
use crate::rtmp::Headroom;
use crate::rtmp::session::{
    AckDue, ConnectRequest, Media, MediaKind, PublishRequest, Session, SessionConfig, SessionEvent,
};
use crate::server::config::ListenerSettings;
use crate::server::log::CAT;
use crate::server::port::connection_table::Stage;
use crate::server::port::state::{Accepted, ListenerState};
use crate::server::publisher::RemovalReason;
use crate::server::routing::publish_point::Reservation;
use crate::server::stream::publisher_handle::{ConnectionParts, FAREWELL, PublisherHandle};
use crate::server::transport::{Received, Transport, TransportError, Wait};
use admission::{Authorization, Client, ConnectDecision, Denial, Rejection, shown};
use close::CloseReason;
use counters::ConnectionCounters;
use delivery::Delivery;
use phase::{Phase, Published};
use read_buffer::ReadBuffer;
use timer_table::{Timer, TimerTable};

/// A client that is silent for this long may be waiting for an acknowledgement.
const ACK_PAUSE: Duration = Duration::from_millis(100);

/// Time for a publisher that has ended its stream to close its connection, before the stream ends
/// here too. Closing it from this side is an error to rtmp2sink.
const CLOSING_GRACE: Duration = Duration::from_millis(100);

/// Time for a client that was challenged to answer on the same connection. Most connect again.
const SECOND_CONNECT: Duration = Duration::from_secs(2);

/// A client that does not accept a reply for this long is disconnected.
const MAX_BLOCKED: Duration = Duration::from_secs(5);

/// The body of a connection's thread.
pub(crate) fn run(accepted: Accepted) {
    let address = accepted.address;
    match Connection::new(accepted) {
        // On the heap, so that moving it does not touch the small stack twice over.
        Ok(connection) => Box::new(connection).run(),
        Err(error) => gst::debug!(CAT, "Lost {address}: {error}"),
    }
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
    /// A load balancer has not sent the client's address, and its own has not been admitted.
    is_unadmitted: bool,
    authorization: Authorization,
    phase: Phase,
    timers: TimerTable,
    last_read: Instant,
    /// End of the handling of the last read, which may have waited for the pipeline.
    idle_since: Instant,
    /// A ping was sent since the client last sent something.
    is_pinged: bool,
    counters: ConnectionCounters,
}

impl Connection {
    fn new(accepted: Accepted) -> io::Result<Self> {
        let Accepted {
            id,
            socket,
            address,
            settings,
            state,
        } = accepted;
        // Not every system gives a blocking socket here.
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
        let is_tls = state.tls().is_some();
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
            listener: state,
            parts,
            transport,
            session: Session::new(config),
            buffer: ReadBuffer::default(),
            delivery: Delivery::new(id),
            is_unadmitted: false,
            authorization: Authorization::default(),
            phase: Phase::Negotiating,
            timers,
            last_read: now,
            idle_since: now,
            is_pinged: false,
            counters: ConnectionCounters::new(&config, now),
        })
    }

    fn run(mut self) {
        gst::trace!(CAT, "{} has connected", self.address);
        let listener = self.listener.clone();
        let started = match listener.tls() {
            Some(tls) => self.transport.start_tls(tls),
            None => Ok(()),
        };
        let Err(reason) = started
            .map_err(CloseReason::from)
            .and_then(|()| self.converse());
        let ended = Instant::now();
        // Load balancers and monitors open connections and close them again: not worth a line.
        let is_probe = !self.counters.has_received() && reason.is_by_client();
        if is_probe {
            gst::trace!(CAT, "{} is closed: {reason}", self.address);
        } else {
            gst::info!(CAT, "{} is closed: {reason}", self.address);
        }
        self.note_last_error(&reason);
        // The stream ends now; the farewell may take a moment.
        let handle = self.phase.published().map(|p| p.handle.clone());
        self.leave(reason.removal());
        self.authorization.withdraw();
        match reason {
            CloseReason::Dismissed(_) => {
                if let Some(handle) = handle {
                    handle.say_farewell();
                }
                self.wait_for_close(ended + FAREWELL);
            }
            CloseReason::Refused(_) => {
                self.parts.outbound.finish();
                self.wait_for_close(ended + FAREWELL);
            }
            _ => {}
        }
    }

    fn converse(&mut self) -> Result<Infallible, CloseReason> {
        loop {
            self.arm_read_timeout()?;
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
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => self.handle_timers(),
                    // A client that closes with unread data resets the connection. That is an end.
                    io::ErrorKind::ConnectionReset => Err(CloseReason::Closed),
                    _ => Err(TransportError::Io(error).into()),
                },
                Err(error) => Err(error.into()),
            };
            self.buffer.give_back(buffer, filled);
            self.check_dismissal()?;
            outcome?;
        }
    }

    /// Ends the conversation where another thread has decided that this publisher has to go.
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

    /// Reads, and wakes the streaming thread for earlier items before it waits.
    fn read(&mut self, buffer: &mut [u8]) -> Result<Received, TransportError> {
        if self.delivery.is_unannounced()
            && let Some(published) = self.phase.published()
        {
            match self.transport.read(buffer, Wait::Poll) {
                Err(TransportError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.delivery.announce(&published.stream);
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
        if self.session.ack_due() == AckDue::Now {
            self.session.acknowledge();
        }
        // Replies first: handing over may have to wait for space in the queue.
        let patience = match outcome {
            Err(CloseReason::Refused(_)) => FAREWELL,
            _ => MAX_BLOCKED,
        };
        self.flush(patience)?;
        self.hand_over(is_filled && outcome.is_ok())?;
        self.idle_since = Instant::now();
        self.set_timers();
        outcome
    }

    fn read_events(&mut self, bytes: &[u8], arrival: Instant) -> Result<(), CloseReason> {
        let mut input = bytes;
        while let Some(event) = self.session.read(&mut input)? {
            self.handle(event, arrival)?;
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
                self.counters.skipped();
                gst::debug!(CAT, "{}: ignored {ignored:?}", self.address);
            }
        }
        Ok(())
    }

    fn client(&self) -> Client {
        Client {
            id: self.id,
            address: self.address,
            tls: self.transport.is_tls(),
        }
    }

    fn connect(&mut self, request: &Arc<ConnectRequest>) -> Result<(), CloseReason> {
        let client = self.client();
        let decision = self.authorization.connect(&self.listener, client, request);
        // A publisher that connects again keeps its stream, and its timers.
        let is_negotiating = matches!(self.phase, Phase::Negotiating);
        match decision {
            ConnectDecision::Accept {
                codecs,
                is_authenticated,
            } => {
                if is_authenticated && is_negotiating {
                    self.set_handshake_timer();
                }
                self.session.accept_connect(&codecs);
                Ok(())
            }
            ConnectDecision::Challenge(status) => {
                self.session.reject_connect(&status);
                if is_negotiating {
                    let deadline = Instant::now() + SECOND_CONNECT;
                    let earlier = self.timers.get(Timer::Handshake);
                    let deadline = earlier.map_or(deadline, |earlier| earlier.min(deadline));
                    self.timers.set(Timer::Handshake, Some(deadline));
                }
                Ok(())
            }
            ConnectDecision::Reject(rejection) => {
                self.session.reject_connect(&rejection.status);
                Err(refused(*rejection))
            }
        }
    }

    fn set_handshake_timer(&mut self) {
        let deadline = Instant::now() + self.settings.handshake_timeout;
        self.timers.set(Timer::Handshake, Some(deadline));
    }

    /// Handles `FCPublish`. Some clients wait for its confirmation. While the client publishes the
    /// command is answered, and changes nothing.
    fn announce(&mut self, request: &PublishRequest) -> Result<(), CloseReason> {
        if self.phase.published().is_some() {
            return Ok(());
        }
        match self.authorize_publish(request) {
            Ok(_) => self.session.confirm_announcement(),
            Err(Denial::Rejected(rejection)) => {
                self.session.reject_announcement(&rejection.status);
            }
            Err(Denial::Evicted) => return Err(CloseReason::Stopped),
        }
        Ok(())
    }

    fn authorize_publish(&mut self, request: &PublishRequest) -> Result<Reservation, Denial> {
        let mut authorization = std::mem::take(&mut self.authorization);
        let (listener, client) = (self.listener.clone(), self.client());
        let authorized =
            authorization.authorize_publish(&listener, client, request, |point, publisher| {
                // An evicted client is not asked about.
                if !self.enter(Phase::Authorizing) {
                    return None;
                }
                let start = Instant::now();
                let may_publish = point.may_publish(publisher);
                // The application's time does not count against the client's deadline.
                let deadline = self.timers.get(Timer::Handshake);
                let deadline = deadline.map(|deadline| deadline + start.elapsed());
                self.timers.set(Timer::Handshake, deadline);
                self.enter(Phase::Negotiating).then_some(may_publish)
            });
        self.authorization = authorization;
        authorized
    }

    fn publish(&mut self, request: &PublishRequest) -> Result<(), CloseReason> {
        let authorized = self.authorize_publish(request);
        // The application's answer is for this request.
        let mut authorization = std::mem::take(&mut self.authorization);
        let published = match authorized {
            Ok(reservation) => self.start(reservation, request),
            Err(Denial::Rejected(rejection)) => self.reject(*rejection),
            Err(Denial::Evicted) => Err(CloseReason::Stopped),
        };
        authorization.withdraw();
        self.authorization = authorization;
        published
    }

    fn start(
        &mut self,
        mut reservation: Reservation,
        request: &PublishRequest,
    ) -> Result<(), CloseReason> {
        let can_reconnect = request.connect.can_reconnect();
        let msid = self.session.requested_msid();
        let handle = PublisherHandle::new(self.id, self.parts.clone(), msid, can_reconnect);
        let handle = Arc::new(handle);
        // The decision may have taken a while: a client that is gone must not take the stream.
        if handle.is_closing() {
            return Err(CloseReason::Closed);
        }
        // Publishers are not evicted, and an evicted client does not publish.
        if !self.listener.set_stage(self.id, Stage::Publishing) {
            return Err(CloseReason::Stopped);
        }
        let (stream, publisher) = match reservation.start(&handle) {
            Ok(started) => started,
            Err(reason) => {
                self.listener.set_stage(self.id, self.phase.stage());
                return self.reject(Rejection::of(reservation, reason));
            }
        };
        let rules = reservation.point().rules();
        gst::info!(
            CAT,
            "{} publishes {} to {}",
            self.address,
            shown(&publisher),
            rules.name,
        );
        self.session
            .set_max_message_size(rules.listener.max_message_size);
        liveness::watch(&self.parts.socket, stream.settings().timeout);
        self.phase = Phase::Publishing(Published::new(stream, handle));
        self.timers.clear_all();
        self.session.accept_publish();
        self.update_stats();
        Ok(())
    }

    fn reject(&mut self, rejection: Rejection) -> Result<(), CloseReason> {
        self.session.reject_publish(&rejection.status);
        Err(refused(rejection))
    }

    fn unpublish(&mut self, arrival: Instant) -> Result<(), CloseReason> {
        self.hand_over(false)?;
        match std::mem::replace(&mut self.phase, Phase::Negotiating) {
            Phase::Publishing(published) => {
                published.stream.unpublish(self.id);
                self.phase = Phase::Leaving(published);
                self.timers.clear_all();
                self.timers
                    .set(Timer::Closing, Some(arrival + CLOSING_GRACE));
            }
            other => self.phase = other,
        }
        Ok(())
    }

    fn media(&mut self, media: Media, arrival: Instant) {
        let kind = match media.kind {
            MediaKind::Audio => TagKind::Audio,
            MediaKind::Video => TagKind::Video,
            MediaKind::Data => TagKind::Script,
        };
        match Tag::new(kind, media.timestamp, media.payload) {
            Ok(mut tag) => {
                self.delivery.correct(&mut tag);
                self.counters.count(&tag, arrival);
                self.delivery.add(tag, arrival);
            }
            Err(error) => {
                self.counters.skipped();
                gst::debug!(CAT, "{}: skipped {kind:?}: {error}", self.address);
            }
        }
    }

    /// Ends the publish, if there is one.
    fn leave(&mut self, reason: RemovalReason) {
        let phase = std::mem::replace(&mut self.phase, Phase::Negotiating);
        if let Phase::Publishing(published) | Phase::Leaving(published) = phase {
            published.stream.leave(self.id, reason);
            self.listener.set_stage(self.id, self.phase.stage());
            self.timers.clear_all();
            self.set_handshake_timer();
            self.counters.reset(self.last_read);
            self.delivery.reset();
        }
    }

    /// Enters a phase without a publish. Returns false if the client has been evicted.
    fn enter(&mut self, phase: Phase) -> bool {
        self.phase = phase;
        self.listener.set_stage(self.id, self.phase.stage())
    }

    fn flush(&mut self, patience: Duration) -> Result<(), CloseReason> {
        let output = self.session.output();
        if !output.is_empty() {
            let (replies, droppable) = (output.take_replies(), output.take_droppable());
            if !self.parts.outbound.send(&replies, &droppable, patience)? {
                output.keep_pong();
            }
            if let Some(published) = self.phase.published() {
                published.handle.note_started();
            }
        }
        Ok(())
    }

    /// Moves the media of a read to the queue.
    fn hand_over(&mut self, more_is_likely: bool) -> Result<(), CloseReason> {
        self.update_stats();
        let (published, partial) = (self.phase.published(), self.session.partial_media());
        self.delivery
            .hand_over(published, partial, more_is_likely)?;
        Ok(())
    }

    fn update_stats(&mut self) {
        if let Some(published) = self.phase.published() {
            let sent = self.parts.outbound.total();
            let stats = self.counters.stats(&self.session, sent, self.last_read);
            published.stream.set_stats(self.id, stats);
        }
    }

    /// Sets the timers of a publisher, after a read or a change of its settings.
    fn set_timers(&mut self) {
        let Phase::Publishing(published) = &mut self.phase else {
            return;
        };
        published.update_settings();
        published.set_timers(&mut self.timers, self.idle_since, self.is_pinged);
        let has_ack = self.session.ack_due() == AckDue::WhenIdle;
        let ack = has_ack.then(|| self.idle_since + ACK_PAUSE);
        self.timers.set(Timer::Ack, ack);
    }

    /// Sets for how long the next read may wait. Mostly there is nothing to set.
    fn arm_read_timeout(&mut self) -> Result<(), CloseReason> {
        if !self.session.is_publishing() {
            // The client's system may hold its next small write back until the acknowledgement of
            // this one, which would be delayed otherwise.
            let _ = sockopt::set_tcp_quickack(&*self.parts.socket, true);
            self.handle_timers()?;
        }
        if let Some(timeout) = self.timers.change_read_timeout(Instant::now()) {
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
                Timer::Ack => self.session.acknowledge(),
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

    /// Notes for elements why the connection ended, unless they know.
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

    /// Lets a client that has to go read the reason. Closing at once, with unread data of the client,
    /// would reset the connection and discard the reason.
    fn wait_for_close(&mut self, deadline: Instant) {
        let mut buffer = self.buffer.take();
        self.transport.discard_until(deadline, &mut buffer);
    }
}

/// Notifies the affected elements of a rejection, and returns it as the reason to close.
fn refused(rejection: Rejection) -> CloseReason {
    let reason = CloseReason::Refused(rejection.to_string());
    rejection.notify();
    reason
}

impl Drop for Connection {
    /// Also in a panic: nobody may wait for this publisher.
    fn drop(&mut self) {
        self.leave(RemovalReason::Closed);
        self.authorization.withdraw();
        let _ = self.parts.socket.shutdown(Shutdown::Both);
    }
}
