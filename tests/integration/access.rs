// SPDX-License-Identifier: MPL-2.0

//! Access rules, limits on clients and messages, and timeouts.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstrtmp2server::internal::amf0::Value;
use gstrtmp2server::internal::rtmp::control::Control;

use support::PATIENCE;
use support::clients::{FFMPEG, publish};
use support::flv;
use support::media::small;
use support::raw::{RawClient, code};
use support::recorder::Recorder;

/// Longest time from a refusal to the end of the connection, however the client behaves.
const MAX_CLOSING_TIME: Duration = Duration::from_secs(1);

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
fn a_wrong_stream_key_is_refused_before_publish_start() {
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
    assert!(refused.elapsed() < MAX_CLOSING_TIME);
    assert!(contains(&bytes, "NetStream.Publish.BadName"));
    assert!(!contains(&bytes, "NetStream.Publish.Start"));
}

#[test]
fn a_refused_client_that_keeps_sending_is_closed() {
    let recorder = Recorder::start("application=live");
    let mut client = RawClient::connect(recorder.port());
    client.handshake().connect_application("other");
    let refused = Instant::now();
    // The client neither reads nor stops.
    while client.socket.write_all(&[0; 1000]).is_ok() {
        assert!(refused.elapsed() < 2 * MAX_CLOSING_TIME);
    }
    assert!(refused.elapsed() < MAX_CLOSING_TIME);
}

/// The time to read the refusal does not begin with the request.
#[test]
fn a_client_that_a_slow_handler_refuses_has_time_to_read_that() {
    const READING_TIME: Duration = Duration::from_millis(800);
    let recorder = Recorder::start("");
    let (decided, is_decided) = mpsc::channel();
    let connect = move |_: &[gst::glib::Value]| {
        // The handler's work: longer than the time to read the refusal.
        std::thread::sleep(READING_TIME + Duration::from_millis(200));
        decided.send(Instant::now()).unwrap();
        Some(false.to_value())
    };
    let element = &recorder.element;
    element.connect("publisher-connecting", false, connect);
    let mut client = connected_client(recorder.port());
    client.command(1, "publish", 2.0, &[Value::Null, "key".into()]);
    let status = client.expect_command("onStatus");
    assert_eq!(code(&status), "NetStream.Publish.Denied");
    let refused = is_decided.recv_timeout(PATIENCE).unwrap();
    // The server has half-closed the connection, and reads on.
    while client.socket.write_all(&[0]).is_ok() {
        assert!(refused.elapsed() < PATIENCE);
        // The pace of the client.
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(refused.elapsed() >= READING_TIME, "{:?}", refused.elapsed());
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

/// A client that is connected to an application and has not published.
fn connected_client(port: u16) -> RawClient {
    let mut client = RawClient::connect(port);
    client.handshake().connect_application("live");
    client.expect_command("_result");
    client
}

#[test]
fn the_oldest_idle_client_is_evicted_at_the_client_limit() {
    for limit in ["max-clients=3", "max-clients-per-address=3"] {
        let recorder = Recorder::start(&format!("{limit} keep-listening=true"));
        let port = recorder.port();
        let mut publisher = RawClient::publish(port, "live", "key");
        let mut oldest = connected_client(port);
        let mut second = connected_client(port);
        // One more client is accepted, and the oldest idle one is evicted.
        let mut newest = connected_client(port);
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
fn publishers_are_never_evicted_for_a_new_client() {
    for limit in ["max-clients=2", "max-clients-per-address=2"] {
        let one = Recorder::start(&format!("{limit} stream-key=one"));
        let port = one.port();
        let two = Recorder::start(&format!("{limit} port={port} stream-key=two"));
        let _publishers = ["one", "two"].map(|key| RawClient::publish(port, "live", key));
        let mut third = TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert!(read_to_close(&mut third).is_empty());
        drop(two);
        // The stopped element's publisher has freed a place.
        connected_client(port);
    }
}

#[test]
fn clients_from_other_addresses_are_closed_at_accept() {
    let recorder = Recorder::start("allowed-addresses=192.0.2.0/24,2001:db8::1");
    let mut socket = TcpStream::connect(("127.0.0.1", recorder.port())).unwrap();
    assert!(read_to_close(&mut socket).is_empty());
    let recorder = Recorder::start("allowed-addresses=192.0.2.0/24,127.0.0.0/8");
    RawClient::publish(recorder.port(), "live", "key");
}

#[test]
fn each_element_of_a_port_has_its_own_allowed_addresses() {
    let own = Recorder::start("stream-key=own allowed-addresses=127.0.0.1");
    let port = own.port();
    let _other = Recorder::start(&format!(
        "port={port} stream-key=other allowed-addresses=192.0.2.1"
    ));
    let mut client = connected_client(port);
    client.command(1, "publish", 2.0, &[Value::Null, "other".into()]);
    let status = client.expect_command("onStatus");
    assert_eq!(code(&status), "NetStream.Publish.Denied");
    RawClient::publish(port, "live", "own");
}

#[test]
fn a_message_over_the_size_limit_disconnects_its_client() {
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
fn a_silent_publisher_is_pinged_and_disconnected() {
    let recorder = Recorder::start("timeout=2");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    client.media(flv::AUDIO, 0, &[0xAF, 1, 9], 128);
    client.expect_ping();
    assert_eq!(flv::media(&recorder.finish()).len(), 1);
    assert!(client.next_message().is_none());
}

/// A publisher may have nothing to send. Its pongs prove that it lives.
#[test]
fn a_silent_publisher_that_answers_pings_stays() {
    let recorder = Recorder::start("timeout=6");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    client.media(flv::AUDIO, 0, &[0xAF, 1, 9], 128);
    // Longer than a publisher that answers nothing may stay.
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
fn clients_that_miss_the_publish_deadline_are_closed() {
    let recorder = Recorder::start("handshake-timeout=300");
    let mut silent = TcpStream::connect(("127.0.0.1", recorder.port())).unwrap();
    let mut half = RawClient::connect(recorder.port());
    half.handshake();
    assert!(read_to_close(&mut silent).is_empty());
    assert!(half.next_message().is_none());
}

/// Returns the time until the kernel's next keepalive probe of a client, as `/proc/net/tcp` shows
/// it.
fn keepalive(server: u16, client: u16) -> Option<Duration> {
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in std::fs::read_to_string(file).unwrap().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if (port(fields[1]), port(fields[2])) != (Some(server), Some(client)) {
                continue;
            }
            // Timer 2 is the keepalive timer. It runs while no data is in flight.
            let (timer, ticks) = fields[5].split_once(':').unwrap();
            let ticks = u64::from_str_radix(ticks, 16).unwrap();
            return (timer == "02").then(|| Duration::from_millis(ticks * 10));
        }
    }
    None
}

#[test]
fn tcp_keepalive_watches_silent_publishers() {
    for (timeout, most) in [(0, 30), (20, 10)] {
        let recorder = Recorder::start(&format!("timeout={timeout}"));
        let client = RawClient::publish(recorder.port(), "live", "key");
        let port = client.socket.local_addr().unwrap().port();
        let deadline = Instant::now() + PATIENCE;
        let left = loop {
            // The client acknowledges what it was sent within a moment.
            if let Some(left) = keepalive(recorder.port(), port) {
                break left;
            }
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        };
        assert!(left <= Duration::from_secs(most), "{timeout}: {left:?}");
        // The probes are not frequent.
        assert!(left > Duration::from_secs(most) / 4, "{timeout}: {left:?}");
    }
}
