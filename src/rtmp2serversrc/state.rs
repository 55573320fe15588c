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
//! Ended leads to STOPPED from everywhere. All inputs come from the streaming thread, in the order
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
        use ConnectionState as C;
        use StreamStatus as S;
        let before = self.present.clone();
        let mut states = Vec::new();
        match input {
            StateInput::Authorizing(is_authorizing) => {
                self.is_authorizing = is_authorizing;
                if !is_authorizing && before.connection == C::Authenticating {
                    self.present.connection = C::Disconnected;
                }
            }
            StateInput::Started(publisher) => {
                self.interrupted = None;
                self.present.epoch += 1;
                self.present.publisher = Some(publisher);
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
            StateInput::Reconfigured => {
                self.interrupted = None;
                self.present.epoch += 1;
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
            StateInput::Stalled => {}
        }
        if self.present != before {
            states.push(self.present.clone());
        }
        // A client that waits is seen once no publisher is.
        if self.is_authorizing && self.present.connection == C::Disconnected {
            for connection in [C::SocketConnected, C::Authenticating] {
                self.present.connection = connection;
                states.push(self.present.clone());
            }
        }
        states
    }

    fn set(&mut self, connection: ConnectionState, status: StreamStatus) {
        self.present.connection = connection;
        self.present.status = status;
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
}
