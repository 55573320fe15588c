// SPDX-License-Identifier: MPL-2.0

//! Listening sockets, their clients, and who may publish where.
//!
//! An element makes an [`Intake`] and [`claim`]s a listening port for it. All elements of the
//! process that name one address share its listener; each accepted client has a
//! thread that reads, speaks RTMP and fills the media queue of the intake whose route
//! matches.
//!
//! Lock order: registry, then clients or routes of a listener, then an intake's publisher, then
//! its queue. No lock is held over a join, a read or a write.

mod client;
mod intake;
mod listener;
mod outbound;
mod queue;
mod registry;
mod route;
mod secret;

use std::sync::LazyLock;

pub use intake::{ClientStats, Intake, IntakeSettings, Publisher};
pub use listener::ListenerSettings;
pub use queue::{Item, Leak, MediaQueue, QueueLevels, QueueLimits, Stopped};
pub use registry::{Claim, ClaimError, claim};
pub use route::Route;
pub use secret::{Secret, Shown};

pub(crate) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rtmp2server",
        gst::DebugColorFlags::empty(),
        Some("RTMP server"),
    )
});
