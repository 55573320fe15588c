// SPDX-License-Identifier: MPL-2.0

//! A second publisher while there is one.

use std::time::{Duration, Instant};

use gstrtmp2server::amf0::Value;

use crate::support::clients::{FFMPEG, publish};
use crate::support::media::small;
use crate::support::raw::{RawClient, code};
use crate::support::recorder::Recorder;
use crate::support::signals::Signals;
use crate::support::{PATIENCE, flv};

const RACES: usize = 200;
const CRASHES: usize = 100;

/// A client that has asked to publish; its answer, and the client itself.
fn try_to_publish(port: u16) -> (String, RawClient) {
    let mut client = RawClient::connect(port);
    client.handshake().connect_application("live");
    client.expect_command("_result");
    ask(client)
}

fn ask(mut client: RawClient) -> (String, RawClient) {
    client.command(1, "publish", 2.0, &[Value::Null, "key".into()]);
    let status = client.expect_command("onStatus");
    (code(&status).to_owned(), client)
}

fn sound(client: &mut RawClient, time: u32) {
    client.media(flv::AUDIO, time, &[0x2F, time as u8, 9], 128);
}

#[test]
fn of_two_that_race_one_starts() {
    let recorder = Recorder::start("keep-listening=true publisher-policy=reject");
    let port = recorder.port();
    for round in 0..RACES {
        let clients = [(); 2].map(|()| {
            let mut client = RawClient::connect(port);
            client.handshake().connect_application("live");
            client.expect_command("_result");
            client
        });
        let racers = clients.map(|client| std::thread::spawn(|| ask(client)));
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
fn who_was_killed_gets_in_again_at_once() {
    let recorder = Recorder::start("keep-listening=true publisher-policy=reject");
    let port = recorder.port();
    for round in 0..CRASHES {
        let (code, mut client) = try_to_publish(port);
        assert_eq!(code, "NetStream.Publish.Start", "round {round}");
        sound(&mut client, round as u32 * 20);
        // As the kernel does it for a process that is killed, half of a message being under way.
        client.send(&[4, 0, 0]);
        drop(client);
    }
    let all = |buffers: &[gst::Buffer]| buffers.len() > CRASHES;
    recorder.wait_until("what each sent", all);
    let sent: Vec<u8> = (0..CRASHES).map(|round| (round * 20) as u8).collect();
    let got: Vec<u8> = flv::media(&recorder.tags())
        .iter()
        .map(|t| t.body[1])
        .collect();
    assert_eq!(got, sent);
}

#[test]
fn a_killed_ffmpeg_gets_in_again_at_once() {
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
fn reject_keeps_the_one_that_is_there() {
    let recorder = Recorder::start("publisher-policy=reject stall-timeout=1");
    let mut first = RawClient::publish(recorder.port(), "live", "key");
    sound(&mut first, 0);
    let (code, mut second) = try_to_publish(recorder.port());
    assert_eq!(code, "NetStream.Publish.BadName");
    assert!(second.next_message().is_none());
    sound(&mut first, 20);
    drop(first);
    assert_eq!(flv::media(&recorder.finish()).len(), 2);
}

#[test]
fn replace_lets_the_new_one_take_over() {
    let recorder = Recorder::start("publisher-policy=replace");
    let signals = Signals::watch(&recorder.element);
    let mut first = RawClient::publish(recorder.port(), "live", "key");
    for time in 0..3 {
        sound(&mut first, time * 20);
    }
    recorder.wait_until("the first one's media", |buffers| buffers.len() >= 4);
    let mut second = RawClient::publish(recorder.port(), "live", "key");
    // The first is told why, and closed.
    let status = first.expect_command("onStatus");
    assert_eq!(code(&status), "NetStream.Publish.BadName");
    let told = Instant::now();
    while first.next_message().is_some() {}
    assert!(told.elapsed() < Duration::from_secs(1));
    for time in 0..2 {
        sound(&mut second, 100 + time * 20);
    }
    drop(second);
    // The stream has gone on all the while, though it ends with its publisher.
    let got: Vec<u8> = flv::media(&recorder.finish())
        .iter()
        .map(|t| t.body[1])
        .collect();
    assert_eq!(got, [0, 20, 40, 100, 120]);
    let expected = ["added", "removed replaced", "added", "removed closed"];
    assert_eq!(signals.names(4), expected);
}

#[test]
fn replace_stalled_lets_in_who_comes_back_and_nobody_else() {
    let recorder = Recorder::start("stall-timeout=200 keep-listening=true");
    let port = recorder.port();
    let mut first = RawClient::publish(port, "live", "key");
    // As long as media comes, nobody gets in: for longer than the timeout.
    let start = Instant::now();
    let mut time = 0;
    while start.elapsed() < Duration::from_millis(600) {
        sound(&mut first, time);
        let (code, _client) = try_to_publish(port);
        assert_eq!(
            code,
            "NetStream.Publish.BadName",
            "after {:?}",
            start.elapsed()
        );
        time += 20;
    }
    // Then it is silent, and after a while it is not in the way any more.
    let silent = Instant::now();
    let second = loop {
        let (code, client) = try_to_publish(port);
        if code == "NetStream.Publish.Start" {
            break client;
        }
        assert!(silent.elapsed() < PATIENCE);
    };
    assert!(
        silent.elapsed() >= Duration::from_millis(150),
        "{:?}",
        silent.elapsed()
    );
    let status = first.expect_command("onStatus");
    assert_eq!(code(&status), "NetStream.Publish.BadName");
    drop(second);
}

#[test]
fn who_waits_for_a_slow_pipeline_is_not_stalled() {
    let recorder = Recorder::start_into(
        "stall-timeout=100 max-bytes=2000",
        "identity sleep-time=400000 ! fakesink sync=false async=false",
    );
    let mut first = RawClient::publish(recorder.port(), "live", "key");
    let body = [&[0x2F, 1][..], &[9; 100]].concat();
    let message = crate::support::raw::media_chunks(flv::AUDIO, 0, &body, 128);
    // Far more than the queue and the sockets take.
    first
        .socket
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let many = message.repeat(200_000);
    let start = Instant::now();
    std::io::Write::write_all(&mut first.socket, &many).unwrap_err();
    assert!(start.elapsed() > Duration::from_millis(100));
    for _ in 0..5 {
        let (code, _client) = try_to_publish(recorder.port());
        assert_eq!(code, "NetStream.Publish.BadName");
    }
}
