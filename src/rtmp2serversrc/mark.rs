// SPDX-License-Identifier: MPL-2.0

use std::sync::Arc;
use std::time::Duration;

use crate::server::{Publisher, QueueEvent};

/// An event that stands between the tags of the feed.
#[derive(Debug)]
pub(super) enum Mark {
    Started(Arc<Publisher>),
    Stalled {
        since_last_byte: Duration,
    },
    Resumed,
    Lost,
    Dropped,
    /// Some client waits for the decision about its publish request, or none does any more.
    Authorizing(bool),
    Event(QueueEvent),
    Ended,
}
