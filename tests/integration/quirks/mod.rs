// SPDX-License-Identifier: MPL-2.0

//! Unusual but allowed behaviour of clients, one each test.

mod chunks;
mod commands;
mod content;
mod ends;
mod names;

use gstrtmp2server::internal::amf0::Value;
use support::flv::Tag;
use support::raw::RawClient;
use support::recorder::Recorder;
use support::wire::Wire;

/// Publishes as `live/key`, runs `send`, ends the stream, and returns the tags that left.
#[track_caller]
fn received(send: impl FnOnce(&mut RawClient)) -> Vec<Tag> {
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client);
    delete_stream(&mut client);
    recorder.finish()
}

fn delete_stream(client: &mut RawClient) {
    client.command(0, "deleteStream", 0.0, &[Value::Null, 1.0.into()]);
}

/// Sends tags with full headers.
fn send_tags(client: &mut RawClient, tags: &[Tag]) {
    for tag in tags {
        client.send(&Wire::of(tag).absolute(tag).concat());
    }
}
