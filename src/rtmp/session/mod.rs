// SPDX-License-Identifier: MPL-2.0

//! The conversation with one client, from its first byte on.
//!
//! [`Session::read`] consumes bytes and returns events; replies collect in [`Session::output`]. The
//! caller reads until there are no more events, and writes the output in one call: several small
//! writes would each wait for a delayed acknowledgement of TCP.
//!
//! Invariant: for any input in pieces of any size, memory stays within [`limits`](super::limits).
//! When `read` returns, every command that wants an answer has it in the output, except `publish`
//! and `connect`, which wait for the caller's decision.

mod acknowledge;
mod capabilities;
mod commands;
mod data;
mod event;
mod held;
mod output;
mod request;
mod stream_name;
pub mod unsolicited;

use std::collections::VecDeque;
use std::sync::Arc;

use super::chunk::{ChunkReader, ReaderLimits};
use super::command::Command;
use super::control::Control;
use super::handshake::Handshake;
use super::message::{Message, type_id};
use super::{Headroom, Payload, Violation, aggregate};

pub use acknowledge::AckDue;
use acknowledge::Acknowledgement;
pub use capabilities::{Offer, SupportedCodecs};
use data::DataMessage;
pub use event::{Ignored, Media, MediaKind, SessionEvent};
use held::HeldMessages;
pub use output::SessionOutput;
pub use request::{ConnectRequest, PublishRequest};

/// Settings of a session.
#[derive(Debug, Clone, Copy)]
pub struct SessionConfig {
    /// Chunk size in bytes of the server's messages. It is announced, and clients often adopt it.
    pub chunk_size: u32,
    /// The acknowledgement window announced to the client, in bytes.
    pub window_ack_size: u32,
    pub max_message_size: u32,
    /// Free bytes around each media payload.
    pub headroom: Headroom,
    /// Seed of the random parts of the handshake.
    pub seed: u64,
}

impl Default for SessionConfig {
    fn default() -> Self {
        SessionConfig {
            chunk_size: 65_536,
            window_ack_size: 5_000_000,
            max_message_size: super::limits::MAX_MESSAGE_LENGTH,
            headroom: Headroom::default(),
            seed: 0,
        }
    }
}

#[derive(Debug)]
enum SessionPhase {
    Handshake(Box<Handshake>),
    /// The handshake is done, `connect` is not.
    Connecting,
    Connected,
    Publishing {
        msid: u32,
        stream_key: String,
    },
}

/// Server-side state of one RTMP conversation.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    phase: SessionPhase,
    reader: ChunkReader,
    output: SessionOutput,
    acknowledgement: Acknowledgement,
    connect: Option<Arc<ConnectRequest>>,
    /// The request that waits for the caller's decision.
    pending: Option<PendingRequest>,
    /// Message stream ids 1 to this one have been created.
    created_streams: u32,
    held: HeldMessages,
    /// Held messages of the stream that was accepted, not yet handled.
    replay: VecDeque<Message>,
    events: VecDeque<SessionEvent>,
}

#[derive(Debug, Clone)]
enum PendingRequest {
    Connect {
        transaction_id: f64,
        request: Arc<ConnectRequest>,
    },
    Publish {
        msid: u32,
        stream_key: String,
    },
}

