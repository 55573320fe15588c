// SPDX-License-Identifier: MPL-2.0

//! One client: a thread that blocks in read, and never anywhere else but in a full media queue or
//! a write that has to wait for the client.

mod admission;
mod frame_rate;
mod liveness;
mod read_buffer;

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use crate::flv::{Content, FRONT_LENGTH, KeyframeDetector, TRAILER_LENGTH, Tag, TagKind};
use crate::rate::BitrateMeter;
use crate::rtmp::session::{AckDue, Media, MediaKind, Session, SessionConfig, SessionEvent};
use crate::rtmp::{Headroom, Violation};
use crate::server::log::CAT;
use crate::server::port::connection_table::Stage;
use crate::server::port::listener::{FAREWELL, ListenerSettings, ListenerState, NotAllowed};
use crate::server::publisher::RemovalReason;
use crate::server::stream::ClientStats;
use crate::server::stream::Stream;
use crate::server::stream::publisher_handle::{Connection, PublisherHandle};
use crate::server::stream::queue::{QueueItem, Stopped};
use crate::server::transport::{Blocked, Received, Transport, TransportError, Wait};
use admission::Authorization;
use frame_rate::FrameMeter;
use read_buffer::ReadBuffer;

/// A client that is silent for this long may be waiting for an acknowledgement.
const ACK_PAUSE: Duration = Duration::from_millis(100);

/// How long a publisher that has ended its stream may take to close its connection before the
/// stream ends here too. Closing it from this side is an error to rtmp2sink.
const CLOSING_GRACE: Duration = Duration::from_millis(100);

/// A client that does not take a reply for this long is dropped.
const MAX_BLOCKED: Duration = Duration::from_secs(5);

