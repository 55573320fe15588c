// SPDX-License-Identifier: MPL-2.0

//! Commands and control messages in unusual order and form, and the answers to them.

use std::io::Read;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gstrtmp2server::internal::amf0::Value;
use gstrtmp2server::internal::rtmp::command::Command;
use gstrtmp2server::internal::rtmp::message::type_id;

use super::{delete_stream, received, send_tags};
use support::flv::Tag;
use support::raw::{RawClient, code};
use support::recorder::Recorder;
use support::synthetic::{delta_frame, stream};
use support::wire::Wire;

/// Returns msid and body of the next message of this type.
fn expect(client: &mut RawClient, wanted: u8) -> (u32, Vec<u8>) {
    loop {
        let message = client.next_message().expect("the connection is open");
        if message.type_id == wanted {
            return (message.msid, message.payload.body().to_vec());
        }
    }
}

fn connected(recorder: &Recorder) -> RawClient {
    let mut client = RawClient::connect(recorder.port());
    client.handshake();
    client.connect_application("live");
    client.expect_command("_result");
    client
}

fn create_and_publish(client: &mut RawClient, arguments: &[Value]) {
    client.command(0, "createStream", 2.0, &[Value::Null]);
    client.expect_command("_result");
    client.command(1, "publish", 0.0, arguments);
    let status = client.expect_command("onStatus");
    assert_eq!(code(&status), "NetStream.Publish.Start");
}

/// Asserts that everything the client publishes from here on arrives.
#[track_caller]
fn assert_works(recorder: &Recorder, client: &mut RawClient) {
    let tags = stream(0, 5);
    send_tags(client, &tags);
    delete_stream(client);
    assert_eq!(recorder.finish(), tags);
}

#[test]
fn publish_type_is_case_insensitive_and_optional() {
    let types = ["live", "LIVE", "record", "append", "appendWithGap"];
    for kind in types.into_iter().map(Some).chain([None]) {
        let recorder = Recorder::start("");
        let mut client = connected(&recorder);
        let kind = kind.map(Value::from);
        let arguments = [Some(Value::Null), Some("key".into()), kind];
        let arguments: Vec<Value> = arguments.into_iter().flatten().collect();
        create_and_publish(&mut client, &arguments);
        assert_works(&recorder, &mut client);
    }
}

#[test]
fn unknown_commands_are_answered_with_their_transaction_id() {
    let recorder = Recorder::start("");
    let mut client = connected(&recorder);
    for (name, transaction) in [("_checkbw", 7.0), ("FCSubscribe", 9.0), ("madeUp", 1234.5)] {
        client.command(0, name, transaction, &[Value::Null, "key".into()]);
        let result = client.expect_command("_result");
        assert_eq!(result.transaction_id, transaction, "{name}");
    }
    client.command(0, "getStreamLength", 11.0, &[Value::Null, "key".into()]);
    assert_eq!(client.expect_command("_error").transaction_id, 11.0);
    create_and_publish(&mut client, &[Value::Null, "key".into()]);
    assert_works(&recorder, &mut client);
}

#[test]
fn commands_with_transaction_id_0_are_not_answered() {
    // rtmp2sink uses this id, and treats the next answer as that of createStream.
    let recorder = Recorder::start("");
    let mut client = connected(&recorder);
    client.command(0, "releaseStream", 0.0, &[Value::Null, "key".into()]);
    client.command(0, "FCPublish", 0.0, &[Value::Null, "key".into()]);
    client.command(0, "createStream", 2.0, &[Value::Null]);
    assert_eq!(client.expect_command("_result").transaction_id, 2.0);
    client.command(
        1,
        "publish",
        0.0,
        &[Value::Null, "key".into(), "live".into()],
    );
    client.expect_command("onStatus");
    assert_works(&recorder, &mut client);
}

#[test]
fn fcpublish_is_confirmed_with_a_transaction_id() {
    let recorder = Recorder::start("");
    let mut client = connected(&recorder);
    client.command(0, "FCPublish", 3.0, &[Value::Null, "key".into()]);
    assert_eq!(client.expect_command("_result").transaction_id, 3.0);
    let confirmation = client.expect_command("onFCPublish");
    assert_eq!(confirmation.transaction_id, 0.0);
    assert_eq!(code(&confirmation), "NetStream.Publish.Start");
    create_and_publish(&mut client, &[Value::Null, "key".into()]);
    assert_works(&recorder, &mut client);
}