impl Session {
    pub fn new(config: SessionConfig) -> Self {
        let limits = ReaderLimits {
            max_message_size: config.max_message_size,
            ..ReaderLimits::default()
        };
        Session {
            config,
            phase: SessionPhase::Handshake(Box::new(Handshake::new(config.seed))),
            reader: ChunkReader::new(limits, config.headroom),
            output: SessionOutput::default(),
            acknowledgement: Acknowledgement::new(config.window_ack_size),
            connect: None,
            pending: None,
            created_streams: 0,
            held: HeldMessages::default(),
            replay: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Consumes bytes from the front of `input` up to the next event, or all of them. Consumed
    /// bytes count as received for acknowledgements.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<SessionEvent>, Violation> {
        debug_assert!(self.pending.is_none(), "the last request has no answer");
        let before = input.len();
        let result = self.read_event(input);
        self.acknowledgement.received(before - input.len());
        result
    }

    fn read_event(&mut self, input: &mut &[u8]) -> Result<Option<SessionEvent>, Violation> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if let Some(message) = self.replay.pop_front() {
                match self.media(message) {
                    Some(event) => return Ok(Some(event)),
                    None => continue,
                }
            }
            if let SessionPhase::Handshake(handshake) = &mut self.phase {
                if !handshake.read(input, self.output.replies_mut())? {
                    return Ok(None);
                }
                self.phase = SessionPhase::Connecting;
            }
            let Some(message) = self.reader.read(input)? else {
                return Ok(None);
            };
            // The hot path: everything else needs more of the session.
            let kind = match message.type_id {
                type_id::AUDIO => Some(MediaKind::Audio),
                type_id::VIDEO => Some(MediaKind::Video),
                _ => None,
            };
            if let Some(kind) = kind
                && self.is_publishing()
            {
                return Ok(Some(SessionEvent::Media(Media {
                    kind,
                    timestamp: message.timestamp,
                    payload: message.payload,
                })));
            }
            if let Some(event) = self.handle(message)? {
                return Ok(Some(event));
            }
        }
    }

    /// Returns the message stream of the `publish` that waits for its answer.
    pub fn requested_msid(&self) -> u32 {
        match self.pending {
            Some(PendingRequest::Publish { msid, .. }) => msid,
            _ => 0,
        }
    }

    /// Returns the bytes to write to the client.
    pub fn output(&mut self) -> &mut SessionOutput {
        &mut self.output
    }

    /// Returns the urgency of the next acknowledgement.
    pub fn ack_due(&self) -> AckDue {
        self.acknowledgement.due()
    }

    /// Sends a ping to the client. Many clients never answer, so a missing answer proves nothing.
    pub fn ping(&mut self, timestamp: u32) {
        self.output.push_droppable(Control::PingRequest(timestamp));
    }

    /// Adds an acknowledgement to the output.
    pub fn acknowledge(&mut self) {
        let count = self.acknowledgement.acknowledge();
        self.output.push_droppable(Control::Acknowledgement(count));
    }

    pub fn set_max_message_size(&mut self, size: u32) {
        self.reader.set_max_message_size(size);
    }

    /// Returns the chunk size that the client uses.
    pub fn in_chunk_size(&self) -> u32 {
        self.reader.chunk_size()
    }

    /// Returns the acknowledgement window that the client has announced, 0 if none.
    pub fn in_window_ack_size(&self) -> u32 {
        self.acknowledgement.client_window()
    }

    /// Returns the count in the last acknowledgement from the client, in bytes.
    pub fn out_bytes_acked(&self) -> u32 {
        self.acknowledgement.acknowledged_by_client()
    }

    /// Returns the received bytes that have been acknowledged to the client.
    pub fn in_bytes_acked(&self) -> u64 {
        self.acknowledgement.acknowledged()
    }

    /// Returns the bytes held for messages that are incomplete or not yet published.
    pub fn buffered(&self) -> usize {
        let replay: usize = self.replay.iter().map(held::cost).sum();
        self.reader.buffered() + self.held.len() + replay
    }

    /// Returns the bytes that have arrived of incomplete audio and video messages.
    pub fn partial_media(&self) -> usize {
        self.reader.partial_media()
    }

    /// Returns the number of messages that the client has left incomplete since the last call.
    pub fn take_abandoned(&mut self) -> u64 {
        self.reader.take_abandoned()
    }

    /// Returns true if the handshake is done.
    pub fn is_handshake_done(&self) -> bool {
        !matches!(self.phase, SessionPhase::Handshake(_))
    }

    pub fn is_publishing(&self) -> bool {
        matches!(self.phase, SessionPhase::Publishing { .. })
    }

    /// Returns the message stream that is published.
    pub fn published_msid(&self) -> Option<u32> {
        match self.phase {
            SessionPhase::Publishing { msid, .. } => Some(msid),
            _ => None,
        }
    }

    /// Handles a message.
    fn handle(&mut self, message: Message) -> Result<Option<SessionEvent>, Violation> {
        match message.type_id {
            type_id::AUDIO
            | type_id::VIDEO
            | type_id::DATA_AMF0
            | type_id::DATA_AMF3
            | type_id::AGGREGATE => Ok(self.media(message)),
            type_id::COMMAND_AMF0 | type_id::COMMAND_AMF3 => {
                match Command::read(message.payload.body()) {
                    Ok(command) => self.command(command, message.msid),
                    Err(error) => Ok(Some(SessionEvent::Ignored(Ignored::MalformedCommand(
                        error,
                    )))),
                }
            }
            type_id::ACKNOWLEDGEMENT
            | type_id::USER_CONTROL
            | type_id::WINDOW_ACK_SIZE
            | type_id::SET_PEER_BANDWIDTH => {
                match Control::read(message.type_id, message.payload.body()) {
                    Some(control) => self.control(control),
                    None => return Ok(Some(SessionEvent::Ignored(Ignored::MalformedControl))),
                }
                Ok(None)
            }
            type_id::SHARED_OBJECT_AMF0 | type_id::SHARED_OBJECT_AMF3 => Ok(None),
            unknown => Ok(Some(SessionEvent::Ignored(Ignored::UnknownMessageType(
                unknown,
            )))),
        }
    }

    fn control(&mut self, control: Control) {
        match control {
            Control::Acknowledgement(count) => self.acknowledgement.client_acknowledged(count),
            Control::WindowAckSize(size) => self.acknowledgement.set_client_window(size),
            Control::PingRequest(timestamp) => {
                self.output.push_pong(timestamp);
            }
            // The bandwidth limits the server's output, and this one sends next to nothing. A
            // missing or odd pong proves nothing: librtmp never sends one.
            Control::SetPeerBandwidth { .. }
            | Control::PingResponse(_)
            | Control::StreamBegin { .. }
            | Control::OtherUserControl(_) => {}
        }
    }

    /// Handles a media message. While a stream is published, media on every message stream belongs
    /// to it: some clients send media on one that they never created, or on another one of theirs.
    fn media(&mut self, message: Message) -> Option<SessionEvent> {
        if !self.is_publishing() {
            return match self.held.push(message) {
                0 => None,
                1 => Some(SessionEvent::Ignored(Ignored::MediaBeforePublish)),
                lost => Some(SessionEvent::Ignored(Ignored::HeldMedia(lost))),
            };
        }
        if message.type_id == type_id::AGGREGATE {
            self.aggregate(&message);
            return None;
        }
        self.media_event(message.type_id, message.timestamp, message.payload)
    }

    /// Makes the event of one media message.
    fn media_event(&self, type_id: u8, timestamp: u32, payload: Payload) -> Option<SessionEvent> {
        let (kind, payload) = match type_id {
            type_id::AUDIO => (MediaKind::Audio, payload),
            type_id::VIDEO => (MediaKind::Video, payload),
            type_id::DATA_AMF0 | type_id::DATA_AMF3 => {
                match data::normalize(type_id, payload, self.config.headroom) {
                    DataMessage::Script(payload) => (MediaKind::Data, payload),
                    DataMessage::ServerRequest => return None,
                    DataMessage::Malformed => {
                        return Some(SessionEvent::Ignored(Ignored::MalformedData));
                    }
                }
            }
            other => return Some(SessionEvent::Ignored(Ignored::UnknownMessageType(other))),
        };
        Some(SessionEvent::Media(Media {
            kind,
            timestamp,
            payload,
        }))
    }

    /// Returns true if the client has created this message stream.
    fn is_created(&self, msid: u32) -> bool {
        (1..=self.created_streams).contains(&msid)
    }

    fn aggregate(&mut self, message: &Message) {
        let mut parts = aggregate::split(message.payload.body(), message.timestamp);
        for part in parts.by_ref() {
            let payload = data::copy(part.body, self.config.headroom);
            let event = self.media_event(part.type_id, part.timestamp, payload);
            self.events.extend(event);
        }
        if parts.lost() > 0 {
            let ignored = Ignored::MalformedAggregate(parts.lost());
            self.events.push_back(SessionEvent::Ignored(ignored));
        }
    }
}

#[cfg(test)]
mod tests;
