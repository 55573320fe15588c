// SPDX-License-Identifier: MPL-2.0

//! One client: a thread that blocks in read, and never anywhere else but in a full media queue or
//! a write that has to wait for the client.

mod admission;
mod buffer;
mod liveness;
mod meter;

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use super::crowd::Standing;
use super::intake::Intake;
use super::link::{Connection, Link};
use super::listener::{FAREWELL, ListenerSettings, NotAdmitted, Shared};
use super::publisher::Removal;
use super::queue::{Item, Stopped};
use super::transport::{Blocked, Received, Transport, TransportError, Wait};
use super::{CAT, ClientStats};
use crate::flv::{Content, FRONT_LENGTH, TRAILER_LENGTH, Tag, TagKind};
use crate::rate::Meter;
use crate::rtmp::session::{AckDue, Config, Event, Media, MediaKind, Session};
use crate::rtmp::{Room, Violation};
use admission::Decision;
use buffer::ReadBuffer;
use meter::FrameMeter;

/// A client that is silent for this long may be waiting for an acknowledgement.
const ACK_PAUSE: Duration = Duration::from_millis(100);

/// How long a publisher that has ended its stream may take to close its connection before the
/// stream ends here too. Closing it from this side is an error to rtmp2sink.
const CLOSING_GRACE: Duration = Duration::from_millis(100);

/// A client that does not take a reply for this long is dropped.
const MAX_BLOCKED: Duration = Duration::from_secs(5);

/// Why a conversation is over.
#[derive(Debug, thiserror::Error)]
enum Parting {
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
    NotAdmitted(#[from] NotAdmitted),
    #[error("it did not answer the challenge")]
    NotAuthenticated,
    #[error("it does not read its replies")]
    Blocked,
    #[error("it had to go: {}", .0.nick())]
    Dismissed(Removal),
    #[error("it had to go")]
    Stopped,
}

impl Parting {
    fn removal(&self) -> Removal {
        match self {
            Parting::Closed | Parting::Transport(_) | Parting::Blocked => Removal::Closed,
            Parting::Violation(_) | Parting::Refused(_) => Removal::Violation,
            Parting::HandshakeTimeout(_) | Parting::Timeout(_) | Parting::Vanished => {
                Removal::Timeout
            }
            Parting::Dismissed(removal) => *removal,
            // These do not publish, or the element has seen to it already.
            Parting::NotAdmitted(_) | Parting::NotAuthenticated | Parting::Stopped => {
                Removal::Stopped
            }
        }
    }

    /// Whether the client has gone by itself.
    fn is_loss(&self) -> bool {
        matches!(
            self,
            Parting::Closed | Parting::Transport(TransportError::Io(_))
        )
    }
}

impl From<Blocked> for Parting {
    fn from(_: Blocked) -> Self {
        Parting::Blocked
    }
}

impl From<Stopped> for Parting {
    fn from(_: Stopped) -> Self {
        Parting::Stopped
    }
}

pub(super) struct Client {
    id: u64,
    address: SocketAddr,
    settings: ListenerSettings,
    connection: Connection,
    transport: Transport,
    session: Session,
    buffer: ReadBuffer,
    /// What one read brought, on its way to the media queue.
    batch: Vec<Item>,
    /// The streaming thread has not been told yet of what is in the queue.
    unannounced: bool,
    /// It has come through a load balancer that did not say from where, and has not been looked at.
    is_unadmitted: bool,
    /// What was decided about it, while it is on its way to publish.
    decision: Decision,
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
    meter: Meter,
    frame_meter: FrameMeter,
}

#[derive(Debug, Clone)]
struct Published {
    intake: Arc<Intake>,
    link: Arc<Link>,
}

impl Client {
    pub(super) fn new(
        id: u64,
        socket: Arc<TcpStream>,
        address: SocketAddr,
        settings: ListenerSettings,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        // Not every system gives a blocking socket here.
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        let config = Config {
            chunk_size: settings.chunk_size,
            max_message_size: settings.max_message_size,
            room: Room {
                head: FRONT_LENGTH,
                tail: TRAILER_LENGTH,
            },
            seed: fastrand::u64(..),
            ..Config::default()
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
            decision: Decision::default(),
            published: None,
            deadline: now + settings.handshake_timeout,
            last_read: now,
            brought_media: false,
            is_stalled: false,
            is_pinged: false,
            read_timeout: None,
            stats,
            meter: Meter::new(now),
            frame_meter: FrameMeter::default(),
        })
    }

