// SPDX-License-Identifier: MPL-2.0

//! One client: a thread that blocks in read, and never anywhere else but in a full media queue or
//! a write that has to wait for the client.

mod buffer;
mod meter;

use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv, sockopt};

use super::intake::{Intake, Publisher, Unavailable};
use super::listener::{Found, ListenerSettings, Shared};
use super::outbound::{Blocked, Outbound};
use super::queue::{Item, Stopped};
use super::route::Request;
use super::{CAT, ClientStats, Secret, Shown};
use crate::flv::{Content, FRONT_LENGTH, TRAILER_LENGTH, Tag, TagKind};
use crate::rtmp::session::{
    AckDue, Config, ConnectRequest, Event, Media, MediaKind, PublishRequest, Session,
};
use crate::rtmp::status::{Status, code};
use crate::rtmp::{Room, Violation};
use buffer::ReadBuffer;
use meter::Meter;

/// A client that is silent for this long may be waiting for an acknowledgement.
const ACK_PAUSE: Duration = Duration::from_millis(100);

/// How long a publisher that has ended its stream may take to close its connection before the
/// stream ends here too. Closing it from this side is an error to rtmp2sink.
const CLOSING_GRACE: Duration = Duration::from_millis(100);

/// How long a refused client may take to read why.
const FAREWELL: Duration = Duration::from_millis(800);

/// A client that does not take a reply for this long is dropped.
const MAX_BLOCKED: Duration = Duration::from_secs(5);

/// Why a conversation is over.
#[derive(Debug, thiserror::Error)]
enum Parting {
    #[error("it has closed the connection")]
    Closed,
    #[error("the connection is lost: {0}")]
    Lost(io::Error),
    #[error("{0}")]
    Violation(#[from] Violation),
    #[error("{0}")]
    Refused(String),
    #[error("it did not publish within {0:?}")]
    HandshakeTimeout(Duration),
    #[error("it sent nothing for {0:?}")]
    Timeout(Duration),
    #[error("it does not read its replies")]
    Blocked,
    #[error("the element stops")]
    Stopped,
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
    socket: Arc<TcpStream>,
    address: SocketAddr,
    shared: Arc<Shared>,
    settings: ListenerSettings,
    session: Session,
    outbound: Outbound,
    buffer: ReadBuffer,
    /// What one read brought, on its way to the media queue.
    batch: Vec<Item>,
    /// The streaming thread has not been told yet of what is in the queue.
    unannounced: bool,
    /// Set while publishing.
    intake: Option<Arc<Intake>>,
    /// When it has to publish, while it does not.
    deadline: Instant,
    last_read: Instant,
    /// What the socket's read timeout is set to.
    read_timeout: Option<Duration>,
    stats: ClientStats,
    meter: Meter,
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
        Ok(Client {
            id,
            address,
            shared,
            settings,
            session: Session::new(config),
            outbound: Outbound::new(socket.clone()),
            socket,
            buffer: ReadBuffer::default(),
            batch: Vec::new(),
            unannounced: false,
            intake: None,
            deadline: now + settings.handshake_timeout,
            last_read: now,
            read_timeout: None,
            stats,
            meter: Meter::new(now),
        })
    }

    /// The thread.
    pub(super) fn run(mut self) {
        gst::debug!(CAT, "{} has connected", self.address);
        let Err(parting) = self.converse();
        gst::info!(CAT, "{} is closed: {parting}", self.address);
        // The stream ends now; the farewell may take a moment.
        self.leave();
        if let Parting::Refused(_) = parting {
            self.say_farewell(self.last_read);
        }
    }

