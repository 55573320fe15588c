// SPDX-License-Identifier: MPL-2.0

//! Status codes of the NetConnection and NetStream commands (section 7.2), and the information
//! objects with them.

use crate::amf0::Value;

pub mod code {
    pub const CONNECT_SUCCESS: &str = "NetConnection.Connect.Success";
    pub const CONNECT_APP_SHUTDOWN: &str = "NetConnection.Connect.AppShutdown";
    pub const CONNECT_RECONNECT_REQUEST: &str = "NetConnection.Connect.ReconnectRequest";
    pub const CONNECT_REJECTED: &str = "NetConnection.Connect.Rejected";
    pub const CONNECT_INVALID_APP: &str = "NetConnection.Connect.InvalidApp";
    pub const CALL_FAILED: &str = "NetConnection.Call.Failed";
    pub const PUBLISH_START: &str = "NetStream.Publish.Start";
    pub const PUBLISH_BAD_NAME: &str = "NetStream.Publish.BadName";
    pub const PUBLISH_DENIED: &str = "NetStream.Publish.Denied";
    pub const PUBLISH_REJECTED: &str = "NetStream.Publish.Rejected";
    pub const UNPUBLISH_SUCCESS: &str = "NetStream.Unpublish.Success";
    pub const PLAY_STREAM_NOT_FOUND: &str = "NetStream.Play.StreamNotFound";
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Status,
    Error,
}

/// An information object. Clients show its description to their user.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    pub level: Level,
    pub code: &'static str,
    pub description: String,
}

impl Status {
    pub fn success(code: &'static str, description: impl Into<String>) -> Self {
        Status {
            level: Level::Status,
            code,
            description: description.into(),
        }
    }

    pub fn error(code: &'static str, description: impl Into<String>) -> Self {
        Status {
            level: Level::Error,
            code,
            description: description.into(),
        }
    }

    pub(super) fn properties(&self) -> Vec<(String, Value)> {
        let level = match self.level {
            Level::Status => "status",
            Level::Error => "error",
        };
        vec![
            ("level".into(), level.into()),
            ("code".into(), self.code.into()),
            ("description".into(), self.description.as_str().into()),
        ]
    }
}