/// Why a conversation is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CloseReason {
    #[error("it has closed the connection")]
    Closed,
    #[error("{0}")]
    Transport(#[from] TransportError),
    #[error("{0}")]
    Violation(#[from] Violation),
    #[error("{0}")]
    Refused(String),
    #[error("it did not publish within {0:?}")]
    HandshakeTimeout(Duration),
    #[error("it sent nothing for {0:?}")]
    Timeout(Duration),
    #[error("its end of the connection has vanished")]
    Vanished,
    #[error("{0}")]
    NotAllowed(#[from] NotAllowed),
    #[error("it did not answer the challenge")]
    NotAuthenticated,
    #[error("it does not read its replies")]
    Blocked,
    #[error("it had to go: {}", .0.nick())]
    Dismissed(RemovalReason),
    #[error("it had to go")]
    Stopped,
}

impl CloseReason {
    fn removal(&self) -> RemovalReason {
        match self {
            CloseReason::Closed | CloseReason::Transport(_) | CloseReason::Blocked => {
                RemovalReason::Closed
            }
            CloseReason::Violation(_) | CloseReason::Refused(_) => RemovalReason::Violation,
            CloseReason::HandshakeTimeout(_) | CloseReason::Timeout(_) | CloseReason::Vanished => {
                RemovalReason::Timeout
            }
            CloseReason::Dismissed(removal) => *removal,
            // These do not publish, or the element has seen to it already.
            CloseReason::NotAllowed(_) | CloseReason::NotAuthenticated | CloseReason::Stopped => {
                RemovalReason::Stopped
            }
        }
    }

    /// Whether the client has gone by itself.
    fn is_loss(&self) -> bool {
        matches!(
            self,
            CloseReason::Closed | CloseReason::Transport(TransportError::Io(_))
        )
    }
}

impl From<Blocked> for CloseReason {
    fn from(_: Blocked) -> Self {
        CloseReason::Blocked
    }
}

impl From<Stopped> for CloseReason {
    fn from(_: Stopped) -> Self {
        CloseReason::Stopped
    }
}

pub(crate) struct Client {
    id: u64,
    address: SocketAddr,
    settings: ListenerSettings,
    connection: Connection,
    transport: Transport,
    session: Session,
    buffer: ReadBuffer,
    /// What one read brought, on its way to the media queue.
    batch: Vec<QueueItem>,
    /// The streaming thread has not been told yet of what is in the queue.
    unannounced: bool,
    /// It has come through a load balancer that did not say from where, and has not been looked at.
    is_unadmitted: bool,
    /// What was decided about it, while it is on its way to publish.
    decision: Authorization,
    /// Set while publishing.
    published: Option<Published>,
    /// When it has to publish, while it does not.
    deadline: Instant,
    last_read: Instant,
    /// The last read brought media.
    brought_media: bool,
    /// It was said that the publisher has stalled.
    is_stalled: bool,
    /// It was asked whether it is still there, since it sent something last.
    is_pinged: bool,
    /// What the socket's read timeout is set to.
    read_timeout: Option<Duration>,
    stats: ClientStats,
    meter: BitrateMeter,
    frame_meter: FrameMeter,
    keyframes: KeyframeDetector,
}

#[derive(Debug, Clone)]
struct Published {
    stream: Arc<Stream>,
    link: Arc<PublisherHandle>,
}

impl Client {
    pub(crate) fn new(
        id: u64,
        socket: Arc<TcpStream>,
        address: SocketAddr,
        settings: ListenerSettings,
        shared: Arc<ListenerState>,
    ) -> io::Result<Self> {
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
        let stats = ClientStats {
            out_chunk_size: config.chunk_size,
            out_window_ack_size: config.window_ack_size,
            ..ClientStats::default()
        };
        let is_tls = shared.tls().is_some();
        let transport = Transport::new(socket.clone(), shared.proxy_protocol(), is_tls);
        let connection = Connection {
            socket,
            outbound: transport.outbound().clone(),
            shared,
            chunk_size: config.chunk_size,
        };
        Ok(Client {
            id,
            address,
            settings,
            connection,
            transport,
            session: Session::new(config),
            buffer: ReadBuffer::default(),
            batch: Vec::new(),
            unannounced: false,
            is_unadmitted: false,
            decision: Authorization::default(),
            published: None,
            deadline: now + settings.handshake_timeout,
            last_read: now,
            brought_media: false,
            is_stalled: false,
            is_pinged: false,
            read_timeout: None,
            stats,
            meter: BitrateMeter::new(now),
            frame_meter: FrameMeter::default(),
            keyframes: KeyframeDetector::default(),
        })
    }

    /// The thread.
    pub(crate) fn run(mut self) {
        gst::trace!(CAT, "{} has connected", self.address);
        let shared = self.connection.shared.clone();
        let started = shared
            .tls()
            .map_or(Ok(()), |tls| self.transport.start_tls(tls));
        let Err(reason) = started
            .map_err(CloseReason::from)
            .and_then(|()| self.converse());
        // Load balancers and monitors open connections and close them again: not worth a line.
        let is_probe = self.stats.in_bytes_total == 0 && reason.is_loss();
        if is_probe {
            gst::trace!(CAT, "{} is closed: {reason}", self.address);
        } else {
            gst::info!(CAT, "{} is closed: {reason}", self.address);
        }
        self.report(&reason);
        // The stream ends now; the farewell may take a moment.
        let link = self.published.as_ref().map(|p| p.link.clone());
        self.leave(reason.removal());
        match reason {
            CloseReason::Dismissed(_) => {
                if let Some(link) = link {
                    link.say_goodbye();
                }
                self.wait_for_close(Instant::now());
            }
            CloseReason::Refused(_) => {
                self.connection.outbound.finish();
                self.wait_for_close(self.last_read);
            }
            _ => {}
        }
    }

    fn converse(&mut self) -> Result<std::convert::Infallible, CloseReason> {
        loop {
            self.arm_timeout()?;
            let mut buffer = self.buffer.take();
            let result = self.read(&mut buffer);
            let mut filled = 0;
            let outcome = match result {
                Ok(Received::Data(count)) => {
                    filled = count;
                    self.admit_deferred()
                        .and_then(|()| self.received(&buffer[..count], count == buffer.len()))
                }
                Ok(Received::Nothing) => Ok(()),
                Ok(Received::Header(source)) => self.announced(source),
                Ok(Received::End) => Err(CloseReason::Closed),
                Err(TransportError::Io(error)) if liveness::has_vanished(&error) => {
                    Err(CloseReason::Vanished)
                }
                Err(TransportError::Io(error)) => match error.kind() {
                    io::ErrorKind::Interrupted => Ok(()),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => self.silence(),
                    // Who closes with unread data resets the connection. That is an end too.
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

    /// Somebody else may have decided that this publisher has to go.
    fn check_dismissal(&self) -> Result<(), CloseReason> {
        let dismissal = self.published.as_ref().and_then(|p| p.link.dismissal());
        dismissal.map_or(Ok(()), |removal| Err(CloseReason::Dismissed(removal)))
    }

    /// Reads, and before it waits tells the streaming thread of what was read before.
    fn read(&mut self, buffer: &mut [u8]) -> Result<Received, TransportError> {
        if std::mem::take(&mut self.unannounced)
            && let Some(published) = &self.published
        {
            match self.transport.read(buffer, Wait::No) {
                Err(TransportError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    published.stream.queue().announce();
                }
                result => {
                    self.unannounced = true;
                    return result;
                }
            }
        }
        self.transport.read(buffer, Wait::Yes)
    }

    /// A load balancer has said whom it speaks for, or that it speaks for itself.
    fn announced(&mut self, source: Option<SocketAddr>) -> Result<(), CloseReason> {
        match source {
            Some(source) => {
                gst::debug!(CAT, "{} is behind {}", source, self.address);
                self.address = SocketAddr::new(source.ip().to_canonical(), source.port());
                self.admit_address(self.address)
            }
            // A health check says nothing more.
            None => {
                self.is_unadmitted = true;
                Ok(())
            }
        }
    }

    fn admit_deferred(&mut self) -> Result<(), CloseReason> {
        if std::mem::take(&mut self.is_unadmitted) {
            self.admit_address(self.address)?;
        }
        Ok(())
    }

    fn admit_address(&self, address: SocketAddr) -> Result<(), CloseReason> {
        let max = self.settings.max_clients_per_address;
        let Connection { shared, .. } = &self.connection;
        Ok(shared.admit_address(self.id, address.ip(), max)?)
    }

    fn received(&mut self, bytes: &[u8], filled: bool) -> Result<(), CloseReason> {
        let arrival = Instant::now();
        self.last_read = arrival;
        if std::mem::take(&mut self.is_pinged) {
            liveness::limit_unacknowledged(&self.connection.socket, None);
        }
        self.meter.count(bytes.len(), arrival);
        self.stats.in_bytes_total += bytes.len() as u64;
        let outcome = self.read_events(bytes, arrival);
        if self.session.ack_due() == AckDue::Now {
            self.session.acknowledge();
        }
        // Replies first: handing over may have to wait for room in the queue.
        let patience = match outcome {
            Err(CloseReason::Refused(_)) => FAREWELL,
            _ => MAX_BLOCKED,
        };
        self.flush(patience)?;
        self.hand_over(filled && outcome.is_ok())?;
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
            SessionEvent::Announce(request) => self.announce(&request),
            SessionEvent::Publish(request) => {
                self.leave(RemovalReason::Unpublished);
                return self.publish(&request);
            }
            SessionEvent::Unpublish => {
                self.hand_over(false)?;
                if let Some(published) = &self.published {
                    published.stream.set_leaving(self.id);
                }
                self.deadline = arrival + CLOSING_GRACE;
            }
            SessionEvent::Refused(reason) => return Err(CloseReason::Refused(reason.to_owned())),
            SessionEvent::Ignored(what) => {
                self.stats.skipped += 1;
                gst::debug!(CAT, "{}: ignored {what:?}", self.address);
            }
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
                self.keyframes.correct(&mut tag);
                self.count(&tag, arrival);
                self.batch.push(QueueItem::Tag {
                    tag,
                    arrival,
                    discont: false,
                });
            }
            Err(error) => {
                self.stats.skipped += 1;
                gst::debug!(CAT, "{}: skipped {kind:?}: {error}", self.address);
            }
        }
    }

    fn count(&mut self, tag: &Tag, arrival: Instant) {
        let stats = &mut self.stats;
        let (tags, bytes) = match tag.kind {
            TagKind::Audio => (&mut stats.audio_tags, &mut stats.audio_bytes),
            TagKind::Video => (&mut stats.video_tags, &mut stats.video_bytes),
            TagKind::Script => (&mut stats.script_tags, &mut stats.script_bytes),
        };
        *tags += 1;
        *bytes += tag.body().len() as u64;
        let is_keyframe = tag.info.content == Content::Keyframe;
        if is_keyframe {
            stats.keyframes += 1;
            stats.last_keyframe = Some(arrival);
        }
        if tag.kind == TagKind::Video && tag.info.is_coded() {
            let meter = &mut self.frame_meter;
            meter.count(tag.info.track, tag.timestamp, is_keyframe);
        }
    }

    /// Counts anew: what comes next is of another publisher, though of the same client.
    fn reset_stats(&mut self) {
        self.stats = ClientStats {
            out_chunk_size: self.stats.out_chunk_size,
            out_window_ack_size: self.stats.out_window_ack_size,
            ..ClientStats::default()
        };
        self.meter = BitrateMeter::new(self.last_read);
        self.frame_meter = FrameMeter::default();
        self.keyframes = KeyframeDetector::default();
    }

    fn leave(&mut self, removal: RemovalReason) {
        self.is_stalled = false;
        if let Some(Published { stream, .. }) = self.published.take() {
            stream.leave(self.id, removal);
            self.set_stage(Stage::Connected);
            self.reset_stats();
        }
    }

    /// False if the client has been cut off meanwhile.
    fn set_stage(&self, standing: Stage) -> bool {
        self.connection.shared.set_stage(self.id, standing)
    }

    fn flush(&mut self, patience: Duration) -> Result<(), CloseReason> {
        let output = self.session.output();
        if !output.is_empty() {
            let (replies, droppable) = (output.take_replies(), output.take_droppable());
            let Connection { outbound, .. } = &self.connection;
            if !outbound.send(&replies, &droppable, patience)? {
                output.keep_pong();
            }
            if let Some(Published { link, .. }) = &self.published {
                link.has_started();
            }
        }
        Ok(())
    }

    /// Puts the batch into the queue. A read that filled its buffer has probably left more behind,
    /// and waking the streaming thread for each of those would cost more than all else.
    fn hand_over(&mut self, more_is_likely: bool) -> Result<(), CloseReason> {
        self.update_stats();
        let Some(Published { stream, link }) = &self.published else {
            self.batch.clear();
            return Ok(());
        };
        let has_tags = !self.batch.is_empty();
        let is_media = |item: &QueueItem| matches!(item, QueueItem::Tag { tag, .. } if tag.kind != TagKind::Script);
        // A large frame on a slow network takes its time, and is media all the while.
        let has_media = self.batch.iter().any(is_media) || self.session.buffered() > 0;
        if has_media && std::mem::take(&mut self.is_stalled) {
            stream.queue().note(self.id, QueueItem::Resumed);
        }
        if more_is_likely {
            stream.queue().push_quietly(self.id, &mut self.batch)?;
        } else if self.unannounced || has_tags {
            stream.queue().push(self.id, &mut self.batch)?;
        }
        self.brought_media = has_media;
        if has_media {
            link.media_came();
        }
        self.unannounced = more_is_likely;
        Ok(())
    }

    fn update_stats(&mut self) {
        let Some(Published { stream, .. }) = &self.published else {
            return;
        };
        self.stats.out_bytes_total = self.connection.outbound.total();
        self.stats.in_chunk_size = self.session.in_chunk_size();
        self.stats.in_window_ack_size = self.session.in_window_ack_size();
        self.stats.in_bytes_acked = self.session.in_bytes_acked();
        self.stats.out_bytes_acked = u64::from(self.session.out_bytes_acked());
        (self.stats.bitrate, self.stats.bitrate_at) = self.meter.rate();
        self.stats.bitrate_peak = self.meter.peak();
        self.stats.frames = self.frame_meter.stats();
        self.stats.last_byte = Some(self.last_read);
        stream.set_stats(self.id, &self.stats);
    }

    /// Sets how long the next read may take. Mostly there is nothing to set.
    fn arm_timeout(&mut self) -> Result<(), CloseReason> {
        let timeout = match &self.published {
            Some(published) if self.session.is_publishing() => {
                let silence = self.until_timeout(published);
                let ping = self.until_ping(published);
                let stall = self.until_stall(published);
                let ack = (self.session.ack_due() == AckDue::WhenIdle).then_some(ACK_PAUSE);
                [silence, ping, stall, ack].into_iter().flatten().min()
            }
            _ => {
                // The client's system may hold its next small write back until this one's
                // acknowledgement comes, which would else be delayed.
                let _ = sockopt::set_tcp_quickack(&*self.connection.socket, true);
                let left = self.deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    self.late()?;
                    return self.arm_timeout();
                }
                Some(left)
            }
        };
        if timeout != self.read_timeout {
            let set = self.connection.socket.set_read_timeout(timeout);
            set.map_err(TransportError::Io)?;
            self.read_timeout = timeout;
        }
        Ok(())
    }

    /// How long there may be nothing at all before the publisher is cut off.
    fn until_timeout(&self, published: &Published) -> Option<Duration> {
        let timeout = published.stream.timeout()?;
        if self.brought_media {
            return Some(timeout);
        }
        let left = timeout.saturating_sub(self.last_read.elapsed());
        Some(left.max(Duration::from_millis(1)))
    }

    /// How long there may be nothing at all before the publisher is asked whether it is there.
    fn until_ping(&self, published: &Published) -> Option<Duration> {
        let after = liveness::ping_after(published.stream.timeout());
        if self.is_pinged {
            return None;
        }
        if self.brought_media {
            return Some(after);
        }
        let left = after.saturating_sub(self.last_read.elapsed());
        Some(left.max(Duration::from_millis(1)))
    }

    /// How long there may be no media before the publisher counts as stalled.
    fn until_stall(&self, published: &Published) -> Option<Duration> {
        let timeout = published.stream.stall_timeout()?;
        if self.is_stalled {
            return None;
        }
        if self.brought_media {
            return Some(timeout);
        }
        let left = timeout.saturating_sub(published.link.silent_for());
        Some(left.max(Duration::from_millis(1)))
    }

    /// Nothing came for as long as [`Client::arm_timeout`] said.
    fn silence(&mut self) -> Result<(), CloseReason> {
        let Some(published) = self
            .published
            .as_ref()
            .filter(|_| self.session.is_publishing())
        else {
            return self.late();
        };
        let stream = published.stream.clone();
        if let Some(stall_timeout) = stream.stall_timeout()
            && !self.is_stalled
            && published.link.silent_for() >= stall_timeout
        {
            self.is_stalled = true;
            let last_read = self.last_read;
            stream
                .queue()
                .note(self.id, QueueItem::Stalled { last_read });
        }
        // It need not be exact for what follows.
        self.brought_media = false;
        if let Some(timeout) = stream.timeout()
            && self.last_read.elapsed() >= timeout
        {
            return Err(CloseReason::Timeout(timeout));
        }
        let patience = liveness::ping_after(stream.timeout());
        if !self.is_pinged && self.last_read.elapsed() >= patience {
            self.is_pinged = true;
            self.session
                .ping(self.last_read.elapsed().as_millis() as u32);
            liveness::limit_unacknowledged(&self.connection.socket, Some(patience));
        }
        if self.session.ack_due() == AckDue::WhenIdle {
            self.session.acknowledge();
        }
        self.flush(MAX_BLOCKED)
    }

    /// The deadline has passed: of a publisher that has ended its stream and stays, which may yet
    /// publish another, or of a client that has not published at all.
    fn late(&mut self) -> Result<(), CloseReason> {
        if self.published.is_some() {
            self.leave(RemovalReason::Unpublished);
            self.deadline = Instant::now() + self.settings.handshake_timeout;
            return Ok(());
        }
        if self.decision.is_challenged() {
            return Err(CloseReason::NotAuthenticated);
        }
        Err(CloseReason::HandshakeTimeout(
            self.settings.handshake_timeout,
        ))
    }

    /// Lets a client that has to go read the reason. Closing at once, with what it sends meanwhile
    /// unread, would reset the connection and take the reason away.
    fn wait_for_close(&mut self, decided: Instant) {
        let deadline = decided + FAREWELL;
        let mut buffer = self.buffer.take();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let socket = &self.connection.socket;
            if left.is_zero() || socket.set_read_timeout(Some(left)).is_err() {
                return;
            }
            match self.transport.read(&mut buffer, Wait::Yes) {
                Ok(Received::End) => return,
                Ok(_) => {}
                Err(TransportError::Io(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

impl Drop for Client {
    /// Also on the way of a panic: nobody may wait for this publisher.
    fn drop(&mut self) {
        self.leave(RemovalReason::Closed);
        self.decision.withdraw();
        let _ = self.connection.socket.shutdown(Shutdown::Both);
    }
}
