// SPDX-License-Identifier: MPL-2.0

//! Events of a session.

use std::sync::Arc;

use super::request::{ConnectRequest, PublishRequest};
use crate::amf0;
use crate::rtmp::Payload;

/// An event for the caller to act on.
#[derive(Debug)]
pub enum SessionEvent {
    /// The client asks for an application. Answer with `Session::accept_connect` or
    /// `Session::reject_connect` before anything else.
    Connect(Arc<ConnectRequest>),
    /// The client announces a stream with `FCPublish`. Call `Session::confirm_announcement` if its
    /// `publish` would be accepted; a client that will be refused must not get a go-ahead.
    Announce(PublishRequest),
    /// The client wants to publish. Answer with `Session::accept_publish` or
    /// `Session::reject_publish` before anything else.
    Publish(PublishRequest),
    Media(Media),
    /// The publisher has ended its stream on purpose. It may publish again.
    Unpublish,
    /// The client was refused, and the error is in the output: write it and close.
    Refused(&'static str),
    /// A harmless violation: worth a line in the log.
    Ignored(Ignored),
}

/// The kind of a media message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaKind {
    Audio,
    Video,
    /// Script data: AMF0 that starts with a name like `onMetaData`.
    Data,
}

/// A media message of the published stream.
#[derive(Debug)]
pub struct Media {
    pub kind: MediaKind,
    /// Milliseconds, modulo 2^32.
    pub timestamp: u32,
    pub payload: Payload,
}

/// A message that was ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ignored {
    MalformedCommand(amf0::Error),
    MalformedData,
    MalformedControl,
    UnknownMessageType(u8),
    /// Media before `publish` that can't be held.
    MediaBeforePublish,
    /// Media before `publish` that was held, and is too much to hold: the number of its messages.
    HeldMedia(u64),
    /// Parts of an aggregate that can't be read, and their number.
    MalformedAggregate(u32),
}

impl Ignored {
    /// Returns the number of messages that were ignored.
    pub fn messages(&self) -> u64 {
        match self {
            Ignored::HeldMedia(messages) => *messages,
            Ignored::MalformedAggregate(parts) => u64::from(*parts),
            _ => 1,
        }
    }
}
