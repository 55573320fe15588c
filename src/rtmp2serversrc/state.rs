// SPDX-License-Identifier: MPL-2.0

//! The state of the stream: the one truth for applications and the pipeline.
//!
//! ```text
//!                       Started                     FramePushed
//!   STOPPED ------------------------> RECONFIGURING -----------> ACTIVE
//!      ^                               ^   ^     |                | |
//!      |                       Started |   +-----|--Reconfigured--+ |
//!      | Ended                         |         | Stalled, Lost    | Stalled, Lost
//!      +---------------------------- PAUSED <----+------------------+
//!                                      +---- Resumed: back to what it was
//! ```
//!
//! Ended leads to STOPPED from everywhere. While standby plays, the status is PAUSED, whatever it is
//! beneath: that of the publisher, which shows again with its first frame.
//!
//! ```text
//!   publisher's status --StandbyStarted--> PAUSED --StandbyEnded, FramePushed--> ACTIVE
//!                                             +----StandbyEnded, reconfigures--> RECONFIGURING
//! ```
//!
//! All inputs come from the streaming thread, in the order
//! of the media that they stand between, so each change is posted once and in its place.

use std::sync::Arc;

use super::{ConnectionState, StreamStatus};
use crate::server::Publisher;

/// An input of the state machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StateInput {
    /// Some client waits for the decision about its publish request, or none does any more.
    Authorizing(bool),
    Started(Arc<Publisher>),
    /// The first frame that a decoder can start with has left the element.
    FramePushed,
    /// A sequence header has changed.
    Reconfigured,
    /// No media arrives, though the connection is open.
    Stalled,
    Resumed,
    /// The connection is lost, and the publisher may return.
    Lost,
    Ended,
    /// Standby plays. `reconfigures`: decoders start afresh.
    StandbyStarted {
        reconfigures: bool,
    },
    /// The next media is the publisher's again.
    StandbyEnded {
        reconfigures: bool,
    },
}

/// The part of standby in the state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum StandbyPhase {
    #[default]
    Off,
    Playing,
    /// The first frame of the publisher is about to leave.
    Ending,
}

/// The state at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) connection: ConnectionState,
    pub(super) status: StreamStatus,
    /// Counts up whenever a decoder has to start afresh.
    pub(super) epoch: u64,
    /// The present publisher, or the last one.
    pub(super) publisher: Option<Arc<Publisher>>,
}

