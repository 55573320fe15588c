// SPDX-License-Identifier: MPL-2.0

//! The state of a stream as the page shows it.

use common::statistics::{Unit, number};
use serde::{Serialize, Serializer};

/// The property `stream-status` of the elements, with their numbers, and failures of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamState {
    Active = 1,
    Reconfiguring = 2,
    Paused = 3,
    Stopped = 4,
    /// The pipeline behind the stream has failed.
    Failed = 5,
}

impl StreamState {
    /// Returns the state in the statistics of a source.
    pub fn of(stats: &gst::StructureRef) -> Self {
        match number(stats, "stream-status", Unit::None) {
            Some(1.0) => StreamState::Active,
            Some(2.0) => StreamState::Reconfiguring,
            Some(3.0) => StreamState::Paused,
            _ => StreamState::Stopped,
        }
    }

    pub fn nick(self) -> &'static str {
        match self {
            StreamState::Active => "active",
            StreamState::Reconfiguring => "reconfiguring",
            StreamState::Paused => "paused",
            StreamState::Stopped => "stopped",
            StreamState::Failed => "failed",
        }
    }

    pub fn code(self) -> u8 {
        self as u8
    }
}

impl Serialize for StreamState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.nick())
    }
}