#[test]
fn refused_fcpublish_is_answered_with_an_error() {
    let recorder = Recorder::start("application=live stream-key=key");
    let mut client = connected(&recorder);
    client.command(0, "FCPublish", 3.0, &[Value::Null, "other".into()]);
    let answer = client.expect_command("onFCPublish");
    let level = answer.arguments[1].get("level").and_then(Value::as_str);
    assert_eq!(level, Some("error"), "{answer:?}");
    assert!(
        code(&answer).starts_with("NetStream.Publish."),
        "{answer:?}"
    );
    // The client may still publish the right one.
    client.command(0, "FCPublish", 4.0, &[Value::Null, "key".into()]);
    let answer = client.expect_command("onFCPublish");
    assert_eq!(code(&answer), "NetStream.Publish.Start");
    create_and_publish(&mut client, &[Value::Null, "key".into()]);
    assert_works(&recorder, &mut client);
}

#[test]
fn arguments_of_publish_are_read_by_place() {
    for arguments in [
        vec![Value::Null, 1234.0.into(), "live".into()],
        vec!["1234".into(), "live".into()],
        vec![1234.0.into()],
    ] {
        let recorder = Recorder::start("application=live stream-key=1234");
        let mut client = connected(&recorder);
        create_and_publish(&mut client, &arguments);
        assert_works(&recorder, &mut client);
    }
}

#[test]
fn bytes_after_a_command_are_ignored() {
    let recorder = Recorder::start("");
    let mut client = RawClient::connect(recorder.port());
    client.handshake();
    let object = Value::Object(vec![("app".into(), "live".into())]);
    for (msid, name, arguments) in [
        (0, "connect", vec![object]),
        (0, "createStream", vec![Value::Null]),
        (1, "publish", vec![Value::Null, "key".into(), "live".into()]),
    ] {
        let command = Command::new(name, 1.0, arguments).write();
        let body = [&command[..], &[0, 0, 9, 0xFF]].concat();
        client.message(3, type_id::COMMAND_AMF0, msid, &body);
    }
    let status = client.expect_command("onStatus");
    assert_eq!(code(&status), "NetStream.Publish.Start");
    assert_works(&recorder, &mut client);
}

#[test]
fn other_versions_of_the_handshake_are_answered_with_3() {
    let recorder = Recorder::start("");
    for version in [0, 1, 4, 10, 31] {
        let mut client = RawClient::connect(recorder.port());
        client.send(&[&[version][..], &[0; 2 * 1536]].concat());
        let mut reply = [0; 1 + 2 * 1536];
        client.socket.read_exact(&mut reply).unwrap();
        assert_eq!(reply[0], 3, "version {version}");
        client.connect_application("live");
        client.expect_command("_result");
    }
}

#[test]
fn publish_status_is_on_the_publishing_message_stream() {
    // rtmp2sink and HaishinKit accept it nowhere else.
    let recorder = Recorder::start("");
    let mut client = connected(&recorder);
    client.command(0, "createStream", 2.0, &[Value::Null]);
    let created = client.expect_command("_result");
    let id = created.arguments[1].as_number().unwrap();
    assert!(id >= 1.0, "rtmp2sink treats 0 as a failure");
    client.command(id as u32, "publish", 3.0, &[Value::Null, "key".into()]);
    let (msid, begin) = expect(&mut client, type_id::USER_CONTROL);
    assert_eq!(msid, 0);
    assert_eq!(begin[..2], [0, 0], "StreamBegin");
    assert_eq!(begin[2..], (id as u32).to_be_bytes());
    let (msid, body) = expect(&mut client, type_id::COMMAND_AMF0);
    assert_eq!(msid, id as u32);
    assert_eq!(Command::read(&body).unwrap().name, "onStatus");
    assert_works(&recorder, &mut client);
}

#[test]
fn connect_is_answered_with_windows_chunk_size_and_two_objects() {
    let recorder = Recorder::start("chunk-size=5000");
    let mut client = RawClient::connect(recorder.port());
    client.handshake();
    client.connect_application("live");
    // As bytes, since a chunk reader consumes Set Chunk Size by itself.
    let mut control = [0; 16 + 17 + 16];
    client.socket.read_exact(&mut control).unwrap();
    let (window, rest) = control.split_at(16);
    let (bandwidth, chunk_size) = rest.split_at(17);
    assert_eq!(window[..12], [2, 0, 0, 0, 0, 0, 4, 5, 0, 0, 0, 0]);
    assert_eq!(bandwidth[..12], [2, 0, 0, 0, 0, 0, 5, 6, 0, 0, 0, 0]);
    assert_eq!(bandwidth[12..16], window[12..]);
    assert_eq!(chunk_size[..12], [2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0]);
    assert_eq!(chunk_size[12..], 5000u32.to_be_bytes());
    let mut client = RawClient::connect(recorder.port());
    client.handshake();
    client.connect_application("live");
    let result = client.expect_command("_result");
    assert_eq!(result.transaction_id, 1.0);
    assert!(result.arguments[0].get("fmsVer").is_some());
    assert_eq!(code(&result), "NetConnection.Connect.Success");
}

