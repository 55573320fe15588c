// SPDX-License-Identifier: MPL-2.0

//! Whole messages outside of the conversation, from other threads than the connection's own. They
//! may be written between any two messages of the session.

use super::output::SessionOutput;
use crate::rtmp::command::Command;
use crate::rtmp::status::{Status, code};

/// Encodes an `onStatus` for the published stream. `chunk_size` is that of the session's settings.
pub fn status(chunk_size: u32, msid: u32, status: &Status) -> Vec<u8> {
    let mut output = SessionOutput::with_chunk_size(chunk_size);
    output.stream_command(msid, &Command::on_status(status.properties()));
    output.take_replies()
}

/// Encodes a request to connect again, to another address if there is one (Enhanced RTMP v2,
/// "Reconnect Request"). Only for clients that [can](super::ConnectRequest::can_reconnect).
pub fn reconnect_request(chunk_size: u32, tc_url: Option<&str>, description: &str) -> Vec<u8> {
    let mut output = SessionOutput::with_chunk_size(chunk_size);
    output.connection_command(&reconnect_command(tc_url, description));
    output.take_replies()
}

/// Returns the command that asks a client to connect again.
pub(super) fn reconnect_command(tc_url: Option<&str>, description: &str) -> Command {
    let status = Status::success(code::CONNECT_RECONNECT_REQUEST, description);
    let mut properties = status.properties();
    if let Some(tc_url) = tc_url {
        properties.push(("tcUrl".into(), tc_url.into()));
    }
    Command::on_status(properties)
}
