// SPDX-License-Identifier: MPL-2.0

//! Unusual but allowed behaviour of clients, one each test.

mod chunks;
mod commands;
mod content;
mod ends;
mod memory;
mod names;

use gstrtmp2server::internal::amf0::Value;
use gstrtmp2server::internal::rtmp::Headroom;
use gstrtmp2server::internal::rtmp::chunk::{ChunkReader, ReaderLimits};
use std::io::Read;
use std::net::Shutdown;
use support::flv::{AUDIO, SCRIPT, Tag, VIDEO};
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

/// Bytes of a recorded client up to its first message: C0, C1 and C2.
const HANDSHAKE: usize = 1 + 2 * 1536;

/// Sends the bytes of a recorded client in one write, waits for its media, and closes. Returns the
/// media that it sent, and the tags that left the element.
#[track_caller]
fn replay(bytes: &[u8]) -> (Vec<Tag>, Vec<Tag>) {
    let recorder = Recorder::start("");
    let mut client = RawClient::connect(recorder.port());
    client.send(bytes);
    let mut reader = ChunkReader::new(ReaderLimits::default(), Headroom::default());
    let mut input = &bytes[HANDSHAKE..];
    let mut sent = Vec::new();
    while let Some(message) = reader.read(&mut input).unwrap() {
        if matches!(message.type_id, AUDIO | VIDEO) {
            let body = message.payload.body();
            sent.push(Tag::new(message.type_id, message.timestamp, body));
        }
    }
    recorder.wait_until("all media", |buffers| buffers.len() >= sent.len());
    client.socket.shutdown(Shutdown::Write).unwrap();
    client.socket.read_exact(&mut [0; HANDSHAKE]).unwrap();
    while client.next_message().is_some() {}
    (sent, recorder.finish())
}

fn without_script(mut tags: Vec<Tag>) -> Vec<Tag> {
    tags.retain(|tag| tag.kind != SCRIPT);
    tags
}

/// Sends tags with full headers.
fn send_tags(client: &mut RawClient, tags: &[Tag]) {
    for tag in tags {
        client.send(&Wire::of(tag).absolute(tag).concat());
    }
}
