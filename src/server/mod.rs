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

mod acceptor;
mod access;
mod callback_thread;
mod client;
mod connection_table;
mod counters;
mod listener;
mod observer;
mod process_counters;
mod publish_point;
mod publisher;
mod publisher_handle;
mod queue;
mod redact;
mod registry;
mod route;
mod rules;
mod stream;
mod table;
mod transport;

use std::sync::LazyLock;

pub use access::{Access, AllowedAddresses, InvalidNetwork};
pub use counters::{LastError, MediaTotals, StreamStats};
pub use listener::{ListenerSettings, PortSettings};
pub use observer::{Observer, PublisherEvent};
pub use process_counters::ProcessStats;
pub use publish_point::PublishPoint;
pub use publisher::{Publisher, RejectReason, RemovalReason};
pub use queue::{Leak, MediaQueue, QueueEvent, QueueItem, QueueLevels, QueueLimits, Stopped};
pub use redact::{Quoted, Redacted};
pub use registry::{
    Claim, ClaimError, ClaimErrorKind, DrainControl, StreamClaim, claim, process_stats,
};
pub use route::{InvalidRoute, InvalidTemplate, MatchedNames, RequestedPath, Route, Variables};
pub use stream::{
    ClientStats, Dropped, FrameStats, Policy, PublishPointConfig, ReconnectError, Stream,
    StreamSettings,
};
pub use table::StreamTable;
pub use transport::{ProxyProtocol, TlsError, TlsFiles};

pub(crate) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rtmp2server",
        gst::DebugColorFlags::empty(),
        Some("RTMP server"),
    )
});
