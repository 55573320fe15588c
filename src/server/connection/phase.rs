// SPDX-License-Identifier: MPL-2.0

use std::sync::Arc;
use std::time::Instant;

use crate::server::config::StreamSettings;
use crate::server::connection::liveness;
use crate::server::connection::timer_table::{Timer, TimerTable};
use crate::server::port::connection_table::Stage;
use crate::server::stream::Stream;
use crate::server::stream::publisher_handle::PublisherHandle;

/// Phase of a connection.
///
/// ```text
///   Negotiating <----> Authorizing
///     ^    |   publish accepted
///     |    +------------------> Publishing
///     |                             | unpublish
///     +-------- Leaving <-----------+
///       closing grace is over,
///       or it publishes again
/// ```
#[derive(Debug)]
pub(super) enum Phase {
    /// The client has not published yet, or no more.
    Negotiating,
    /// The application decides about its request.
    Authorizing,
    Publishing(Published),
    /// It has ended its stream, and may close the connection by itself.
    Leaving(Published),
}

/// The stream of a publisher.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) stream: Arc<Stream>,
    pub(super) handle: Arc<PublisherHandle>,
    pub(super) settings: StreamSettings,
    settings_generation: u64,
}

impl Published {
    pub(super) fn new(stream: Arc<Stream>, handle: Arc<PublisherHandle>) -> Self {
        let settings_generation = stream.settings_generation();
        handle.note_settings(settings_generation);
        Published {
            settings: stream.settings(),
            stream,
            handle,
            settings_generation,
        }
    }

    /// Goes by the settings of the moment. Returns true if they have changed.
    pub(super) fn update_settings(&mut self) -> bool {
        let generation = self.stream.settings_generation();
        let has_changed = generation != self.settings_generation;
        if has_changed {
            self.settings = self.stream.settings();
            self.settings_generation = generation;
            self.handle.note_settings(generation);
        }
        has_changed
    }
}

impl Published {
    /// Sets the timers that the settings ask for. `idle_since` is the end of the last read's
    /// handling.
    pub(super) fn set_timers(&self, timers: &mut TimerTable, idle_since: Instant, is_pinged: bool) {
        let (settings, handle) = (&self.settings, &self.handle);
        let timeout = (!settings.timeout.is_zero()).then(|| idle_since + settings.timeout);
        timers.set(Timer::Timeout, timeout);
        let ping = idle_since + liveness::ping_after(settings.timeout);
        timers.set(Timer::Ping, (!is_pinged).then_some(ping));
        let can_stall = !settings.stall_timeout.is_zero() && !handle.is_stalled();
        let stall = || handle.last_media() + settings.stall_timeout;
        timers.set(Timer::Stall, can_stall.then(stall));
    }
}

impl Phase {
    pub(super) fn stage(&self) -> Stage {
        match self {
            Phase::Negotiating => Stage::Connected,
            Phase::Authorizing => Stage::Authorizing,
            Phase::Publishing(_) | Phase::Leaving(_) => Stage::Publishing,
        }
    }

    pub(super) fn published(&self) -> Option<&Published> {
        match self {
            Phase::Publishing(published) | Phase::Leaving(published) => Some(published),
            Phase::Negotiating | Phase::Authorizing => None,
        }
    }
}
