// SPDX-License-Identifier: MPL-2.0

//! Listening ports, their connections, and the streams that they publish.
//!
//! An element makes a [`PublishPoint`] and [`claim`]s a listening port for it. All elements of the
//! process that name one address share its listener. Each accepted connection has a thread that reads,
//! speaks RTMP and fills the media queue of the stream whose route matches.
//!
//! The folders form a stair, and each imports only those below it:
//! [`connection`] (one TCP client), [`port`] (listeners and what their connections share), [`routing`]
//! (publish points, routes, access rules), [`stream`] (the publisher, the media queue, the counters),
//! [`transport`] (TCP, TLS, PROXY), and the files here, which hold plain values.
//!
//! Lock order: registry, its counters, the routes of a listener, a stream table, a stream. All others
//! are leaves. No lock is held over a join, a read, a handler of the application, or a write that has
//! to wait for the client, except the lock of the writing half itself, which other threads only try.

mod callback_thread;
mod config;
mod connection;
mod error;
mod events;
mod log;
mod port;
mod publisher;
mod quality;
mod redact;
mod routing;
mod stats;
mod stream;
mod threads;
mod transport;

pub(crate) use callback_thread::is as is_callback_thread;
pub(crate) use config::{
    Leak, ListenerSettings, Policy, PortSettings, ProxyProtocol, QueueLimits, StreamSettings,
    TlsFiles,
};
pub(crate) use error::{ClaimError, ClaimErrorKind};
pub(crate) use events::{Observer, PublisherEvent};
pub(crate) use port::registry::{Claim, DrainControl, StreamClaim, process_stats};
#[cfg(test)]
pub(crate) use publisher::RemovalReason;
pub(crate) use publisher::{Publisher, ReconnectError, RejectReason};
pub(crate) use quality::{QualityLimits, Verdict};
pub(crate) use redact::{KeyMasking, Redacted, ShownKey, ShownPath};
pub(crate) use routing::access::{Access, AllowedAddresses};
pub(crate) use routing::authorizer::Authorizer;
pub(crate) use routing::publish_point::{PublishPoint, PublishPointConfig};
pub use routing::route::{RequestedPath, Route};
pub(crate) use routing::signing::SigningKey;
pub(crate) use stats::{CaptureStats, Dropped, LastError, StreamStats, Totals};
pub(crate) use stream::Stream;
pub(crate) use stream::direct_delivery::{Delivered, Downstream};
pub(crate) use stream::queue::{QueueEvent, QueueItem, QueueLevels, Wake};
pub(crate) use stream::table::StreamTable;

/// Claims the route of a publish point on an address. Port 0 is any free port, and never one that is
/// shared.
pub(crate) fn claim(host: &str, port: u16, point: &PublishPoint) -> Result<Claim, ClaimError> {
    port::registry::claim(host, port, point, connection::run)
}
