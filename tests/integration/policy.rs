// SPDX-License-Identifier: MPL-2.0

//! `publisher-policy`: a second publisher while one is present.

use std::time::{Duration, Instant};

use gstrtmp2server::internal::amf0::Value;

use support::clients::{FFMPEG, publish};
use support::media::small;
use support::raw::{RawClient, code};
use support::recorder::Recorder;
use support::signals::Signals;
use support::{PATIENCE, flv};

const RACES: usize = 200;
const CRASHES: usize = 100;

/// Connects a client and requests to publish. Returns the status code and the client.
fn connect_and_request_publish(port: u16) -> (String, RawClient) {
    let mut client = RawClient::connect(port);
    client.handshake().connect_application("live");
    client.expect_command("_result");
    request_publish(client)
}

fn request_publish(mut client: RawClient) -> (String, RawClient) {
    client.command(1, "publish", 2.0, &[Value::Null, "key".into()]);
    let status = client.expect_command("onStatus");
    (code(&status).to_owned(), client)
}

fn send_audio(client: &mut RawClient, time: u32) {
    client.media(flv::AUDIO, time, &[0x2F, time as u8, 9], 128);
}

#[test]
fn racing_publishers_exactly_one_is_accepted() {
    let recorder = Recorder::start("keep-listening=true publisher-policy=reject");
    let port = recorder.port();
    for round in 0..RACES {
        let clients = [(); 2].map(|()| {
            let mut client = RawClient::connect(port);
            client.handshake().connect_application("live");
            client.expect_command("_result");
            client
        });
        let racers = clients.map(|client| std::thread::spawn(|| request_publish(client)));
        let results = racers.map(|racer| racer.join().unwrap());
        let started = |(code, _): &&(String, RawClient)| code == "NetStream.Publish.Start";
        assert_eq!(results.iter().filter(started).count(), 1, "round {round}");
        for (code, mut client) in results {
            if code == "NetStream.Publish.Start" {
                client.command(1, "closeStream", 0.0, &[Value::Null]);
                client.expect_command("onStatus");
            }
        }
    }
}

#[test]
fn a_killed_publisher_is_accepted_again_at_once() {
    let recorder = Recorder::start("keep-listening=true publisher-policy=reject");
    let port = recorder.port();
    for round in 0..CRASHES {
        let (code, mut client) = connect_and_request_publish(port);
        assert_eq!(code, "NetStream.Publish.Start", "round {round}");
        send_audio(&mut client, round as u32 * 20);
        // As the kernel does for a killed process: the connection closes with half a message in
        // flight.
        client.send(&[4, 0, 0]);
        drop(client);
    }
    let all = |buffers: &[gst::Buffer]| buffers.len() > CRASHES;
    recorder.wait_until("the media of every publisher", all);
    let sent: Vec<u8> = (0..CRASHES).map(|round| (round * 20) as u8).collect();
    let got: Vec<u8> = flv::media(&recorder.tags())
        .iter()
        .map(|t| t.body[1])
        .collect();
    assert_eq!(got, sent);
}

#[test]
fn a_killed_ffmpeg_is_accepted_again_at_once() {
    let recorder = Recorder::start("keep-listening=true");
    let signals = Signals::watch(&recorder.element);
    for round in 1..=10 {
        let mut publisher = publish(FFMPEG, &small(6), true, &recorder.url("live/key"));
        signals.wait_for(2 * round - 1);
        publisher.0.kill().unwrap();
    }
    let names = signals.names(20);
    let expected = ["added", "removed closed"];
    assert!(names.chunks(2).all(|pair| pair == expected), "{names:?}");
}

#[test]
fn reject_keeps_the_present_publisher() {
    let recorder = Recorder::start("publisher-policy=reject stall-timeout=1");
    let mut first = RawClient::publish(recorder.port(), "live", "key");
    send_audio(&mut first, 0);
    let (code, mut second) = connect_and_request_publish(recorder.port());
    assert_eq!(code, "NetStream.Publish.BadName");
    assert!(second.next_message().is_none());
    send_audio(&mut first, 20);
    drop(first);
    assert_eq!(flv::media(&recorder.finish()).len(), 2);
}

#[test]
fn replace_accepts_the_new_publisher() {
    let recorder = Recorder::start("publisher-policy=replace");
    let signals = Signals::watch(&recorder.element);
    let mut first = RawClient::publish(recorder.port(), "live", "key");
    for time in 0..3 {
        send_audio(&mut first, time * 20);
    }
    recorder.wait_until("the first publisher's media", |buffers| buffers.len() >= 4);
    let mut second = RawClient::publish(recorder.port(), "live", "key");
    // The first publisher gets the reason, and is closed.
    let status = first.expect_command("onStatus");
    assert_eq!(code(&status), "NetStream.Publish.BadName");
    let notified = Instant::now();
    while first.next_message().is_some() {}
    assert!(notified.elapsed() < Duration::from_secs(1));
    for time in 0..2 {
        send_audio(&mut second, 100 + time * 20);
    }
    drop(second);
    // The stream continues across the replacement, though it ends with its last publisher.
    let got: Vec<u8> = flv::media(&recorder.finish())
        .iter()
        .map(|t| t.body[1])
        .collect();
    assert_eq!(got, [0, 20, 40, 100, 120]);
    let expected = ["added", "removed replaced", "added", "removed closed"];
    assert_eq!(signals.names(4), expected);
}

#[test]
fn replace_stalled_replaces_only_a_stalled_publisher() {
    let recorder = Recorder::start("stall-timeout=200 keep-listening=true");
    let port = recorder.port();
    let mut first = RawClient::publish(port, "live", "key");
    // While media arrives, every other publisher is refused, for longer than the timeout.
    let start = Instant::now();
    let mut silent_since = start;
    let mut time = 0;
    while start.elapsed() < Duration::from_millis(600) {
        silent_since = Instant::now();
        send_audio(&mut first, time);
        let (code, _client) = connect_and_request_publish(port);
        assert_eq!(
            code,
            "NetStream.Publish.BadName",
            "after {:?}",
            start.elapsed()
        );
        time += 20;
    }
    // After the stall timeout, the silent publisher is replaced.
    let second = loop {
        let (code, client) = connect_and_request_publish(port);
        if code == "NetStream.Publish.Start" {
            break client;
        }
        assert!(silent_since.elapsed() < PATIENCE);
    };
    assert!(
        silent_since.elapsed() >= Duration::from_millis(150),
        "{:?}",
        silent_since.elapsed()
    );
    let status = first.expect_command("onStatus");
    assert_eq!(code(&status), "NetStream.Publish.BadName");
    drop(second);
}

#[test]
fn a_publisher_that_waits_for_a_slow_pipeline_is_not_stalled() {
    let recorder = Recorder::start_into(
        "stall-timeout=100 max-bytes=2000",
        "identity sleep-time=400000 ! fakesink sync=false async=false",
    );
    let mut first = RawClient::publish(recorder.port(), "live", "key");
    let body = [&[0x2F, 1][..], &[9; 100]].concat();
    let message = support::raw::media_chunks(flv::AUDIO, 0, &body, 128);
    // Far more than the queue and the socket buffers hold.
    first
        .socket
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let many = message.repeat(200_000);
    let start = Instant::now();
    std::io::Write::write_all(&mut first.socket, &many).unwrap_err();
    assert!(start.elapsed() > Duration::from_millis(100));
    for _ in 0..5 {
        let (code, _client) = connect_and_request_publish(recorder.port());
        assert_eq!(code, "NetStream.Publish.BadName");
    }
}