#[test]
fn object_encoding_is_echoed() {
    let recorder = Recorder::start("");
    for encoding in [0.0, 3.0] {
        let mut client = RawClient::connect(recorder.port());
        client.handshake();
        let properties = vec![
            ("app".into(), "live".into()),
            ("objectEncoding".into(), encoding.into()),
        ];
        client.command(0, "connect", 4.0, &[Value::EcmaArray(properties)]);
        let result = client.expect_command("_result");
        assert_eq!(result.transaction_id, 4.0);
        let echoed = result.arguments[1].get("objectEncoding");
        assert_eq!(echoed.and_then(Value::as_number), Some(encoding));
    }
}

#[test]
fn amf3_commands_are_read_with_and_without_selector() {
    for selector in [&[0][..], &[]] {
        let recorder = Recorder::start("");
        let mut client = RawClient::connect(recorder.port());
        client.handshake();
        let mut send = |msid, name: &str, transaction, arguments: Vec<Value>| {
            let body = Command::new(name, transaction, arguments).write();
            let body = [selector, &body].concat();
            client.message(3, type_id::COMMAND_AMF3, msid, &body);
        };
        let object = Value::Object(vec![("app".into(), "live".into())]);
        send(0, "connect", 1.0, vec![object]);
        send(0, "createStream", 2.0, vec![Value::Null]);
        send(1, "publish", 3.0, vec![Value::Null, "key".into()]);
        let status = client.expect_command("onStatus");
        assert_eq!(code(&status), "NetStream.Publish.Start");
        assert_works(&recorder, &mut client);
    }
}

#[test]
fn client_may_send_everything_at_once() {
    let recorder = Recorder::start("");
    let mut client = RawClient::connect(recorder.port());
    let tags = stream(0, 5);
    let mut bytes = vec![3];
    // C1 and C2, which is not checked.
    bytes.extend([0; 2 * 1536]);
    let object = Value::Object(vec![("app".into(), "live".into())]);
    for (msid, name, arguments) in [
        (0, "connect", vec![object]),
        (0, "createStream", vec![Value::Null]),
        (1, "publish", vec![Value::Null, "key".into()]),
    ] {
        let body = Command::new(name, 1.0, arguments).write();
        client
            .writer
            .write(&mut bytes, 3, type_id::COMMAND_AMF0, msid, &body);
    }
    for tag in &tags {
        bytes.extend(Wire::of(tag).absolute(tag).concat());
    }
    let body = Command::new("deleteStream", 0.0, vec![Value::Null, 1.0.into()]).write();
    client
        .writer
        .write(&mut bytes, 3, type_id::COMMAND_AMF0, 0, &body);
    client.send(&bytes);
    assert_eq!(recorder.finish(), tags);
    client.socket.read_exact(&mut [0; 1 + 2 * 1536]).unwrap();
    let status = client.expect_command("onStatus");
    assert_eq!(code(&status), "NetStream.Publish.Start");
}

#[test]
fn repeated_publish_continues_the_stream() {
    let tags = stream(0, 10);
    let got = received(|client| {
        send_tags(client, &tags[..9]);
        client.command(
            1,
            "publish",
            8.0,
            &[Value::Null, "key".into(), "live".into()],
        );
        let status = client.expect_command("onStatus");
        assert_eq!(code(&status), "NetStream.Publish.Start");
        send_tags(client, &tags[9..]);
    });
    assert_eq!(got, tags);
}

#[test]
fn media_before_publishing_is_kept() {
    let tags = stream(0, 10);
    let recorder = Recorder::start("");
    let mut client = connected(&recorder);
    client.command(0, "createStream", 2.0, &[Value::Null]);
    client.expect_command("_result");
    send_tags(&mut client, &tags[..7]);
    client.command(1, "publish", 3.0, &[Value::Null, "key".into()]);
    client.expect_command("onStatus");
    send_tags(&mut client, &tags[7..]);
    delete_stream(&mut client);
    assert_eq!(recorder.finish(), tags);
}

#[test]
fn media_on_other_message_streams_is_accepted() {
    let tags = stream(0, 10);
    for msid in [0, 2, 77] {
        let got = received(|client| {
            client.command(0, "createStream", 4.0, &[Value::Null]);
            for tag in &tags {
                let wire = Wire {
                    msid,
                    ..Wire::of(tag)
                };
                client.send(&wire.absolute(tag).concat());
            }
        });
        assert_eq!(got, tags, "message stream {msid}");
    }
}