    fn converse(&mut self) -> Result<std::convert::Infallible, Parting> {
        loop {
            self.arm_timeout()?;
            let mut buffer = self.buffer.take();
            let result = self.read(&mut buffer);
            let filled = *result.as_ref().unwrap_or(&0);
            let outcome = match result {
                Ok(0) => Err(Parting::Closed),
                Ok(count) => self.received(&buffer[..count], count == buffer.len()),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => Ok(()),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => self.silence(),
                    // Who closes with unread data resets the connection. That is an end too.
                    io::ErrorKind::ConnectionReset => Err(Parting::Closed),
                    _ => Err(Parting::Lost(error)),
                },
            };
            self.buffer.give_back(buffer, filled);
            outcome?;
        }
    }

    /// Reads, and before it waits tells the streaming thread of what was read before.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if std::mem::take(&mut self.unannounced)
            && let Some(intake) = &self.intake
        {
            match recv(&*self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN) => intake.queue().announce(),
                result => {
                    self.unannounced = true;
                    return Ok(result?.0);
                }
            }
        }
        (&*self.socket).read(buffer)
    }

    fn received(&mut self, bytes: &[u8], filled: bool) -> Result<(), Parting> {
        let arrival = Instant::now();
        self.last_read = arrival;
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
            Event::Announce(request) => {
                if self.find(&request).is_ok() {
                    self.session.confirm_announcement();
                }
            }
            Event::Publish(request) => {
                self.leave();
                return self.publish(&request);
            }
            Event::Unpublish => {
                self.hand_over(false)?;
                if let Some(intake) = &self.intake {
                    intake.set_leaving(self.id);
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
                self.count(&tag);
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

    fn count(&mut self, tag: &Tag) {
        let counter = match tag.kind {
            TagKind::Audio => &mut self.stats.audio_tags,
            TagKind::Video => &mut self.stats.video_tags,
            TagKind::Script => &mut self.stats.script_tags,
        };
        *counter += 1;
        if tag.info.content == Content::Keyframe {
            self.stats.keyframes += 1;
        }
    }

    /// An application that no route has is refused at once: clients show that error best.
    fn connect(&mut self, request: &ConnectRequest) -> Result<(), Parting> {
        if self.shared.may_match(&request.application) {
            self.session.accept_connect();
            return Ok(());
        }
        let description = "There is no such application here.";
        let status = Status::error(code::CONNECT_INVALID_APP, description);
        self.session.reject_connect(&status);
        // Some clients put the stream key behind a slash, or a token into a query.
        let application = request.application.trim_start_matches('/');
        let name = application.split(['/', '?']).next().unwrap_or_default();
        let reason = format!("there is no application {} here", Shown(name));
        Err(Parting::Refused(reason))
    }

    /// Finds out who takes this stream, without giving it away.
    fn find(&self, request: &PublishRequest) -> Result<(Found, Request), Status> {
        let wanted = Request::new(&request.connect.application, &request.stream_key);
        let Some(found) = self.shared.find(&wanted) else {
            let description = "No stream of this application and stream key is taken here.";
            return Err(Status::error(code::PUBLISH_BAD_NAME, description));
        };
        match found.intake.availability() {
            Ok(()) => Ok((found, wanted)),
            Err(reason) => Err(unavailable(reason)),
        }
    }

    fn publish(&mut self, request: &PublishRequest) -> Result<(), Parting> {
        let taken = self.find(request).and_then(|(found, wanted)| {
            let publisher = Arc::new(Publisher {
                client: self.id,
                address: self.address,
                application: found.matched.application,
                stream_key: found.matched.stream_key,
                query: wanted.query,
                tc_url: request.connect.tc_url.clone(),
                flash_ver: request.connect.flash_ver.clone(),
                since: Instant::now(),
            });
            let intake = found.intake;
            let taken = intake.take(publisher.clone(), self.socket.clone());
            taken.map_err(unavailable)?;
            Ok((intake, publisher))
        });
        match taken {
            Ok((intake, publisher)) => {
                gst::info!(
                    CAT,
                    "{} publishes application {}, stream key \"{}\" to {}",
                    self.address,
                    Shown(&publisher.application),
                    Secret(&publisher.stream_key),
                    intake.name(),
                );
                let max_message_size = intake.listener_settings().max_message_size;
                self.session.set_max_message_size(max_message_size);
                self.session.accept_publish();
                self.intake = Some(intake);
                self.update_stats();
                Ok(())
            }
            Err(status) => {
                self.session.reject_publish(&status);
                let key = Secret(&request.stream_key);
                let reason = format!("\"{key}\" was refused: {}", status.description);
                Err(Parting::Refused(reason))
            }
        }
    }

    fn leave(&mut self) {
        if let Some(intake) = self.intake.take() {
            intake.leave(self.id);
        }
    }

    fn flush(&mut self, patience: Duration) -> Result<(), Parting> {
        let output = self.session.output();
        if !output.is_empty() {
            let (replies, notices) = (output.take_replies(), output.take_notices());
            self.outbound.send(replies, &notices, patience)?;
        }
        Ok(())
    }

    /// Puts the batch into the queue. A read that filled its buffer has probably left more behind,
    /// and waking the streaming thread for each of those would cost more than all else.
    fn hand_over(&mut self, more_is_likely: bool) -> Result<(), Parting> {
        self.update_stats();
        let Some(intake) = &self.intake else {
            self.batch.clear();
            return Ok(());
        };
        if more_is_likely {
            intake.queue().push_quietly(&mut self.batch)?;
        } else if self.unannounced || !self.batch.is_empty() {
            intake.queue().push(&mut self.batch)?;
        }
        self.unannounced = more_is_likely;
        Ok(())
    }

    fn update_stats(&mut self) {
        let Some(intake) = &self.intake else { return };
        self.stats.out_bytes_total = self.outbound.total();
        self.stats.in_chunk_size = self.session.in_chunk_size();
        self.stats.in_window_ack_size = self.session.in_window_ack_size();
        self.stats.in_bytes_acked = self.session.in_bytes_acked();
        self.stats.out_bytes_acked = u64::from(self.session.out_bytes_acked());
        (self.stats.bitrate, self.stats.bitrate_at) = self.meter.rate();
        intake.set_stats(self.stats);
    }

    /// Sets how long the next read may take. Mostly there is nothing to set.
    fn arm_timeout(&mut self) -> Result<(), Parting> {
        let timeout = match &self.intake {
            Some(intake) if self.session.is_publishing() => {
                let timeout = intake.timeout();
                match self.session.ack_due() {
                    AckDue::WhenIdle => Some(timeout.map_or(ACK_PAUSE, |t| t.min(ACK_PAUSE))),
                    AckDue::No | AckDue::Now => timeout,
                }
            }
            _ => {
                // The client's system may hold its next small write back until this one's
                // acknowledgement comes, which would else be delayed.
                let _ = sockopt::set_tcp_quickack(&*self.socket, true);
                let left = self.deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    self.late()?;
                    return self.arm_timeout();
                }
                Some(left)
            }
        };
        if timeout != self.read_timeout {
            self.socket
                .set_read_timeout(timeout)
                .map_err(Parting::Lost)?;
            self.read_timeout = timeout;
        }
        Ok(())
    }

    /// Nothing came for as long as [`Client::arm_timeout`] said.
    fn silence(&mut self) -> Result<(), Parting> {
        let Some(intake) = self
            .intake
            .as_ref()
            .filter(|_| self.session.is_publishing())
        else {
            return self.late();
        };
        let timeout = intake.timeout();
        if self.session.ack_due() == AckDue::WhenIdle {
            self.session.acknowledge();
            return self.flush(MAX_BLOCKED);
        }
        Err(Parting::Timeout(timeout.unwrap_or_default()))
    }

    /// The deadline has passed: of a publisher that has ended its stream and stays, which may yet
    /// publish another, or of a client that has not published at all.
    fn late(&mut self) -> Result<(), Parting> {
        if self.intake.is_some() {
            self.leave();
            self.deadline = Instant::now() + self.settings.handshake_timeout;
            return Ok(());
        }
        Err(Parting::HandshakeTimeout(self.settings.handshake_timeout))
    }

    /// Lets a refused client read the reason. Closing at once, with what it sends meanwhile
    /// unread, would reset the connection and take the reason away.
    fn say_farewell(&mut self, decided: Instant) {
        let _ = self.socket.shutdown(Shutdown::Write);
        let deadline = decided + FAREWELL;
        let mut buffer = self.buffer.take();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.socket.set_read_timeout(Some(left)).is_err() {
                return;
            }
            match (&*self.socket).read(&mut buffer) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return,
            }
        }
    }
}

impl Drop for Client {
    /// Also on the way of a panic: nobody may wait for this publisher.
    fn drop(&mut self) {
        self.leave();
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

fn unavailable(reason: Unavailable) -> Status {
    let description = match reason {
        Unavailable::Busy => "This stream has a publisher already.",
        Unavailable::Ended => "This stream has ended.",
    };
    Status::error(code::PUBLISH_BAD_NAME, description)
}
