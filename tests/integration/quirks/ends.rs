// SPDX-License-Identifier: MPL-2.0

//! The ways in which publishers leave, and the last tags.

use std::net::Shutdown;

use gstrtmp2server::internal::amf0::Value;

use super::{received, replay, send_tags, without_script};
use support::flv::Tag;
use support::raw::RawClient;
use support::recorder::Recorder;
use support::synthetic::{delta_frame, end_of_sequence, keyframe, stream};

/// Asserts that this way to leave ends the stream after all of its tags.
#[track_caller]
fn assert_ends_stream(how: impl FnOnce(RawClient) -> Option<RawClient>) {
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    let tags = stream(0, 12);
    send_tags(&mut client, &tags);
    let _still_there = how(client);
    assert_eq!(recorder.finish(), tags);
}

#[test]
fn delete_stream_with_an_id_a_name_or_nothing_ends_the_stream() {
    for argument in [Some(Value::from(1.0)), Some("key".into()), None] {
        assert_ends_stream(|mut client| {
            let arguments: Vec<Value> = [Some(Value::Null), argument]
                .into_iter()
                .flatten()
                .collect();
            client.command(0, "deleteStream", 0.0, &arguments);
            Some(client)
        });
    }
}

#[test]
fn close_stream_ends_the_stream() {
    assert_ends_stream(|mut client| {
        client.command(1, "closeStream", 0.0, &[Value::Null]);
        let status = client.expect_command("onStatus");
        assert_eq!(support::raw::code(&status), "NetStream.Unpublish.Success");
        Some(client)
    });
}

#[test]
fn fcunpublish_ends_the_stream() {
    assert_ends_stream(|mut client| {
        client.command(0, "FCUnpublish", 6.0, &[Value::Null, "key".into()]);
        assert_eq!(client.expect_command("_result").transaction_id, 6.0);
        Some(client)
    });
}

#[test]
fn end_commands_of_another_stream_do_not_end_it() {
    let case = include_bytes!("../../data/cases/24-fcunpublish-of-another-name.bin");
    let (sent, got) = replay(case);
    assert!(sent.len() > 5, "{sent:?}");
    assert_eq!(without_script(got), sent);

    for (msid, name, arguments) in [
        (2, "closeStream", vec![Value::Null]),
        (0, "FCUnpublish", vec![Value::Null, "other".into()]),
        (0, "deleteStream", vec![Value::Null, 2.0.into()]),
        (0, "deleteStream", vec![Value::Null, "other".into()]),
    ] {
        let tags = stream(0, 12);
        let got = received(|client| {
            client.command(0, "createStream", 4.0, &[Value::Null]);
            send_tags(client, &tags[..5]);
            client.command(msid, name, 5.0, &arguments);
            send_tags(client, &tags[5..]);
        });
        assert_eq!(got, tags, "{name} {arguments:?}");
    }
}

#[test]
fn closed_connection_ends_the_stream() {
    assert_ends_stream(|client| {
        client.socket.shutdown(Shutdown::Both).unwrap();
        None
    });
}

#[test]
fn half_closed_connection_ends_the_stream() {
    assert_ends_stream(|client| {
        client.socket.shutdown(Shutdown::Write).unwrap();
        Some(client)
    });
}

#[test]
fn reset_connection_ends_the_stream() {
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    let tags = stream(0, 12);
    send_tags(&mut client, &tags);
    // A reset discards data that the server has not read yet, so wait until it has all.
    recorder.wait_until("all tags", |buffers| buffers.len() == tags.len() + 1);
    rustix::net::sockopt::set_socket_linger(&client.socket, Some(std::time::Duration::ZERO))
        .unwrap();
    drop(client);
    assert_eq!(recorder.finish(), tags);
}

#[test]
fn truncated_message_is_dropped() {
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    let tags = stream(0, 12);
    send_tags(&mut client, &tags);
    let cut = delta_frame(480, 1000);
    let chunks = support::wire::Wire::of(&cut).absolute(&cut);
    client.send(&chunks[..5].concat());
    drop(client);
    assert_eq!(recorder.finish(), tags);
}

fn with_end(at: usize) -> Vec<Tag> {
    let mut tags = vec![keyframe(0, 50), delta_frame(40, 50), delta_frame(80, 50)];
    tags.insert(at, end_of_sequence(tags[at - 1].timestamp));
    tags
}

#[test]
fn end_of_sequence_leaves_last() {
    let tags = with_end(3);
    assert_eq!(received(|client| send_tags(client, &tags)), tags);
}

#[test]
fn end_of_sequence_within_the_stream_is_dropped() {
    let tags = with_end(2);
    let got = received(|client| send_tags(client, &tags));
    let expected: Vec<Tag> = tags
        .into_iter()
        .filter(|tag| !tag.is_end_of_sequence())
        .collect();
    assert_eq!(got, expected);
}
