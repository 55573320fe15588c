// SPDX-License-Identifier: MPL-2.0

//! Listening sockets, their clients, and who may publish where.
//!
//! An element makes an [`Stream`], or a [`StreamTable`] that makes one for each stream, and [`claim`]s a
//! listening port for it. All elements of the
//! process that name one address share its listener; each accepted client has a
//! thread that reads, speaks RTMP and fills the media queue of the stream whose route
//! matches.
//!
//! Lock order: registry, its counters, routes of a listener, a table's streams, an stream's slot, its settings, its
//! queue, its notices. The counters of an stream, the connections of clients, the timers of a listener and
//! the writing half of a connection are leaves. No lock is held over a join, a read, a handler of
//! the application, or a write that has to wait for the client (but that of the writing half
//! itself, which others only try).

mod callback_thread;
mod connection;
mod events;
mod log;
mod port;
mod publisher;
mod redact;
mod routing;
mod stats;
mod stream;
mod transport;

pub use events::{Observer, PublisherEvent};
pub use port::listener::{ListenerSettings, PortSettings};
pub use port::process_counters::ProcessStats;
pub use port::registry::{
    Claim, ClaimError, ClaimErrorKind, DrainControl, StreamClaim, claim, process_stats,
};
pub use publisher::{Publisher, RejectReason, RemovalReason};
pub use redact::{Quoted, Redacted};
pub use routing::access::{Access, AllowedAddresses, InvalidNetwork};
pub use routing::publish_point::PublishPoint;
pub use routing::route::{
    InvalidRoute, InvalidTemplate, MatchedNames, RequestedPath, Route, Variables,
};
pub use stats::{LastError, MediaTotals, StreamStats};
pub use stream::queue::{
    Leak, MediaQueue, QueueEvent, QueueItem, QueueLevels, QueueLimits, Stopped,
};
pub use stream::table::StreamTable;
pub use stream::{
    ClientStats, Dropped, FrameStats, Policy, PublishPointConfig, ReconnectError, Stream,
    StreamSettings,
};
pub use transport::{ProxyProtocol, TlsError, TlsFiles};
