// SPDX-License-Identifier: MPL-2.0

use std::net::SocketAddr;
use std::time::Duration;

use crate::rtmp::Violation;
use crate::server::error::AddressRejected;
use crate::server::events::PublisherEvent;
use crate::server::publisher::RemovalReason;
use crate::server::stream::queue::Stopped;
use crate::server::transport::{Blocked, TransportError};

/// Reason why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum CloseReason {
    #[error("it has closed the connection")]
    Closed,
    #[error("{0}")]
    Transport(#[from] TransportError),
    #[error("{0}")]
    Violation(#[from] Violation),
    /// The client has been sent an error.
    #[error("{0}")]
    Refused(String),
    #[error("it did not publish within {0:?}")]
    HandshakeTimeout(Duration),
    #[error("it sent nothing for {0:?}")]
    Timeout(Duration),
    #[error("its end of the connection has vanished")]
    Vanished,
    #[error("{0}")]
    AddressRejected(#[from] AddressRejected),
    #[error("it did not answer the challenge")]
    NotAuthenticated,
    #[error("it does not read its replies")]
    Blocked,
    #[error("disconnected by the server: {}", .0.nick())]
    Dismissed(RemovalReason),
    #[error("disconnected by the server")]
    Stopped,
}

impl CloseReason {
    pub(super) fn removal(&self) -> RemovalReason {
        match self {
            CloseReason::Closed | CloseReason::Transport(_) | CloseReason::Blocked => {
                RemovalReason::Closed
            }
            CloseReason::Violation(_) | CloseReason::Refused(_) => RemovalReason::Violation,
            CloseReason::HandshakeTimeout(_) | CloseReason::Timeout(_) | CloseReason::Vanished => {
                RemovalReason::Timeout
            }
            CloseReason::Dismissed(reason) => *reason,
            // These do not publish, or the slot has ended their publish already.
            CloseReason::AddressRejected(_)
            | CloseReason::NotAuthenticated
            | CloseReason::Stopped => RemovalReason::Stopped,
        }
    }

    /// Returns true where the client has gone by itself.
    pub(super) fn is_by_client(&self) -> bool {
        matches!(
            self,
            CloseReason::Closed | CloseReason::Transport(TransportError::Io(_))
        )
    }

    /// Returns the event about a client that did not publish. It is None for an end that was the
    /// client's own decision or the server's, or is known as a rejection.
    pub(super) fn event(
        &self,
        address: SocketAddr,
        is_challenged: bool,
        has_sent: bool,
    ) -> Option<PublisherEvent> {
        match self {
            CloseReason::NotAuthenticated => Some(PublisherEvent::LeftAtPrompt(address)),
            _ if self.is_by_client() => {
                is_challenged.then_some(PublisherEvent::LeftAtPrompt(address))
            }
            CloseReason::Refused(_) | CloseReason::Dismissed(_) | CloseReason::Stopped => None,
            // A client that says nothing at all may be a monitor.
            CloseReason::HandshakeTimeout(_) | CloseReason::Timeout(_) if !has_sent => None,
            _ => Some(PublisherEvent::Failed(address, self.to_string())),
        }
    }

    /// Returns the text for `last-error` of elements, unless the end was the client's own decision
    /// or theirs, or they know it as a rejection.
    pub(super) fn last_error(&self, is_publishing: bool, has_sent: bool) -> Option<String> {
        let is_error = match self {
            CloseReason::Closed
            | CloseReason::Refused(_)
            | CloseReason::Dismissed(RemovalReason::Drained) => is_publishing,
            // A client that says nothing at all may be a monitor.
            CloseReason::HandshakeTimeout(_)
            | CloseReason::Transport(_)
            | CloseReason::Timeout(_) => has_sent,
            CloseReason::Violation(_)
            | CloseReason::NotAuthenticated
            | CloseReason::Blocked
            | CloseReason::Vanished => true,
            CloseReason::AddressRejected(_) | CloseReason::Dismissed(_) | CloseReason::Stopped => {
                false
            }
        };
        let kind = match self {
            CloseReason::NotAuthenticated => "refused",
            _ => self.removal().nick(),
        };
        is_error.then(|| format!("{kind}: {self}"))
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
