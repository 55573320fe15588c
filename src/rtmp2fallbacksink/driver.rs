// SPDX-License-Identifier: MPL-2.0

//! Opens and closes connections as the schedule has it, on a thread of its own. Its clock and its
//! connections are passed in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use gst::prelude::*;
use parking_lot::Mutex;

use super::connection::{CantStart, Connection};
use super::imp::CAT;
use super::location::Location;
use super::schedule::{Action, Id, Schedule, State};
use super::shared::{Event, Shared, Wakeup};
use super::stats::Telemetry;
use super::{Rtmp2FallbackSink, Status};

/// The clock, and the way to servers.
pub(super) trait Environment {
    type Connection;

    fn now(&self) -> Instant;

    /// Waits for what is next, no longer than to the deadline.
    fn wait(&self, shared: &Shared, deadline: Option<Instant>) -> Wakeup;

    /// Begins to connect. What becomes of it is told to `shared`; dropping it ends it.
    fn connect(
        &self,
        id: Id,
        location: &Arc<Location>,
        shared: &Arc<Shared>,
    ) -> Result<Self::Connection, CantStart>;
}

/// That of everybody.
pub(super) struct SystemEnvironment;

impl Environment for SystemEnvironment {
    type Connection = Connection;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wait(&self, shared: &Shared, deadline: Option<Instant>) -> Wakeup {
        shared.wait(deadline)
    }

    fn connect(
        &self,
        id: Id,
        location: &Arc<Location>,
        shared: &Arc<Shared>,
    ) -> Result<Connection, CantStart> {
        Connection::open(id, location, shared)
    }
}

pub(super) struct Driver<W: Environment> {
    pub(super) world: W,
    pub(super) element: gst::glib::WeakRef<Rtmp2FallbackSink>,
    pub(super) shared: Arc<Shared>,
    pub(super) locations: Vec<Arc<Location>>,
    pub(super) schedule: Schedule,
    pub(super) telemetry: Arc<Mutex<Telemetry>>,
    pub(super) connections: HashMap<Id, (usize, W::Connection)>,
}

impl<W: Environment> Driver<W> {
    /// The thread.
    pub(super) fn run(mut self) {
        let actions = self.schedule.start(self.world.now());
        self.perform_all(actions);
        loop {
            match self.world.wait(&self.shared, self.schedule.deadline()) {
                Wakeup::Stop => break,
                Wakeup::Due(busy_since) => {
                    let now = self.world.now();
                    let actions = self.schedule.tick(now, busy_since);
                    self.note_timeouts(&actions);
                    self.perform_all(actions);
                }
                Wakeup::Events(events) => {
                    for event in events {
                        let actions = self.hear(event);
                        self.perform_all(actions);
                    }
                }
            }
            self.check_end();
        }
        let ids: Vec<Id> = self.connections.keys().copied().collect();
        ids.into_iter().for_each(|id| self.close(id));
    }

    fn hear(&mut self, event: Event) -> Vec<Action> {
        let now = self.world.now();
        match event {
            Event::Opened(id) => self.schedule.opened(id, now),
            Event::Failed(id, reason) => {
                let actions = self.schedule.failed(id, now);
                if !actions.is_empty() {
                    self.note_failure(id, &reason);
                }
                actions
            }
            Event::Finished(id) => self.schedule.finished(id, self.shared.is_over(), now),
            Event::Begun if self.schedule.state() == State::Idle => self.schedule.start(now),
            Event::Begun | Event::Ended => Vec::new(),
        }
    }

    /// The schedule has ended a connection whose time was over.
    fn note_timeouts(&self, actions: &[Action]) {
        for action in actions {
            if let Action::Close { id } = action {
                self.note_failure(*id, "The server took nothing for the time of timeout");
            }
        }
    }

    fn note_failure(&self, id: Id, reason: &str) {
        let location = self.connections.get(&id).map(|(location, _)| *location);
        let shown = location.and_then(|index| self.locations.get(index));
        let shown = shown.map_or("", |location| location.shown());
        if let Some(element) = self.element.upgrade() {
            gst::warning!(CAT, obj = element, "{shown}: {reason}");
        }
        self.telemetry.lock().fail(reason, self.world.now());
    }

    fn perform_all(&mut self, actions: Vec<Action>) {
        for action in actions {
            self.perform(action);
        }
        self.tell_status();
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Open { id, location } => self.open(id, location),
            Action::Close { id } => self.close(id),
            Action::Send { id } | Action::TakeOver { id } => self.shared.set_sender(id),
            Action::GiveUp => self.give_up(),
        }
    }

    fn open(&mut self, id: Id, index: usize) {
        let Some(location) = self.locations.get(index) else {
            return;
        };
        self.telemetry.lock().attempts += 1;
        self.shared.open(id);
        match self.world.connect(id, location, &self.shared) {
            Ok(connection) => {
                self.connections.insert(id, (index, connection));
            }
            Err(error) => self.shared.tell(Event::Failed(id, error.to_string())),
        }
    }

    fn close(&mut self, id: Id) {
        self.shared.close(id);
        self.connections.remove(&id);
    }

    fn give_up(&self) {
        self.shared.set_done();
        // First, since many read no messages behind an error.
        self.tell_status();
        let Some(element) = self.element.upgrade() else {
            return;
        };
        let last = self.telemetry.lock().last_error();
        let rounds = match self.schedule.rounds() {
            1 => "1 round".to_owned(),
            rounds => format!("{rounds} rounds"),
        };
        gst::element_error!(
            element,
            gst::ResourceError::OpenWrite,
            ("No server of locations takes the stream after {rounds}. The last one: {last}")
        );
    }

    /// After the end of the stream nobody is waited for that is not there by the end of a round.
    fn check_end(&self) {
        if self.shared.has_ended()
            && matches!(
                self.schedule.state(),
                State::Idle | State::Waiting | State::GivenUp
            )
        {
            self.shared.set_done();
        }
    }

    /// Tells of a change, once.
    fn tell_status(&self) {
        let (status, location) = match self.schedule.state() {
            State::Idle | State::Waiting => (Status::Disconnected, None),
            State::Trying { location } => (Status::Connecting, Some(location)),
            State::Sending { location } => (Status::Connected, Some(location)),
            State::GivenUp => (Status::Error, None),
        };
        let mut telemetry = self.telemetry.lock();
        if !telemetry.set(status, location, self.world.now()) {
            return;
        }
        let reason = telemetry.last_error();
        drop(telemetry);
        let Some(element) = self.element.upgrade() else {
            return;
        };
        let shown = location.and_then(|index| self.locations.get(index));
        let shown = shown.map_or("", |location| location.shown());
        gst::info!(CAT, obj = element, "{status:?} {shown}");
        let place = location.map(|index| (index, shown));
        tell(&element, status, place, self.schedule.rounds(), &reason);
    }
}

/// By a message and a notification.
pub(super) fn tell(
    element: &Rtmp2FallbackSink,
    status: Status,
    place: Option<(usize, &str)>,
    rounds: u32,
    last_error: &str,
) {
    let (index, shown) = place.map_or((-1, ""), |(index, shown)| (index as i32, shown));
    let structure = gst::Structure::builder("rtmp2-fallback-status")
        .field("version", 1u32)
        .field("status", status)
        .field("location-index", index)
        .field("location", shown)
        .field("rounds", rounds)
        .field("last-error", last_error)
        .build();
    let message = gst::message::Element::builder(structure).src(element);
    let _ = element.post_message(message.build());
    element.notify("status");
}

#[cfg(test)]
mod tests;
