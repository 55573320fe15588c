// SPDX-License-Identifier: MPL-2.0

//! Access for publishers of the relay.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use gstrtmp2server::internal::amf0::Value;

use super::program::{Relay, command};
use support::clients::{FFMPEG, publish};
use support::media::small;
use support::program::Program;
use support::raw::{RawClient, code};

/// Returns the code of the answer to a request to publish `live/ann/cam`.
#[track_caller]
fn answer(relay: &Relay) -> String {
    let mut client = RawClient::connect(relay.port);
    client.handshake().connect_application("live/ann");
    client.expect_command("_result");
    client.command(1, "publish", 2.0, &[Value::Null, "cam".into()]);
    code(&client.expect_command("onStatus")).to_owned()
}

#[test]
fn a_wrong_path_is_answered_with_the_right_ones() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::start(folder.path(), &[]);
    for (application, stream_key) in [("live", ""), ("", "cam"), ("live/ann/cam", "one/two")] {
        let mut client = RawClient::connect(relay.port);
        client.handshake().connect_application(application);
        client.expect_command("_result");
        client.command(1, "publish", 2.0, &[Value::Null, stream_key.into()]);
        let status = client.expect_command("onStatus");
        assert_eq!(code(&status), "NetStream.Publish.BadName");
        let text = format!("{status:?}");
        let paths = "Publish to {application}/{user}/{stream} or {application}/{stream}.";
        assert!(text.contains(paths), "{text}");
    }
}

#[test]
fn connections_that_ask_for_no_stream_are_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command("127.0.0.1:0", folder.path());
    let mut program = Program::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let address = program.rest_after("listening on rtmp://");
    let mut socket = TcpStream::connect(address.trim_end_matches('/')).unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    program.wait_for("Closed the connection from 127.0.0.1: HTTP on an RTMP port");
}

#[test]
fn an_ipv6_address_for_all_accepts_ipv4_too() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::start_at("[::]:0", folder.path(), &[]);
    assert_eq!(answer(&relay), "NetStream.Publish.Start");
}

#[test]
fn publishers_need_the_password() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "s3cret\n").unwrap();
    let file = file.to_str().unwrap();
    let options = ["--publish-user", "ann", "--publish-password-file", file];
    let mut relay = Relay::start(&folder.path().join("hls"), &options);
    let url = |user: &str| format!("rtmp://{user}127.0.0.1:{}/live/ann/cam", relay.port);
    assert!(
        !publish(FFMPEG, &small(1), false, &url("ann:wrong@"))
            .wait()
            .status
            .success()
    );
    publish(FFMPEG, &small(1), false, &url("ann:s3cret@")).succeed();
    relay.wait_for("gone live/ann/cam");
}

#[test]
fn a_server_decides_who_may_publish() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        for status in ["403 Forbidden", "200 OK"] {
            let mut socket = listener.accept().unwrap().0;
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                let mut byte = [0];
                socket.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            let text = String::from_utf8(request).unwrap();
            assert!(text.contains(r#""path":"live/ann/cam""#), "{text}");
            let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
            let response = format!("{head}Content-Length: 0\r\n\r\n");
            socket.write_all(response.as_bytes()).unwrap();
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{address}/auth");
    let relay = Relay::start(
        folder.path(),
        &["--auth-url", &url, "--auth-timeout", "30000"],
    );
    assert_eq!(answer(&relay), "NetStream.Publish.Denied");
    assert_eq!(answer(&relay), "NetStream.Publish.Start");
    server.join().unwrap();
}

#[test]
fn urls_are_signed_and_go_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key, signing) = (path("cert.pem"), path("key.pem"), path("signing"));
    let arguments = "req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -days 2";
    let made = Command::new("openssl")
        .args(arguments.split(' '))
        .args(["-keyout", &key, "-out", &certificate])
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    fs::write(&signing, "a key that nobody guesses\n").unwrap();
    let options = [
        "--certificate",
        &certificate,
        "--private-key",
        &key,
        "--allow-plain",
    ];
    let options = [&options[..], &["--signing-key-file", &signing]].concat();
    let mut relay = Relay::start(&folder.path().join("hls"), &options);
    assert_eq!(answer(&relay), "NetStream.Publish.Denied");
    let script = "printf %s 'live/ann/cam?expires=4000000000' | \
                  openssl dgst -sha256 -hmac 'a key that nobody guesses' -r | cut -d' ' -f1";
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    let signature = String::from_utf8(output.stdout).unwrap();
    let query = format!("expires=4000000000&signature={}", signature.trim());
    let url = format!("rtmps://127.0.0.1:{}/live/ann/cam?{query}", relay.port);
    publish(FFMPEG, &small(1), false, &url).succeed();
    relay.wait_for("gone live/ann/cam");
}
