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
pub(super) enum Input {
    /// A client asks to publish, and is not authorized yet.
    Asked,
    /// That client was rejected, or has disconnected.
    Withdrawn,
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
pub(super) struct State {
    now: Snapshot,
    /// The states that a stall has interrupted.
    interrupted: Option<(ConnectionState, StreamStatus)>,
}

impl State {
    pub(super) fn now(&self) -> &Snapshot {
        &self.now
    }

    /// Applies an input, and returns the states that it leads through. The last one is the present.
    pub(super) fn apply(&mut self, input: Input) -> Vec<Snapshot> {
        use ConnectionState as C;
        use StreamStatus as S;
        let before = self.now.clone();
        let mut states = Vec::new();
        match input {
            Input::Asked if before.connection == C::Disconnected => {
                self.now.connection = C::SocketConnected;
                states.push(self.now.clone());
                self.now.connection = C::Authenticating;
            }
            Input::Withdrawn if before.connection == C::Authenticating => {
                self.now.connection = C::Disconnected;
            }
            Input::Started(publisher) => {
                self.interrupted = None;
                self.now.epoch += 1;
                self.now.publisher = Some(publisher);
                self.set(C::Negotiating, S::Reconfiguring);
            }
            Input::FramePushed if before.status == S::Reconfiguring => {
                self.set(C::Streaming, S::Active);
            }
            // The frame left while the publisher fell silent again.
            Input::FramePushed => {
                let interrupted = self.interrupted.as_mut();
                if let Some(state) = interrupted.filter(|(_, status)| *status == S::Reconfiguring) {
                    *state = (C::Streaming, S::Active);
                }
            }
            Input::Reconfigured => {
                self.interrupted = None;
                self.now.epoch += 1;
                self.set(C::Reconfiguring, S::Reconfiguring);
            }
            Input::Stalled if matches!(before.status, S::Active | S::Reconfiguring) => {
                self.interrupted = Some((before.connection, before.status));
                self.set(C::Recovering, S::Paused);
            }
            Input::Resumed => {
                if let Some((connection, status)) = self.interrupted.take() {
                    self.set(connection, status);
                }
            }
            Input::Lost => {
                self.interrupted = None;
                self.set(C::Recovering, S::Paused);
            }
            Input::Ended => {
                self.interrupted = None;
                self.set(C::Disconnected, S::Stopped);
            }
            Input::Asked | Input::Withdrawn | Input::Stalled => {}
        }
        if self.now != before {
            states.push(self.now.clone());
        }
        states
    }

    fn set(&mut self, connection: ConnectionState, status: StreamStatus) {
        self.now.connection = connection;
        self.now.status = status;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publisher() -> Arc<Publisher> {
        Arc::new(Publisher::example(1))
    }

    /// Connection state, stream status and epoch as numbers.
    fn run(inputs: impl IntoIterator<Item = Input>) -> Vec<(u32, u32, u64)> {
        let mut state = State::default();
        let states = inputs.into_iter().flat_map(|input| state.apply(input));
        let numbers = |s: Snapshot| (s.connection as u32, s.status as u32, s.epoch);
        states.map(numbers).collect()
    }

    #[test]
    fn a_publisher_comes_streams_and_goes() {
        let inputs = [
            Input::Asked,
            Input::Started(publisher()),
            Input::FramePushed,
            Input::FramePushed,
            Input::Ended,
            Input::Ended,
        ];
        let expected = [(1, 4, 0), (2, 4, 0), (3, 2, 1), (5, 1, 1), (0, 4, 1)];
        assert_eq!(run(inputs), expected);
    }

    #[test]
    fn a_stall_is_over_where_it_began() {
        let inputs = [
            Input::Started(publisher()),
            Input::Stalled,
            Input::Resumed,
            Input::FramePushed,
            Input::Stalled,
            Input::Stalled,
            Input::Resumed,
            Input::Resumed,
        ];
        let expected = [
            (3, 2, 1),
            (6, 3, 1),
            (3, 2, 1),
            (5, 1, 1),
            (6, 3, 1),
            (5, 1, 1),
        ];
        assert_eq!(run(inputs), expected);
    }

    #[test]
    fn what_leaves_during_a_stall_counts() {
        let inputs = [
            Input::Started(publisher()),
            Input::Stalled,
            Input::FramePushed,
            Input::Resumed,
            Input::Stalled,
            Input::Reconfigured,
            Input::Resumed,
        ];
        let expected = [(3, 2, 1), (6, 3, 1), (5, 1, 1), (6, 3, 1), (4, 2, 2)];
        assert_eq!(run(inputs), expected);
    }

    #[test]
    fn who_was_lost_comes_back_with_a_new_epoch() {
        let inputs = [
            Input::Started(publisher()),
            Input::FramePushed,
            Input::Lost,
            // A client asks meanwhile: the stream is in recovery all the same.
            Input::Asked,
            Input::Withdrawn,
            Input::Started(publisher()),
            Input::FramePushed,
            Input::Reconfigured,
            Input::FramePushed,
            Input::Lost,
            Input::Ended,
        ];
        let expected = [
            (3, 2, 1),
            (5, 1, 1),
            (6, 3, 1),
            (3, 2, 2),
            (5, 1, 2),
            (4, 2, 3),
            (5, 1, 3),
            (6, 3, 3),
            (0, 4, 3),
        ];
        assert_eq!(run(inputs), expected);
    }

    #[test]
    fn who_is_refused_leaves_no_trace() {
        let inputs = [
            Input::Asked,
            Input::Withdrawn,
            Input::Withdrawn,
            Input::Ended,
        ];
        assert_eq!(run(inputs), [(1, 4, 0), (2, 4, 0), (0, 4, 0)]);
    }
}
