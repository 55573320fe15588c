// SPDX-License-Identifier: MPL-2.0

//! Listening sockets, their clients, and who may publish where.
//!
//! An element makes an [`Intake`], or a [`Lobby`] that makes one for each stream, and [`claim`]s a
//! listening port for it. All elements of the
//! process that name one address share its listener; each accepted client has a
//! thread that reads, speaks RTMP and fills the media queue of the intake whose route
//! matches.
//!
//! Lock order: registry, its ledger, routes of a listener, a lobby's streams, an intake's seat, its settings, its
//! queue, its notices. The tally of an intake, the crowd of clients, the timers of a listener and
//! the writing half of a connection are leaves. No lock is held over a join, a read, a handler of
//! the application, or a write that has to wait for the client (but that of the writing half
//! itself, which others only try).

mod acceptor;
mod access;
mod client;
mod crowd;
mod entrance;
mod intake;
mod ledger;
mod link;
mod listener;
mod lobby;
mod observer;
mod own_thread;
mod publisher;
mod queue;
mod registry;
mod route;
mod secret;
mod taker;
mod tally;
mod transport;

use std::sync::LazyLock;

pub use access::{Access, AllowedAddresses, InvalidNetwork};
pub use intake::{
    ClientStats, Dropped, FrameStats, Intake, IntakeConfig, IntakeSettings, NotAsked, Policy,
};
pub use ledger::ProcessStats;
pub use listener::{ListenerSettings, PortSettings};
pub use lobby::Lobby;
pub use observer::{Notice, Observer};
pub use publisher::{Publisher, Refusal, Removal};
pub use queue::{Event, Item, Leak, MediaQueue, QueueLevels, QueueLimits, Stopped};
pub use registry::{Claim, ClaimError, ClaimErrorKind, DrainControl, Stream, claim, process_stats};
pub use route::{InvalidRoute, InvalidTemplate, Matched, Request, Route, Variables};
pub use secret::{Secret, Shown};
pub use taker::Taker;
pub use tally::{IntakeStats, LastError, Totals};
pub use transport::{ProxyProtocol, TlsError, TlsFiles};

pub(crate) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rtmp2server",
        gst::DebugColorFlags::empty(),
        Some("RTMP server"),
    )
});