    /// The thread.
    pub(super) fn run(mut self) {
        gst::trace!(CAT, "{} has connected", self.address);
        let shared = self.connection.shared.clone();
        let started = shared
            .tls()
            .map_or(Ok(()), |tls| self.transport.start_tls(tls));
        let Err(parting) = started
            .map_err(Parting::from)
            .and_then(|()| self.converse());
        // Load balancers and monitors open connections and close them again: not worth a line.
        let is_probe = self.stats.in_bytes_total == 0 && parting.is_loss();
        if is_probe {
            gst::trace!(CAT, "{} is closed: {parting}", self.address);
        } else {
            gst::info!(CAT, "{} is closed: {parting}", self.address);
        }
        self.report(&parting);
        // The stream ends now; the farewell may take a moment.
        let link = self.published.as_ref().map(|p| p.link.clone());
        self.leave(parting.removal());
        match parting {
            Parting::Dismissed(_) => {
                if let Some(link) = link {
                    link.say_goodbye();
                }
                self.wait_for_close(Instant::now());
            }
            Parting::Refused(_) => {
                self.connection.outbound.finish();
                self.wait_for_close(self.last_read);
            }
            _ => {}
        }
    }

    fn converse(&mut self) -> Result<std::convert::Infallible, Parting> {
        loop {
            self.arm_timeout()?;
            let mut buffer = self.buffer.take();
            let result = self.read(&mut buffer);
            let mut filled = 0;
            let outcome = match result {
                Ok(Received::Data(count)) => {
                    filled = count;
                    self.admit_late()
                        .and_then(|()| self.received(&buffer[..count], count == buffer.len()))
                }
                Ok(Received::Nothing) => Ok(()),
                Ok(Received::Header(source)) => self.announced(source),
                Ok(Received::End) => Err(Parting::Closed),
                Err(TransportError::Io(error)) if liveness::has_vanished(&error) => {
                    Err(Parting::Vanished)
                }
                Err(TransportError::Io(error)) => match error.kind() {
                    io::ErrorKind::Interrupted => Ok(()),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => self.silence(),
                    // Who closes with unread data resets the connection. That is an end too.
                    io::ErrorKind::ConnectionReset => Err(Parting::Closed),
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
    fn check_dismissal(&self) -> Result<(), Parting> {
        let dismissal = self.published.as_ref().and_then(|p| p.link.dismissal());
        dismissal.map_or(Ok(()), |removal| Err(Parting::Dismissed(removal)))
    }

    /// Reads, and before it waits tells the streaming thread of what was read before.
    fn read(&mut self, buffer: &mut [u8]) -> Result<Received, TransportError> {
        if std::mem::take(&mut self.unannounced)
            && let Some(published) = &self.published
        {
            match self.transport.read(buffer, Wait::No) {
                Err(TransportError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    published.intake.queue().announce();
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
    fn announced(&mut self, source: Option<SocketAddr>) -> Result<(), Parting> {
        match source {
            Some(source) => {
                gst::debug!(CAT, "{} is behind {}", source, self.address);
                self.address = SocketAddr::new(source.ip().to_canonical(), source.port());
                self.admit_from(self.address)
            }
            // A health check says nothing more.
            None => {
                self.is_unadmitted = true;
                Ok(())
            }
        }
    }

    fn admit_late(&mut self) -> Result<(), Parting> {
        if std::mem::take(&mut self.is_unadmitted) {
            self.admit_from(self.address)?;
        }
        Ok(())
    }

    fn admit_from(&self, address: SocketAddr) -> Result<(), Parting> {
        let max = self.settings.max_clients_per_address;
        let Connection { shared, .. } = &self.connection;
        Ok(shared.admit(self.id, address.ip(), max)?)
    }

    fn received(&mut self, bytes: &[u8], filled: bool) -> Result<(), Parting> {
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
            Err(Parting::Refused(_)) => FAREWELL,
            _ => MAX_BLOCKED,
        };
        self.flush(patience)?;
        self.hand_over(filled && outcome.is_ok())?;
        outcome
    }

    fn read_events(&mut self, bytes: &[u8], arrival: Instant) -> Result<(), Parting> {
        let mut input = bytes;
        while let Some(event) = self.session.read(&mut input)? {
            self.handle(event, arrival)?;
        }
        Ok(())
    }

    fn handle(&mut self, event: Event, arrival: Instant) -> Result<(), Parting> {
        match event {
            Event::Media(media) => self.media(media, arrival),
            Event::Connect(request) => return self.connect(&request),
            Event::Announce(request) => self.announce(&request),
            Event::Publish(request) => {
                self.leave(Removal::Unpublished);
                return self.publish(&request);
            }
            Event::Unpublish => {
                self.hand_over(false)?;
                if let Some(published) = &self.published {
                    published.intake.set_leaving(self.id);
                }
                self.deadline = arrival + CLOSING_GRACE;
            }
            Event::Refused(reason) => return Err(Parting::Refused(reason.to_owned())),
            Event::Ignored(what) => {
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
            Ok(tag) => {
                self.count(&tag, arrival);
                self.batch.push(Item::Tag {
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
        self.meter = Meter::new(self.last_read);
        self.frame_meter = FrameMeter::default();
    }

    fn leave(&mut self, removal: Removal) {
        self.is_stalled = false;
        if let Some(Published { intake, .. }) = self.published.take() {
            intake.leave(self.id, removal);
            self.set_standing(Standing::New);
            self.reset_stats();
        }
    }

    /// False if the client has been cut off meanwhile.
    fn set_standing(&self, standing: Standing) -> bool {
        self.connection.shared.set_standing(self.id, standing)
    }

    fn flush(&mut self, patience: Duration) -> Result<(), Parting> {
        let output = self.session.output();
        if !output.is_empty() {
            let (replies, notices) = (output.take_replies(), output.take_notices());
            let Connection { outbound, .. } = &self.connection;
            outbound.send(&replies, &notices, patience)?;
            if let Some(Published { link, .. }) = &self.published {
                link.has_started();
            }
        }
        Ok(())
    }

    /// Puts the batch into the queue. A read that filled its buffer has probably left more behind,
    /// and waking the streaming thread for each of those would cost more than all else.
    fn hand_over(&mut self, more_is_likely: bool) -> Result<(), Parting> {
        self.update_stats();
        let Some(Published { intake, link }) = &self.published else {
            self.batch.clear();
            return Ok(());
        };
        let has_tags = !self.batch.is_empty();
        let is_media =
            |item: &Item| matches!(item, Item::Tag { tag, .. } if tag.kind != TagKind::Script);
        // A large frame on a slow network takes its time, and is media all the while.
        let has_media = self.batch.iter().any(is_media) || self.session.buffered() > 0;
        if has_media && std::mem::take(&mut self.is_stalled) {
            intake.queue().note(self.id, Item::Resumed);
        }
        if more_is_likely {
            intake.queue().push_quietly(self.id, &mut self.batch)?;
        } else if self.unannounced || has_tags {
            intake.queue().push(self.id, &mut self.batch)?;
        }
        self.brought_media = has_media;
        if has_media {
            link.media_came();
        }
        self.unannounced = more_is_likely;
        Ok(())
    }

    fn update_stats(&mut self) {
        let Some(Published { intake, .. }) = &self.published else {
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
        intake.set_stats(self.id, &self.stats);
    }

    /// Sets how long the next read may take. Mostly there is nothing to set.
    fn arm_timeout(&mut self) -> Result<(), Parting> {
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
        let timeout = published.intake.timeout()?;
        if self.brought_media {
            return Some(timeout);
        }
        let left = timeout.saturating_sub(self.last_read.elapsed());
        Some(left.max(Duration::from_millis(1)))
    }

    /// How long there may be nothing at all before the publisher is asked whether it is there.
    fn until_ping(&self, published: &Published) -> Option<Duration> {
        let after = liveness::ping_after(published.intake.timeout());
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
        let timeout = published.intake.stall_timeout()?;
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
    fn silence(&mut self) -> Result<(), Parting> {
        let Some(published) = self
            .published
            .as_ref()
            .filter(|_| self.session.is_publishing())
        else {
            return self.late();
        };
        let intake = published.intake.clone();
        if let Some(stall_timeout) = intake.stall_timeout()
            && !self.is_stalled
            && published.link.silent_for() >= stall_timeout
        {
            self.is_stalled = true;
            let last_read = self.last_read;
            intake.queue().note(self.id, Item::Stalled { last_read });
        }
        // It need not be exact for what follows.
        self.brought_media = false;
        if let Some(timeout) = intake.timeout()
            && self.last_read.elapsed() >= timeout
        {
            return Err(Parting::Timeout(timeout));
        }
        let patience = liveness::ping_after(intake.timeout());
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
    fn late(&mut self) -> Result<(), Parting> {
        if self.published.is_some() {
            self.leave(Removal::Unpublished);
            self.deadline = Instant::now() + self.settings.handshake_timeout;
            return Ok(());
        }
        if self.decision.is_challenged() {
            return Err(Parting::NotAuthenticated);
        }
        Err(Parting::HandshakeTimeout(self.settings.handshake_timeout))
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
        self.leave(Removal::Closed);
        self.decision.withdraw();
        let _ = self.connection.socket.shutdown(Shutdown::Both);
    }
}
