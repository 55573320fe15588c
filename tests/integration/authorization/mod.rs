// SPDX-License-Identifier: MPL-2.0

//! Decisions of an authorization server and of signed URLs about publishers.

mod asking;
mod grants;
mod http_server;
mod servers;
mod signing;

use gstrtmp2server::internal::amf0::Value;
use gstrtmp2server::internal::rtmp::command::Command;

use support::raw::RawClient;

/// Connects and asks to publish `live/KEY`, and does not wait for the answer.
fn request(port: u16, key: &str) -> RawClient {
    let mut client = RawClient::connect(port);
    client.handshake().connect_application("live");
    client.expect_command("_result");
    client.command(1, "publish", 2.0, &[Value::Null, key.into()]);
    client
}

/// Returns the answer to a request to publish.
#[track_caller]
fn answer(port: u16, key: &str) -> Command {
    request(port, key).expect_command("onStatus")
}

/// Returns the description in an answer.
fn description(command: &Command) -> &str {
    let mut objects = command.arguments.iter();
    objects
        .find_map(|object| object.get("description")?.as_str())
        .unwrap_or_default()
}
