// SPDX-License-Identifier: MPL-2.0

//! Publishers, and the reasons for which they are rejected or removed.

use std::net::SocketAddr;
use std::time::Instant;

use crate::rtmp::status::{Status, code};

/// Names of a route's variables with their values, in the order of the template.
pub(super) type Variables = Vec<(String, String)>;

/// Facts about a client that publishes, or asks to.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Publisher {
    pub client: u64,
    /// The publisher's own address, also behind a load balancer that sends a PROXY header.
    pub address: SocketAddr,
    pub application: String,
    /// Empty for a client that was rejected before it named one.
    pub stream_key: String,
    /// Queries of application and stream key, without the question mark.
    pub query: String,
    pub tc_url: String,
    pub flash_ver: String,
    pub tls: bool,
    pub variables: Variables,
    pub since: Instant,
    /// Number of its stream, where the element has several. Known once it is accepted.
    pub stream: Option<u32>,
}

impl Publisher {
    /// Returns application and stream key in one.
    pub(crate) fn path(&self) -> String {
        let (application, key) = (&self.application, &self.stream_key);
        if key.is_empty() {
            application.clone()
        } else {
            format!("{application}/{key}")
        }
    }
}

#[cfg(test)]
impl Publisher {
    /// Returns a publisher of `live/key` on this machine.
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
    /// Leaves out stream key and query, which are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher")
            .field("client", &self.client)
            .field("address", &self.address)
            .field("application", &self.application)
            .finish_non_exhaustive()
    }
}

/// Reason why a client may not publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RejectReason {
    NoApplication,
    NoStream,
    WrongCredentials,
    NotAuthenticated,
    Address,
    /// The URL has no signature, or no time at which it expires.
    SignatureMissing,
    SignatureWrong,
    SignatureExpired,
    /// The signature is for another address.
    SignatureAddress,
    /// The authorization server says no.
    AuthDenied,
    AuthUnreachable,
    /// The authorization server has not answered in time.
    AuthTimeout,
    /// The answer of the authorization server is neither yes nor no.
    AuthBadAnswer,
    /// The authorization server has named another server.
    Redirected,
    /// The application says no.
    Denied,
    Busy,
    /// The element has `max-streams` streams.
    Full,
    Ended,
    Draining,
}

impl RejectReason {
    /// Returns the short name that messages and signals carry. It does not change.
    pub(crate) fn nick(self) -> &'static str {
        match self {
            RejectReason::NoApplication => "no-application",
            RejectReason::NoStream => "no-stream",
            RejectReason::WrongCredentials => "wrong-credentials",
            RejectReason::NotAuthenticated => "not-authenticated",
            RejectReason::Address => "address",
            RejectReason::SignatureMissing => "signature-missing",
            RejectReason::SignatureWrong => "signature-wrong",
            RejectReason::SignatureExpired => "signature-expired",
            RejectReason::SignatureAddress => "signature-address",
            RejectReason::AuthDenied => "auth-denied",
            RejectReason::AuthUnreachable => "auth-unreachable",
            RejectReason::AuthTimeout => "auth-timeout",
            RejectReason::AuthBadAnswer => "auth-bad-answer",
            RejectReason::Redirected => "redirected",
            RejectReason::Denied => "denied",
            RejectReason::Busy => "busy",
            RejectReason::Full => "full",
            RejectReason::Ended => "ended",
            RejectReason::Draining => "draining",
        }
    }

    /// Returns the text for an element's `last-error`.
    pub(crate) fn last_error(self) -> String {
        format!("refused: {}", self.nick())
    }

    /// Returns the status that the client is sent.
    pub(crate) fn status(self) -> Status {
        let (code, description) = match self {
            RejectReason::NoApplication => (
                code::CONNECT_INVALID_APP,
                "There is no such application here.",
            ),
            RejectReason::NoStream => (
                code::PUBLISH_BAD_NAME,
                "No stream of this application and stream key is accepted here.",
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
                "This stream is not accepted from your address.",
            ),
            RejectReason::SignatureMissing => (
                code::PUBLISH_DENIED,
                "This URL is not signed: it needs expires and signature.",
            ),
            RejectReason::SignatureWrong => {
                (code::PUBLISH_DENIED, "The signature of this URL is wrong.")
            }
            RejectReason::SignatureExpired => {
                (code::PUBLISH_DENIED, "This URL has expired: get a new one.")
            }
            RejectReason::SignatureAddress => (
                code::PUBLISH_DENIED,
                "This URL is signed for another address than yours.",
            ),
            RejectReason::AuthDenied => (
                code::PUBLISH_DENIED,
                "You may not publish this stream: check user name, password and stream key.",
            ),
            // These pass, and encoders connect again after this code.
            RejectReason::AuthUnreachable => (
                code::CONNECT_APP_SHUTDOWN,
                "The authorization server can't be reached: try again later.",
            ),
            RejectReason::AuthTimeout => (
                code::CONNECT_APP_SHUTDOWN,
                "The authorization server does not answer: try again later.",
            ),
            RejectReason::AuthBadAnswer => (
                code::CONNECT_APP_SHUTDOWN,
                "The authorization server has answered neither yes nor no: try again later.",
            ),
            RejectReason::Redirected => (
                code::PUBLISH_REJECTED,
                "This stream has to be published to another server.",
            ),
            RejectReason::Denied => (
                code::PUBLISH_DENIED,
                "The server has rejected this publisher.",
            ),
            RejectReason::Busy => (
                code::PUBLISH_BAD_NAME,
                "This stream has a publisher already.",
            ),
            RejectReason::Full => (
                code::PUBLISH_BAD_NAME,
                "There are as many streams here as there may be.",
            ),
            RejectReason::Ended => (code::PUBLISH_BAD_NAME, "This stream has ended."),
            // Encoders give up after the codes of publish, and connect again after this one.
            RejectReason::Draining => (
                code::CONNECT_APP_SHUTDOWN,
                "This server is about to stop: connect again.",
            ),
        };
        Status::error(code, description)
    }
}

