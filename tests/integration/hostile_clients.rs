// SPDX-License-Identifier: MPL-2.0

//! Other clients on the port do not disturb the publisher, and refused ones learn the reason.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use gstrtmp2server::internal::amf0::Value;

use support::clients::{FFMPEG, ffmpeg, publish};
use support::raw::{RawClient, code};
use support::recorder::Recorder;
use support::{PATIENCE, flv, media};

/// Longest time from a refusal to the end of the connection.
const MAX_CLOSING_TIME: Duration = Duration::from_secs(1);

/// Publishes in real time with ffmpeg while others use the port. Exactly the publisher's tags must
/// come out.
#[track_caller]
fn alongside_a_publisher<T>(others: impl FnOnce(u16) -> T) {
    let file = media::small(3);
    let recorder = Recorder::start("");
    let mut publisher = publish(FFMPEG, &file, true, &recorder.url("live/key"));
    recorder.wait_until("the publisher's media", |buffers| buffers.len() > 10);
    let connections = others(recorder.port());
    let ended = publisher.0.try_wait().unwrap();
    assert_eq!(ended, None, "the publisher ended before the others");
    publisher.succeed();
    flv::assert_same_media(&flv::read_file(&file), &recorder.finish());
    drop(connections);
}

fn tcp(port: u16) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Waits until the server has closed or reset the connection.
#[track_caller]
fn assert_closed(mut socket: &TcpStream) {
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
                return;
            }
        }
    }
}

#[test]
fn silent_connections_do_not_disturb_a_publisher() {
    alongside_a_publisher(|port| (0..50).map(|_| tcp(port)).collect::<Vec<_>>());
}

#[test]
fn connections_that_stop_after_the_handshake_do_not_disturb_a_publisher() {
    alongside_a_publisher(|port| {
        let handshaken = |_| {
            let mut client = RawClient::connect(port);
            client.handshake();
            client
        };
        (0..50).map(handshaken).collect::<Vec<_>>()
    });
}

#[test]
fn other_protocols_are_disconnected() {
    alongside_a_publisher(|port| {
        let garbage: Vec<u8> = (0..8000u32).map(|i| (i * 7 + 13) as u8 | 0x80).collect();
        for bytes in [
            &garbage[..],
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a ClientHello of TLS",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"POST /open/1 HTTP/1.1\r\nContent-Length: 1\r\n\r\n\0",
            b"\x06 the version of RTMPE",
        ] {
            let mut socket = tcp(port);
            // The server may close the connection before everything is written.
            let _ = socket.write_all(bytes);
            assert_closed(&socket);
        }
    });
}

#[test]
fn garbage_after_the_handshake_is_disconnected() {
    alongside_a_publisher(|port| {
        let mut client = RawClient::connect(port);
        client.handshake();
        // A type 3 header on a chunk stream without a message before it.
        let _ = client.socket.write_all(&[0xFF; 5000]);
        assert_closed(&client.socket);
    });
}

#[test]
fn a_claimed_length_of_sixteen_megabytes_does_not_disturb_a_publisher() {
    alongside_a_publisher(|port| {
        let mut client = RawClient::connect(port);
        client.handshake();
        client.send(b"\x06\x00\x00\x00\xFF\xFF\xFF\x09\x01\x00\x00\x00\x17");
        client
    });
}

#[test]
fn a_second_publisher_is_refused() {
    alongside_a_publisher(|port| {
        let mut client = RawClient::connect(port);
        client.handshake();
        client.connect_application("live");
        client.expect_command("_result");
        client.command(0, "createStream", 2.0, &[Value::Null]);
        client.expect_command("_result");
        client.command(
            1,
            "publish",
            3.0,
            &[Value::Null, "key".into(), "live".into()],
        );
        assert_refused(&mut client, "onStatus", "NetStream.Publish.BadName");
    });
}

/// Asserts that the first answer of this name refuses, and that the connection is closed after it.
#[track_caller]
fn assert_refused(client: &mut RawClient, answer: &str, reason: &str) {
    let status = client.expect_command(answer);
    let refused = Instant::now();
    assert_eq!(code(&status), reason);
    let level = status.arguments[1].get("level").and_then(Value::as_str);
    assert_eq!(level, Some("error"));
    assert!(client.next_message().is_none());
    assert!(refused.elapsed() < MAX_CLOSING_TIME);
}

#[test]
fn a_wrong_application_is_refused_at_connect() {
    let recorder = Recorder::start("application=live stream-key=key");
    let mut client = RawClient::connect(recorder.port());
    client.handshake();
    client.connect_application("other");
    assert_refused(&mut client, "_error", "NetConnection.Connect.InvalidApp");
}

#[test]
fn ffmpeg_reports_why_it_was_refused() {
    let recorder = Recorder::start("application=live stream-key=key");
    let file = media::small(1);
    for (path, reason) in [("other/key", "application"), ("live/guess", "stream key")] {
        let input = file.display();
        let url = recorder.url(path);
        let output = ffmpeg(FFMPEG, &format!("-i {input} -c copy -f flv {url}")).wait();
        assert!(!output.status.success());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("Server error"), "{text}");
        assert!(text.to_lowercase().contains(reason), "{path}: {text}");
    }
    // Neither of them occupies the stream.
    publish(FFMPEG, &file, false, &recorder.url("live/key")).succeed();
    flv::assert_same_media(&flv::read_file(&file), &recorder.finish());
}