#[test]
fn pings_are_answered_with_their_value() {
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    for value in [0u32, 1, u32::MAX] {
        let ping = [&[0, 6][..], &value.to_be_bytes()].concat();
        client.message(2, type_id::USER_CONTROL, 0, &ping);
        let (_, pong) = expect(&mut client, type_id::USER_CONTROL);
        assert_eq!(pong, [&[0, 7][..], &value.to_be_bytes()].concat());
    }
    assert_works(&recorder, &mut client);
}

#[test]
fn unknown_control_and_message_types_are_ignored() {
    let tags = stream(0, 10);
    let got = received(|client| {
        send_tags(client, &tags[..5]);
        client.message(2, type_id::USER_CONTROL, 0, &[0, 99, 1, 2, 3, 4]);
        client.message(5, 77, 1, b"nothing that is known");
        client.message(3, type_id::SHARED_OBJECT_AMF0, 0, b"object");
        client.message(3, type_id::ACKNOWLEDGEMENT, 0, &[0, 0, 16, 0]);
        client.message(2, type_id::SET_PEER_BANDWIDTH, 0, &[0, 16, 0, 0, 1]);
        client.message(3, type_id::COMMAND_AMF0, 0, b"\xFFnot AMF");
        send_tags(client, &tags[5..]);
    });
    assert_eq!(got, tags);
}

#[test]
fn announced_window_gets_acknowledgements() {
    const WINDOW: u32 = 20_000;
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    client.message(2, type_id::WINDOW_ACK_SIZE, 0, &WINDOW.to_be_bytes());
    let tags = stream(0, 60);
    send_tags(&mut client, &tags);
    let sent: usize = tags.iter().map(|tag| tag.body.len()).sum();
    // Each has the total of received bytes; the steps are not larger than the window.
    let mut acknowledged = 0;
    while acknowledged + WINDOW < sent as u32 {
        let (_, body) = expect(&mut client, type_id::ACKNOWLEDGEMENT);
        let next = u32::from_be_bytes(body.try_into().unwrap());
        assert!(next > acknowledged, "{next} after {acknowledged}");
        acknowledged = next;
    }
    delete_stream(&mut client);
    let got: Vec<Tag> = recorder.finish();
    assert_eq!(got, tags);
}

/// Also where the window is far from full: rtmp2sink of GStreamer 1.29.1 gives up after five seconds
/// without a byte.
#[test]
fn publisher_with_a_window_gets_a_byte_every_few_seconds() {
    const LONGEST: Duration = Duration::from_millis(4_500);
    let recorder = Recorder::start("timeout=0 stall-timeout=0");
    let window = 5_000_000_u32.to_be_bytes();
    // It is silent, and then sends.
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    client.message(2, type_id::WINDOW_ACK_SIZE, 0, &window);
    for _ in 0..2 {
        let start = Instant::now();
        expect(&mut client, type_id::ACKNOWLEDGEMENT);
        assert!(start.elapsed() < LONGEST, "{:?}", start.elapsed());
    }
    let (sender, is_done) = mpsc::channel::<()>();
    let mut writer = client.socket.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        let mut time = 0;
        // The pace of an encoder.
        while is_done.recv_timeout(Duration::from_millis(40)).is_err() {
            let frame = Wire::on(6).absolute(&delta_frame(time, 100)).concat();
            std::io::Write::write_all(&mut writer, &frame).unwrap();
            time += 40;
        }
    });
    for _ in 0..2 {
        let start = Instant::now();
        expect(&mut client, type_id::ACKNOWLEDGEMENT);
        assert!(start.elapsed() < LONGEST, "{:?}", start.elapsed());
    }
    sender.send(()).unwrap();
    sending.join().unwrap();
}

#[test]
fn player_is_refused_and_its_connection_closed() {
    let recorder = Recorder::start("");
    let mut client = connected(&recorder);
    client.command(0, "createStream", 2.0, &[Value::Null]);
    client.expect_command("_result");
    client.command(1, "play", 3.0, &[Value::Null, "key".into()]);
    let status = client.expect_command("onStatus");
    assert_eq!(code(&status), "NetStream.Play.StreamNotFound");
    while client.next_message().is_some() {}
    // The route is still free.
    let mut publisher = RawClient::publish(recorder.port(), "live", "key");
    assert_works(&recorder, &mut publisher);
}

#[test]
fn client_without_window_is_acknowledged_when_it_pauses() {
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    client.set_chunk_size(65_536);
    // More than half of the server's window of 5,000,000 bytes; then a pause.
    let mut body = vec![0x2F];
    body.resize(100_000, 7);
    for time in 0..30 {
        client.media(support::flv::AUDIO, time * 20, &body, 65_536);
    }
    let (_, count) = expect(&mut client, type_id::ACKNOWLEDGEMENT);
    let count = u32::from_be_bytes(count.try_into().unwrap());
    assert!((2_500_000..=3_100_000).contains(&count), "{count}");
}
