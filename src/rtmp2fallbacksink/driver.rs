// SPDX-License-Identifier: MPL-2.0

//! Opens and closes connections as the schedule decides, on its own thread. The clock and the way
//! to connect are passed in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gst::prelude::*;
use parking_lot::Mutex;

use super::connection::{ConnectError, ServerConnection};
use super::coordinator::{Coordinator, DriverEvent, Wakeup};
use super::location::Location;
use super::schedule::{AttemptId, ConnectionAction, Schedule, ScheduleState};
use super::stats::Telemetry;
use super::{CAT, FallbackStatus};

/// Shortest time between two messages about dropped tags.
const DROP_REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Access to the clock and to servers.
pub(super) trait Environment {
    type Connection;

    fn now(&self) -> Instant;

    /// Waits for events, at most until the deadline.
    fn wait(&self, coordinator: &Coordinator, deadline: Option<Instant>) -> Wakeup;

    /// Starts to connect. The result is posted to `coordinator`; dropping the connection ends it.
    fn connect(
        &self,
        id: AttemptId,
        location: &Arc<Location>,
        coordinator: &Arc<Coordinator>,
    ) -> Result<Self::Connection, ConnectError>;
}

/// The production environment.
pub(super) struct SystemEnvironment;

impl Environment for SystemEnvironment {
    type Connection = ServerConnection;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wait(&self, coordinator: &Coordinator, deadline: Option<Instant>) -> Wakeup {
        coordinator.wait(deadline)
    }

    fn connect(
        &self,
        id: AttemptId,
        location: &Arc<Location>,
        coordinator: &Arc<Coordinator>,
    ) -> Result<ServerConnection, ConnectError> {
        ServerConnection::open(id, location, coordinator)
    }
}

pub(super) struct Driver<E: Environment> {
    pub(super) environment: E,
    pub(super) element: gst::glib::WeakRef<gst::Element>,
    pub(super) coordinator: Arc<Coordinator>,
    pub(super) locations: Vec<Arc<Location>>,
    pub(super) schedule: Schedule,
    pub(super) telemetry: Arc<Mutex<Telemetry>>,
    pub(super) connections: HashMap<AttemptId, (usize, E::Connection)>,
    pub(super) drop_reports: DropReports,
    /// INFO and WARNING messages are posted.
    pub(super) is_verbose: bool,
}

/// Times of the messages about dropped tags.
#[derive(Debug, Default)]
pub(super) struct DropReports {
    last: Option<Instant>,
    /// Time of the next one, if there is something to report.
    due: Option<Instant>,
}

impl<E: Environment> Driver<E> {
    /// Runs the thread.
    pub(super) fn run(mut self) {
        let actions = self.schedule.start(self.environment.now());
        self.perform_all(actions);
        loop {
            let deadlines = [self.schedule.deadline(), self.drop_reports.due];
            let deadline = deadlines.into_iter().flatten().min();
            match self.environment.wait(&self.coordinator, deadline) {
                Wakeup::Stop => break,
                Wakeup::Due(busy_since) => {
                    let now = self.environment.now();
                    let actions = self.schedule.tick(now, busy_since);
                    self.record_timeouts(&actions);
                    self.perform_all(actions);
                }
                Wakeup::Events(events) => {
                    for event in events {
                        let actions = self.handle_event(event);
                        self.perform_all(actions);
                    }
                }
            }
            self.report_due_drops();
            self.check_end();
        }
        let ids: Vec<AttemptId> = self.connections.keys().copied().collect();
        ids.into_iter().for_each(|id| self.close(id));
        self.coordinator.drop_rest();
        self.report_drops(self.coordinator.take_dropped());
    }

    fn handle_event(&mut self, event: DriverEvent) -> Vec<ConnectionAction> {
        let now = self.environment.now();
        match event {
            DriverEvent::Opened(id) => self.schedule.opened(id, now),
            DriverEvent::Failed(id, reason) => {
                let actions = self.schedule.failed(id, now);
                if !actions.is_empty() {
                    self.record_failure(id, &reason);
                }
                actions
            }
            DriverEvent::Finished(id) => {
                self.schedule
                    .finished(id, self.coordinator.is_finished(), now)
            }
            DriverEvent::Resumed if self.schedule.state() == ScheduleState::Idle => {
                self.schedule.start(now)
            }
            DriverEvent::Dropped => {
                let last = self.drop_reports.last;
                self.drop_reports.due = Some(last.map_or(now, |last| last + DROP_REPORT_INTERVAL));
                Vec::new()
            }
            DriverEvent::Resumed | DriverEvent::Ended => Vec::new(),
        }
    }

    /// Records the connections that the schedule has closed because of a timeout.
    fn record_timeouts(&self, actions: &[ConnectionAction]) {
        for action in actions {
            if let ConnectionAction::Close { id } = action {
                self.record_failure(*id, "The server accepted no data within the timeout");
            }
        }
    }

    fn record_failure(&self, id: AttemptId, reason: &str) {
        let location = self.connections.get(&id).map(|(location, _)| *location);
        let masked = location.and_then(|index| self.locations.get(index));
        let masked = masked.map_or("", |location| location.masked());
        if let Some(element) = self.element.upgrade() {
            let text = format!("{masked} has failed: {reason}");
            gst::warning!(CAT, obj = element, "{text}");
            if self.is_verbose {
                let message = gst::message::Warning::builder(gst::ResourceError::Write, &text);
                let _ = element.post_message(message.src(&element).build());
            }
        }
        self.telemetry.lock().fail(reason, self.environment.now());
    }

