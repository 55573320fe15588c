// SPDX-License-Identifier: MPL-2.0

//! Who may publish, and what the limits do.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstrtmp2server::amf0::Value;
use gstrtmp2server::rtmp::control::Control;

use crate::support::PATIENCE;
use crate::support::clients::{FFMPEG, publish};
use crate::support::flv;
use crate::support::media::small;
use crate::support::raw::{RawClient, code};
use crate::support::recorder::Recorder;

/// A refused client is closed within this, however it behaves.
const MAX_FAREWELL: Duration = Duration::from_secs(1);

/// Reads until the server closes the connection.
fn read_to_close(socket: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // A reset closes too.
    let _ = socket.read_to_end(&mut bytes);
    bytes
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

#[test]
fn a_wrong_stream_key_is_refused_before_anything_says_start() {
    let recorder = Recorder::start("application=live stream-key=key");
    let mut client = RawClient::connect(recorder.port());
    client.handshake().connect_application("live");
    for (transaction, name) in [(2.0, "releaseStream"), (3.0, "FCPublish")] {
        client.command(0, name, transaction, &[Value::Null, "wrong".into()]);
    }
    client.command(0, "createStream", 4.0, &[Value::Null]);
    client.command(
        1,
        "publish",
        5.0,
        &[Value::Null, "wrong".into(), "live".into()],
    );
    let refused = Instant::now();
    let bytes = read_to_close(&mut client.socket);
    assert!(refused.elapsed() < MAX_FAREWELL);
    assert!(contains(&bytes, "NetStream.Publish.BadName"));
    assert!(!contains(&bytes, "NetStream.Publish.Start"));
}

#[test]
fn a_refused_client_that_goes_on_sending_is_closed_all_the_same() {
    let recorder = Recorder::start("application=live");
    let mut client = RawClient::connect(recorder.port());
    client.handshake().connect_application("other");
    let refused = Instant::now();
    // It neither reads nor stops.
    while client.socket.write_all(&[0; 1000]).is_ok() {
        assert!(refused.elapsed() < 2 * MAX_FAREWELL);
    }
    assert!(refused.elapsed() < MAX_FAREWELL);
}

#[test]
fn playing_is_refused() {
    let recorder = Recorder::start("");
    let mut client = RawClient::connect(recorder.port());
    client.handshake().connect_application("live");
    client.command(1, "play", 2.0, &[Value::Null, "key".into()]);
    let status = client.expect_command("onStatus");
    assert_eq!(code(&status), "NetStream.Play.StreamNotFound");
    assert!(client.next_message().is_none());
}

/// A client that has come as far as to create a stream.
fn almost_publishing(port: u16) -> RawClient {
    let mut client = RawClient::connect(port);
    client.handshake().connect_application("live");
    client.expect_command("_result");
    client
}

#[test]
fn no_more_clients_than_allowed_and_the_oldest_goes() {
    for limit in ["max-clients=3", "max-clients-per-address=3"] {
        let recorder = Recorder::start(&format!("{limit} keep-listening=true"));
        let port = recorder.port();
        let mut publisher = RawClient::publish(port, "live", "key");
        let mut oldest = almost_publishing(port);
        let mut second = almost_publishing(port);
        // One more gets in, and the oldest that does not publish has to go.
        let mut newest = almost_publishing(port);
        assert!(oldest.next_message().is_none(), "{limit}");
        for client in [&mut second, &mut newest] {
            client.command(0, "createStream", 2.0, &[Value::Null]);
            client.expect_command("_result");
        }
        publisher.media(flv::AUDIO, 0, &[0x2F, 1, 9], 128);
        recorder.wait_until("media", |buffers| buffers.len() > 1);
    }
}

#[test]
fn publishers_do_not_make_room() {
    for limit in ["max-clients=2", "max-clients-per-address=2"] {
        let one = Recorder::start(&format!("{limit} stream-key=one"));
        let port = one.port();
        let two = Recorder::start(&format!("{limit} port={port} stream-key=two"));
        let _publishers = ["one", "two"].map(|key| RawClient::publish(port, "live", key));
        let mut third = TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert!(read_to_close(&mut third).is_empty());
        drop(two);
        // Its publisher has left a place.
        almost_publishing(port);
    }
}

#[test]
fn clients_from_elsewhere_are_closed_when_they_connect() {
    let recorder = Recorder::start("allowed-addresses=<192.0.2.0/24,2001:db8::1>");
    let mut socket = TcpStream::connect(("127.0.0.1", recorder.port())).unwrap();
    assert!(read_to_close(&mut socket).is_empty());
    let recorder = Recorder::start("allowed-addresses=<192.0.2.0/24,127.0.0.0/8>");
    RawClient::publish(recorder.port(), "live", "key");
}

#[test]
fn each_element_of_a_port_has_its_own_addresses() {
    let own = Recorder::start("stream-key=own allowed-addresses=<127.0.0.1>");
    let port = own.port();
    let _other = Recorder::start(&format!(
        "port={port} stream-key=other allowed-addresses=<192.0.2.1>"
    ));
    let mut client = almost_publishing(port);
    client.command(1, "publish", 2.0, &[Value::Null, "other".into()]);
    let status = client.expect_command("onStatus");
    assert_eq!(code(&status), "NetStream.Publish.Denied");
    RawClient::publish(port, "live", "own");
}

#[test]
fn a_message_over_the_limit_ends_its_client() {
    let recorder = Recorder::start("max-message-size=2000");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    client.set_chunk_size(65_536);
    let mut body = vec![0xAF, 1];
    body.resize(2000, 7);
    client.media(flv::AUDIO, 0, &body, 65_536);
    body.push(7);
    client.media(flv::AUDIO, 20, &body, 65_536);
    assert!(client.next_message().is_none());
    let tags = recorder.finish();
    assert_eq!(flv::media(&tags).len(), 1);
}

#[test]
fn a_publisher_that_falls_silent_is_asked_and_cut_off() {
    let recorder = Recorder::start("timeout=2");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    client.media(flv::AUDIO, 0, &[0xAF, 1, 9], 128);
    client.expect_ping();
    assert_eq!(flv::media(&recorder.finish()).len(), 1);
    assert!(client.next_message().is_none());
}

/// It may have nothing to send, and answers when it is asked.
#[test]
fn a_silent_publisher_that_answers_pings_stays() {
    let recorder = Recorder::start("timeout=6");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    client.media(flv::AUDIO, 0, &[0xAF, 1, 9], 128);
    // More time than a publisher gets that says nothing.
    for _ in 0..3 {
        let timestamp = client.expect_ping();
        client.control(Control::PingResponse(timestamp));
    }
    client.media(flv::AUDIO, 4000, &[0xAF, 1, 8], 128);
    drop(client);
    assert_eq!(flv::media(&recorder.finish()).len(), 2);
}

#[test]
fn pausing_loses_nothing() {
    let file = small(6);
    let recorder = Recorder::start("");
    let client = publish(FFMPEG, &file, true, &recorder.url("live/key"));
    for count in [20, 60, 100] {
        recorder.wait_until("some", |buffers| buffers.len() > count);
        recorder.pipeline.set_state(gst::State::Paused).unwrap();
        recorder.pipeline.set_state(gst::State::Playing).unwrap();
    }
    client.succeed();
    flv::assert_same_media(&flv::read_file(&file), &recorder.finish());
}

#[test]
fn who_does_not_publish_in_time_is_closed() {
    let recorder = Recorder::start("handshake-timeout=300");
    let mut silent = TcpStream::connect(("127.0.0.1", recorder.port())).unwrap();
    let mut half = RawClient::connect(recorder.port());
    half.handshake();
    assert!(read_to_close(&mut silent).is_empty());
    assert!(half.next_message().is_none());
}

/// When the system asks a publisher's own system for a sign of life, as `/proc/net/tcp` tells it.
fn keepalive(server: u16, client: u16) -> Option<Duration> {
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in std::fs::read_to_string(file).unwrap().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if (port(fields[1]), port(fields[2])) != (Some(server), Some(client)) {
                continue;
            }
            // Timer 2 is that of keepalive; it runs when nothing is on its way.
            let (timer, ticks) = fields[5].split_once(':').unwrap();
            let ticks = u64::from_str_radix(ticks, 16).unwrap();
            return (timer == "02").then(|| Duration::from_millis(ticks * 10));
        }
    }
    None
}

#[test]
fn the_system_watches_over_who_is_silent() {
    for (timeout, most) in [(0, 30), (20, 10)] {
        let recorder = Recorder::start(&format!("timeout={timeout}"));
        let client = RawClient::publish(recorder.port(), "live", "key");
        let port = client.socket.local_addr().unwrap().port();
        let deadline = Instant::now() + PATIENCE;
        let left = loop {
            // What it was sent is acknowledged soon.
            if let Some(left) = keepalive(recorder.port(), port) {
                break left;
            }
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        };
        assert!(left <= Duration::from_secs(most), "{timeout}: {left:?}");
        // And not all the time.
        assert!(left > Duration::from_secs(most) / 4, "{timeout}: {left:?}");
    }
}