/// Reason why a publisher is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RemovalReason {
    /// It has ended its stream.
    Unpublished,
    /// Its connection was closed or lost without that.
    Closed,
    /// It sent nothing for `timeout`.
    Timeout,
    /// It broke the protocol.
    Violation,
    /// Another one has taken its place.
    Replaced,
    /// The application disconnected it.
    Disconnected,
    /// The time that the authorization server has given it is over.
    MaxDuration,
    /// The element is being drained.
    Drained,
    /// The element stops.
    Stopped,
}

impl RemovalReason {
    #[cfg(test)]
    pub(crate) const ALL: [RemovalReason; 9] = [
        RemovalReason::Unpublished,
        RemovalReason::Closed,
        RemovalReason::Timeout,
        RemovalReason::Violation,
        RemovalReason::Replaced,
        RemovalReason::Disconnected,
        RemovalReason::MaxDuration,
        RemovalReason::Drained,
        RemovalReason::Stopped,
    ];

    /// Returns true where neither side meant the publisher to go, so that it may return.
    pub(crate) fn is_loss(self) -> bool {
        matches!(
            self,
            RemovalReason::Closed | RemovalReason::Timeout | RemovalReason::Violation
        )
    }

    /// Returns the short name that messages and signals carry. It does not change.
    pub(crate) fn nick(self) -> &'static str {
        match self {
            RemovalReason::Unpublished => "unpublished",
            RemovalReason::Closed => "closed",
            RemovalReason::Timeout => "timeout",
            RemovalReason::Violation => "violation",
            RemovalReason::Replaced => "replaced",
            RemovalReason::Disconnected => "disconnected",
            RemovalReason::MaxDuration => "max-duration",
            RemovalReason::Drained => "drained",
            RemovalReason::Stopped => "stopped",
        }
    }

    /// Returns the status that the client is sent, if any. Encoders do not return after one.
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
            RemovalReason::MaxDuration => Some(Status::error(
                code::PUBLISH_REJECTED,
                "The time for which this publisher was allowed to publish is over.",
            )),
            _ => None,
        }
    }
}

/// Reason why a publisher was not asked to reconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReconnectError {
    NoPublisher,
    /// The client has not announced that it supports it.
    NotSupported,
    /// The client does not read what it is sent.
    NotReading,
}