impl Default for Snapshot {
    fn default() -> Self {
        Snapshot {
            connection: ConnectionState::Disconnected,
            status: StreamStatus::Stopped,
            epoch: 0,
            publisher: None,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct StreamState {
    present: Snapshot,
    /// The state without standby.
    publisher: Snapshot,
    standby: StandbyPhase,
    /// Some client waits for a decision.
    is_authorizing: bool,
    /// The states that a stall has interrupted.
    interrupted: Option<(ConnectionState, StreamStatus)>,
}

impl StreamState {
    pub(super) fn present(&self) -> &Snapshot {
        &self.present
    }

    /// Applies an input, and returns the states that it leads through. The last one is the present.
    pub(super) fn apply(&mut self, input: StateInput) -> Vec<Snapshot> {
        self.apply_standby(&input);
        let mut states = self.apply_publisher(input);
        states.push(self.publisher.clone());
        let mut shown = Vec::new();
        for mut state in states {
            if self.standby != StandbyPhase::Off {
                state.status = StreamStatus::Paused;
            }
            if state != self.present {
                self.present = state.clone();
                shown.push(state);
            }
        }
        shown
    }

    fn apply_standby(&mut self, input: &StateInput) {
        let is_ending = self.standby == StandbyPhase::Ending;
        match input {
            StateInput::StandbyStarted { reconfigures } => {
                self.publisher.epoch += u64::from(*reconfigures);
                self.standby = StandbyPhase::Playing;
            }
            StateInput::StandbyEnded { reconfigures: true } => {
                self.interrupted = None;
                self.publisher.epoch += 1;
                let connection = match self.publisher.connection {
                    ConnectionState::Negotiating => ConnectionState::Negotiating,
                    _ => ConnectionState::Reconfiguring,
                };
                self.set(connection, StreamStatus::Reconfiguring);
                self.standby = StandbyPhase::Off;
            }
            // Nobody is to follow.
            StateInput::StandbyEnded { .. } if self.publisher.status == StreamStatus::Stopped => {
                self.standby = StandbyPhase::Off;
            }
            StateInput::StandbyEnded { .. } => self.standby = StandbyPhase::Ending,
            StateInput::FramePushed if is_ending => {
                self.interrupted = None;
                self.set(ConnectionState::Streaming, StreamStatus::Active);
                self.standby = StandbyPhase::Off;
            }
            StateInput::Lost | StateInput::Ended if is_ending => self.standby = StandbyPhase::Off,
            _ => {}
        }
    }

    /// Applies an input to the state without standby, and returns states on the way.
    fn apply_publisher(&mut self, input: StateInput) -> Vec<Snapshot> {
        use ConnectionState as C;
        use StreamStatus as S;
        let before = self.publisher.clone();
        let is_playing = self.standby == StandbyPhase::Playing;
        let mut states = Vec::new();
        match input {
            StateInput::Authorizing(is_authorizing) => {
                self.is_authorizing = is_authorizing;
                if !is_authorizing && before.connection == C::Authenticating {
                    self.publisher.connection = C::Disconnected;
                }
            }
            StateInput::Started(publisher) => {
                self.interrupted = None;
                // Its configuration may be the one that standby plays.
                self.publisher.epoch += u64::from(!is_playing);
                self.publisher.publisher = Some(publisher);
                self.set(C::Negotiating, S::Reconfiguring);
            }
            StateInput::FramePushed if before.status == S::Reconfiguring => {
                self.set(C::Streaming, S::Active);
            }
            // The frame left while the publisher fell silent again.
            StateInput::FramePushed => {
                let interrupted = self.interrupted.as_mut();
                if let Some(state) = interrupted.filter(|(_, status)| *status == S::Reconfiguring) {
                    *state = (C::Streaming, S::Active);
                }
            }
            // The file that plays has another one.
            StateInput::Reconfigured if is_playing => self.publisher.epoch += 1,
            StateInput::Reconfigured => {
                self.interrupted = None;
                self.publisher.epoch += 1;
                self.set(C::Reconfiguring, S::Reconfiguring);
            }
            StateInput::Stalled if matches!(before.status, S::Active | S::Reconfiguring) => {
                self.interrupted = Some((before.connection, before.status));
                self.set(C::Recovering, S::Paused);
            }
            StateInput::Resumed => {
                if let Some((connection, status)) = self.interrupted.take() {
                    self.set(connection, status);
                }
            }
            StateInput::Lost => {
                self.interrupted = None;
                self.set(C::Recovering, S::Paused);
            }
            StateInput::Ended => {
                self.interrupted = None;
                self.set(C::Disconnected, S::Stopped);
            }
            StateInput::Stalled
            | StateInput::StandbyStarted { .. }
            | StateInput::StandbyEnded { .. } => {}
        }
        if self.publisher != before {
            states.push(self.publisher.clone());
        }
        // A client that waits is seen once no publisher is.
        if self.is_authorizing && self.publisher.connection == C::Disconnected {
            for connection in [C::SocketConnected, C::Authenticating] {
                self.publisher.connection = connection;
                states.push(self.publisher.clone());
            }
        }
        states
    }

    fn set(&mut self, connection: ConnectionState, status: StreamStatus) {
        self.publisher.connection = connection;
        self.publisher.status = status;
    }
}

#[cfg(test)]
mod tests {
    use super::ConnectionState::{
        Authenticating, Disconnected, Negotiating, Recovering, SocketConnected, Streaming,
    };
    use super::StreamStatus::{Active, Paused, Reconfiguring, Stopped};
    use super::*;

    type Status = (ConnectionState, StreamStatus, u64);

    fn publisher() -> Arc<Publisher> {
        Arc::new(Publisher::example(1))
    }

    /// Returns connection state, stream status and epoch after each change.
    fn run(inputs: impl IntoIterator<Item = StateInput>) -> Vec<Status> {
        let mut state = StreamState::default();
        let states = inputs.into_iter().flat_map(|input| state.apply(input));
        let names = |s: Snapshot| (s.connection, s.status, s.epoch);
        states.map(names).collect()
    }

    #[test]
    fn publisher_starts_streams_and_ends() {
        let inputs = [
            StateInput::Authorizing(true),
            StateInput::Started(publisher()),
            StateInput::Authorizing(false),
            StateInput::FramePushed,
            StateInput::FramePushed,
            StateInput::Ended,
            StateInput::Ended,
        ];
        let expected = [
            (SocketConnected, Stopped, 0),
            (Authenticating, Stopped, 0),
            (Negotiating, Reconfiguring, 1),
            (Streaming, Active, 1),
            (Disconnected, Stopped, 1),
        ];
        assert_eq!(run(inputs), expected);
    }

    #[test]
    fn stall_ends_in_the_state_before_it() {
        let inputs = [
            StateInput::Started(publisher()),
            StateInput::Stalled,
            StateInput::Resumed,
            StateInput::FramePushed,
            StateInput::Stalled,
            StateInput::Stalled,
            StateInput::Resumed,
            StateInput::Resumed,
        ];
        let expected = [
            (Negotiating, Reconfiguring, 1),
            (Recovering, Paused, 1),
            (Negotiating, Reconfiguring, 1),
            (Streaming, Active, 1),
            (Recovering, Paused, 1),
            (Streaming, Active, 1),
        ];
        assert_eq!(run(inputs), expected);
    }

    #[test]
    fn frames_that_leave_during_a_stall_count() {
        let inputs = [
            StateInput::Started(publisher()),
            StateInput::Stalled,
            StateInput::FramePushed,
            StateInput::Resumed,
            StateInput::Stalled,
            StateInput::Reconfigured,
            StateInput::Resumed,
        ];
        let expected = [
            (Negotiating, Reconfiguring, 1),
            (Recovering, Paused, 1),
            (Streaming, Active, 1),
            (Recovering, Paused, 1),
            (ConnectionState::Reconfiguring, Reconfiguring, 2),
        ];
        assert_eq!(run(inputs), expected);
    }

    #[test]
    fn lost_publisher_returns_with_a_new_epoch() {
        let inputs = [
            StateInput::Started(publisher()),
            StateInput::FramePushed,
            StateInput::Lost,
            // A client asks meanwhile: the stream is in recovery all the same.
            StateInput::Authorizing(true),
            StateInput::Authorizing(false),
            StateInput::Started(publisher()),
            StateInput::FramePushed,
            StateInput::Reconfigured,
            StateInput::FramePushed,
            StateInput::Lost,
            StateInput::Ended,
        ];
        let expected = [
            (Negotiating, Reconfiguring, 1),
            (Streaming, Active, 1),
            (Recovering, Paused, 1),
            (Negotiating, Reconfiguring, 2),
            (Streaming, Active, 2),
            (ConnectionState::Reconfiguring, Reconfiguring, 3),
            (Streaming, Active, 3),
            (Recovering, Paused, 3),
            (Disconnected, Stopped, 3),
        ];
        assert_eq!(run(inputs), expected);
    }

    #[test]
    fn waiting_clients_are_seen_after_the_publisher_has_left() {
        let inputs = [
            StateInput::Started(publisher()),
            StateInput::Authorizing(true),
            StateInput::Ended,
            StateInput::Authorizing(false),
        ];
        let expected = [
            (Negotiating, Reconfiguring, 1),
            (Disconnected, Stopped, 1),
            (SocketConnected, Stopped, 1),
            (Authenticating, Stopped, 1),
            (Disconnected, Stopped, 1),
        ];
        assert_eq!(run(inputs), expected);
    }

    #[test]
    fn rejected_client_leaves_no_trace() {
        let inputs = [
            StateInput::Authorizing(true),
            StateInput::Authorizing(false),
            StateInput::Authorizing(false),
            StateInput::Ended,
        ];
        assert_eq!(
            run(inputs),
            [
                (SocketConnected, Stopped, 0),
                (Authenticating, Stopped, 0),
                (Disconnected, Stopped, 0)
            ]
        );
    }

    const STARTED: StateInput = StateInput::StandbyStarted {
        reconfigures: false,
    };
    const ENDED: StateInput = StateInput::StandbyEnded {
        reconfigures: false,
    };

    #[test]
    fn standby_with_the_same_configuration_counts_no_epoch() {
        let inputs = [
            StateInput::Started(publisher()),
            StateInput::FramePushed,
            STARTED,
            StateInput::Stalled,
            StateInput::Lost,
            StateInput::Started(publisher()),
            ENDED,
            StateInput::FramePushed,
            // It falls silent, and sends late.
            STARTED,
            StateInput::Stalled,
            StateInput::Resumed,
            ENDED,
            StateInput::FramePushed,
        ];
        let expected = [
            (Negotiating, Reconfiguring, 1),
            (Streaming, Active, 1),
            (Streaming, Paused, 1),
            (Recovering, Paused, 1),
            (Negotiating, Paused, 1),
            (Streaming, Active, 1),
            (Streaming, Paused, 1),
            (Recovering, Paused, 1),
            (Streaming, Paused, 1),
            (Streaming, Active, 1),
        ];
        assert_eq!(run(inputs), expected);
    }

    #[test]
    fn standby_with_another_configuration_counts_an_epoch_at_each_change() {
        let inputs = [
            StateInput::StandbyStarted { reconfigures: true },
            StateInput::Started(publisher()),
            StateInput::StandbyEnded { reconfigures: true },
            StateInput::FramePushed,
            StateInput::StandbyStarted { reconfigures: true },
            StateInput::StandbyEnded { reconfigures: true },
            StateInput::FramePushed,
        ];
        let expected = [
            (Disconnected, Paused, 1),
            (Negotiating, Paused, 1),
            (Negotiating, Reconfiguring, 2),
            (Streaming, Active, 2),
            (Streaming, Paused, 3),
            (ConnectionState::Reconfiguring, Reconfiguring, 4),
            (Streaming, Active, 4),
        ];
        assert_eq!(run(inputs), expected);
    }

    #[test]
    fn stream_that_ends_while_standby_plays_is_stopped() {
        let inputs = [
            StateInput::Started(publisher()),
            StateInput::FramePushed,
            StateInput::Lost,
            STARTED,
            StateInput::Ended,
            ENDED,
        ];
        let expected = [
            (Negotiating, Reconfiguring, 1),
            (Streaming, Active, 1),
            (Recovering, Paused, 1),
            (Disconnected, Paused, 1),
            (Disconnected, Stopped, 1),
        ];
        assert_eq!(run(inputs), expected);
    }
}