    fn perform_all(&mut self, actions: Vec<ConnectionAction>) {
        for action in actions {
            self.perform(action);
        }
        self.update_status();
    }

    fn perform(&mut self, action: ConnectionAction) {
        match action {
            ConnectionAction::Open { id, location } => self.open(id, location),
            ConnectionAction::Close { id } => self.close(id),
            ConnectionAction::Send { id } | ConnectionAction::TakeOver { id } => {
                self.coordinator.set_sender(id)
            }
            ConnectionAction::GiveUp => self.give_up(),
        }
    }

    fn open(&mut self, id: AttemptId, index: usize) {
        let Some(location) = self.locations.get(index) else {
            return;
        };
        self.telemetry.lock().attempts += 1;
        self.coordinator.open(id);
        match self.environment.connect(id, location, &self.coordinator) {
            Ok(connection) => {
                self.connections.insert(id, (index, connection));
            }
            Err(error) => self
                .coordinator
                .post(DriverEvent::Failed(id, error.to_string())),
        }
    }

    fn close(&mut self, id: AttemptId) {
        self.coordinator.close(id);
        self.connections.remove(&id);
    }

    fn give_up(&self) {
        self.coordinator.set_done();
        // Posted first, since many applications read no messages after an error.
        self.update_status();
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
            ("No server in locations accepted the stream in {rounds}. Last error: {last}")
        );
    }

    /// Posts a message about dropped tags when it is due.
    fn report_due_drops(&mut self) {
        let now = self.environment.now();
        if self.drop_reports.due.is_none_or(|due| due > now) {
            return;
        }
        self.drop_reports = DropReports {
            last: Some(now),
            due: None,
        };
        self.report_drops(self.coordinator.take_dropped());
    }

    fn report_drops(&self, (tags, total): (u64, u64)) {
        let Some(element) = self.element.upgrade().filter(|_| tags > 0) else {
            return;
        };
        gst::warning!(
            CAT,
            obj = element,
            "{tags} tags were dropped, {total} in all"
        );
        let structure = gst::Structure::builder("rtmp2-fallback-dropped")
            .field("version", 1u32)
            .field("tags", tags)
            .field("tags-dropped", total)
            .build();
        let message = gst::message::Element::builder(structure).src(&element);
        let _ = element.post_message(message.build());
    }

    /// Ends the wait at the end of the stream when the round is over without a connection.
    fn check_end(&self) {
        if self.coordinator.has_ended()
            && matches!(
                self.schedule.state(),
                ScheduleState::Idle | ScheduleState::Waiting | ScheduleState::GivenUp
            )
        {
            self.coordinator.set_done();
        }
    }

    /// Posts the status if it has changed.
    fn update_status(&self) {
        let (status, location) = match self.schedule.state() {
            ScheduleState::Idle | ScheduleState::Waiting => (FallbackStatus::Disconnected, None),
            ScheduleState::Trying { location } => (FallbackStatus::Connecting, Some(location)),
            ScheduleState::Sending { location } => (FallbackStatus::Connected, Some(location)),
            ScheduleState::GivenUp => (FallbackStatus::Error, None),
        };
        let mut telemetry = self.telemetry.lock();
        if !telemetry.set(status, location, self.environment.now()) {
            return;
        }
        let reason = telemetry.last_error();
        drop(telemetry);
        let Some(element) = self.element.upgrade() else {
            return;
        };
        let masked = location.and_then(|index| self.locations.get(index));
        let masked = masked.map_or("", |location| location.masked());
        self.inform(&element, status, masked, location, &reason);
        let place = location.map(|index| (index, masked));
        post_status(&element, status, place, self.schedule.rounds(), &reason);
    }

    /// Tells people of a change. An error posts its own message.
    fn inform(
        &self,
        element: &gst::Element,
        status: FallbackStatus,
        masked: &str,
        location: Option<usize>,
        reason: &str,
    ) {
        let count = self.locations.len();
        let why = match reason {
            "" => String::new(),
            reason => format!(" (the last error: {reason})"),
        };
        let text = match (status, location) {
            (FallbackStatus::Connecting, _) => format!("Connecting to {masked}{why}"),
            (FallbackStatus::Connected, Some(index)) if count > 1 => {
                format!("Sending to {masked}, location {} of {count}", index + 1)
            }
            (FallbackStatus::Connected, _) => format!("Sending to {masked}"),
            (FallbackStatus::Disconnected, _) => {
                format!("No server accepts the stream{why}: trying again after a pause")
            }
            (FallbackStatus::Error, _) => return,
        };
        gst::info!(CAT, obj = element, "{text}");
        if self.is_verbose {
            // gst-launch-1.0 prints the debug text alone.
            let message = gst::message::Info::builder(gst::ResourceError::OpenWrite, &text);
            let _ = element.post_message(message.debug(&text).src(element).build());
        }
    }
}

/// Announces the status by an element message and a property notification.
pub(super) fn post_status(
    element: &gst::Element,
    status: FallbackStatus,
    place: Option<(usize, &str)>,
    rounds: u32,
    last_error: &str,
) {
    let (index, masked) = place.map_or((-1, ""), |(index, masked)| (index as i32, masked));
    let structure = gst::Structure::builder("rtmp2-fallback-status")
        .field("version", 1u32)
        .field("status", status)
        .field("location-index", index)
        .field("location", masked)
        .field("rounds", rounds)
        .field("last-error", last_error)
        .build();
    let message = gst::message::Element::builder(structure).src(element);
    let _ = element.post_message(message.build());
    element.notify("status");
}

#[cfg(test)]
mod tests;
