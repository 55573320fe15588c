// SPDX-License-Identifier: MPL-2.0

//! Who publishes, and what becomes of publishers.

use std::net::SocketAddr;
use std::time::Instant;

use crate::rtmp::status::{Status, code};
use crate::server::routing::route::Variables;

/// A client that publishes, or wants to.
#[derive(Clone, PartialEq, Eq)]
pub struct Publisher {
    pub client: u64,
    /// Behind a load balancer that says it, the publisher's own.
    pub address: SocketAddr,
    pub application: String,
    /// Empty for one that was refused before it said it.
    pub stream_key: String,
    /// Of application and stream key, without the question mark.
    pub query: String,
    pub tc_url: String,
    pub flash_ver: String,
    pub tls: bool,
    pub variables: Variables,
    pub since: Instant,
    /// Which stream of its element it publishes, where that has several. Known once it was taken.
    pub stream: Option<u32>,
}

#[cfg(test)]
impl Publisher {
    /// Of `live/key`, from this machine.
    pub(crate) fn example(client: u64) -> Self {
        Publisher {
            client,
            address: SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), 1),
            application: "live".into(),
            stream_key: "key".into(),
            query: String::new(),
            tc_url: String::new(),
            flash_ver: String::new(),
            tls: false,
            variables: Vec::new(),
            since: Instant::now(),
            stream: None,
        }
    }
}

impl std::fmt::Debug for Publisher {
    /// Without what is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher")
            .field("client", &self.client)
            .field("address", &self.address)
            .field("application", &self.application)
            .finish_non_exhaustive()
    }
}

/// Why a client may not publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectReason {
    NoApplication,
    NoStream,
    WrongCredentials,
    NotAuthenticated,
    Address,
    Denied,
    Busy,
    /// The element has as many streams as it takes.
    Full,
    Ended,
    Draining,
}

impl RejectReason {
    /// A short name that does not change.
    pub fn nick(self) -> &'static str {
        match self {
            RejectReason::NoApplication => "no-application",
            RejectReason::NoStream => "no-stream",
            RejectReason::WrongCredentials => "wrong-credentials",
            RejectReason::NotAuthenticated => "not-authenticated",
            RejectReason::Address => "address",
            RejectReason::Denied => "denied",
            RejectReason::Busy => "busy",
            RejectReason::Full => "full",
            RejectReason::Ended => "ended",
            RejectReason::Draining => "draining",
        }
    }

    /// As the last error of an element.
    pub(crate) fn reason(self) -> String {
        format!("refused: {}", self.nick())
    }

    /// What the client is told.
    pub(crate) fn status(self) -> Status {
        let (code, description) = match self {
            RejectReason::NoApplication => (
                code::CONNECT_INVALID_APP,
                "There is no such application here.",
            ),
            RejectReason::NoStream => (
                code::PUBLISH_BAD_NAME,
                "No stream of this application and stream key is taken here.",
            ),
            RejectReason::WrongCredentials => (
                code::CONNECT_REJECTED,
                "User name or password is wrong, or the answer came too late.",
            ),
            RejectReason::NotAuthenticated => (
                code::PUBLISH_DENIED,
                "User name and password do not belong to this stream.",
            ),
            RejectReason::Address => (
                code::PUBLISH_DENIED,
                "This stream is not taken from your address.",
            ),
            RejectReason::Denied => (code::PUBLISH_DENIED, "This publisher is not wanted here."),
            RejectReason::Busy => (
                code::PUBLISH_BAD_NAME,
                "This stream has a publisher already.",
            ),
            RejectReason::Full => (
                code::PUBLISH_BAD_NAME,
                "There are as many streams here as there may be.",
            ),
            RejectReason::Ended => (code::PUBLISH_BAD_NAME, "This stream has ended."),
            // Encoders give up on the codes of publish, and try again after this one.
            RejectReason::Draining => (
                code::CONNECT_APP_SHUTDOWN,
                "This server is about to stop: connect again.",
            ),
        };
        Status::error(code, description)
    }
}

/// Why a publisher is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RemovalReason {
    /// It has ended its stream.
    Unpublished,
    /// Its connection was closed or lost without that.
    Closed,
    /// It sent nothing for too long.
    Timeout,
    /// It broke the protocol.
    Violation,
    /// Another one has taken its place.
    Replaced,
    /// The application did not want it any more.
    Disconnected,
    /// The element is being drained.
    Drained,
    /// The element stops.
    Stopped,
}

impl RemovalReason {
    /// Whether it may come back: nobody meant it to go.
    pub(crate) fn is_cut_off(self) -> bool {
        matches!(
            self,
            RemovalReason::Closed | RemovalReason::Timeout | RemovalReason::Violation
        )
    }

    /// A short name that does not change.
    pub fn nick(self) -> &'static str {
        match self {
            RemovalReason::Unpublished => "unpublished",
            RemovalReason::Closed => "closed",
            RemovalReason::Timeout => "timeout",
            RemovalReason::Violation => "violation",
            RemovalReason::Replaced => "replaced",
            RemovalReason::Disconnected => "disconnected",
            RemovalReason::Drained => "drained",
            RemovalReason::Stopped => "stopped",
        }
    }

    /// What the client is told, if anything: encoders do not come back after such a status.
    pub(crate) fn status(self) -> Option<Status> {
        match self {
            RemovalReason::Replaced => Some(Status::error(
                code::PUBLISH_BAD_NAME,
                "Another publisher has taken over this stream.",
            )),
            RemovalReason::Disconnected => Some(Status::error(
                code::PUBLISH_REJECTED,
                "The server has ended this publisher.",
            )),
            _ => None,
        }
    }
}
