// SPDX-License-Identifier: MPL-2.0

//! Servers that are slow, that fail, that lie, and that redirect.

use std::io;
use std::net::TcpListener;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use super::http_server::{HttpServer, Stream};
use super::{answer, request};
use support::PATIENCE;
use support::flv;
use support::raw::{RawClient, code};
use support::recorder::Recorder;
use support::signals::Signals;

/// Time-out of servers that never end their answers.
const TIMEOUT: Duration = Duration::from_millis(400);

/// Writes the same bytes for ever.
fn endless(stream: &mut dyn Stream, bytes: &[u8]) -> io::Result<()> {
    loop {
        stream.write_all(bytes)?;
    }
}

/// Writes the same bytes for ever, with a pause after each.
fn drip(stream: &mut dyn Stream, bytes: &[u8]) -> io::Result<()> {
    loop {
        stream.write_all(bytes)?;
        stream.flush()?;
        // The pace of the server.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for longer than any test.
fn stay_silent() -> io::Result<()> {
    std::thread::sleep(2 * PATIENCE);
    Ok(())
}

type Lie = fn(&mut dyn Stream) -> io::Result<()>;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\n";

/// Wrong answers, and the reasons for which nobody gets in by them.
const LIES: [(&str, &str, Lie); 17] = [
    ("silent", "auth-timeout", |_| stay_silent()),
    ("part of a head", "auth-timeout", |stream| {
        stream.write_all(&OK[..9])?;
        stay_silent()
    }),
    ("slow head", "auth-timeout", |stream| {
        stream.write_all(OK)?;
        drip(stream, b"A")
    }),
    ("slow headers", "auth-timeout", |stream| {
        stream.write_all(OK)?;
        drip(stream, b"A: b\r\n")
    }),
    ("endless informational answers", "auth-timeout", |stream| {
        drip(stream, b"HTTP/1.1 102 Processing\r\n\r\n")
    }),
    ("slow body", "auth-timeout", |stream| {
        stream.write_all(OK)?;
        stream.write_all(b"Content-Length: 10000\r\n\r\n")?;
        drip(stream, b" ")
    }),
    ("missing rest of the body", "auth-timeout", |stream| {
        stream.write_all(OK)?;
        stream.write_all(b"Content-Length: 10\r\n\r\n{}")?;
        stay_silent()
    }),
    ("body that breaks off", "auth-bad-answer", |stream| {
        stream.write_all(OK)?;
        stream.write_all(b"Content-Length: 10\r\n\r\n{}")?;
        Err(io::ErrorKind::ConnectionAborted.into())
    }),
    (
        "chunked body that breaks off",
        "auth-bad-answer",
        |stream| {
            stream.write_all(OK)?;
            stream.write_all(b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")?;
            Err(io::ErrorKind::ConnectionAborted.into())
        },
    ),
    ("endless headers", "auth-bad-answer", |stream| {
        stream.write_all(OK)?;
        endless(stream, b"A: a long header for each line of them\r\n")
    }),
    ("endless header", "auth-bad-answer", |stream| {
        stream.write_all(OK)?;
        endless(stream, b"A long line without an end")
    }),
    ("endless body", "auth-bad-answer", |stream| {
        stream.write_all(OK)?;
        stream.write_all(b"\r\n")?;
        endless(stream, b"a long body")
    }),
    ("endless chunks", "auth-bad-answer", |stream| {
        stream.write_all(OK)?;
        stream.write_all(b"Transfer-Encoding: chunked\r\n\r\n")?;
        endless(stream, b"10\r\n0123456789abcdef\r\n")
    }),
    ("length of petabytes", "auth-bad-answer", |stream| {
        stream.write_all(OK)?;
        stream.write_all(b"Content-Length: 9000000000000000\r\n\r\n")?;
        endless(stream, b"a long body")
    }),
    ("compressed body", "auth-bad-answer", |stream| {
        stream.write_all(OK)?;
        stream.write_all(b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00")
    }),
    ("no HTTP", "auth-bad-answer", |stream| {
        stream.write_all(b"220 mail.example ESMTP\r\n\r\n")?;
        Err(io::ErrorKind::ConnectionAborted.into())
    }),
    ("no answer", "auth-bad-answer", |_| {
        Err(io::ErrorKind::ConnectionAborted.into())
    }),
];

#[test]
fn nobody_gets_in_by_a_lie_or_a_timeout() {
    let server = HttpServer::start(|question, stream| {
        let path = question["path"].as_str().unwrap();
        let index: usize = path.strip_prefix("live/lie").unwrap().parse().unwrap();
        LIES[index].2(stream)
    });
    let recorder = Recorder::start(&format!(
        "application=live keep-listening=true auth-url={} auth-timeout={}",
        server.url(),
        TIMEOUT.as_millis()
    ));
    let signals = Signals::watch(&recorder.element);
    for (index, (name, reason, _)) in LIES.iter().enumerate() {
        let start = Instant::now();
        let status = answer(recorder.port(), &format!("lie{index}"));
        let shutdown = "NetConnection.Connect.AppShutdown";
        assert_eq!(code(&status), shutdown, "{name}: {status:?}");
        let seen = signals.wait_for(index + 1);
        assert_eq!(seen[index].reason, *reason, "{name}");
        if *reason == "auth-timeout" {
            assert!(start.elapsed() >= TIMEOUT, "{name}: {:?}", start.elapsed());
        }
    }
}

#[test]
fn a_server_that_cannot_be_reached_lets_nobody_in() {
    // Nobody listens there any more.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{port}/");
    let recorder = Recorder::start(&format!("auth-url={url} auth-timeout=60000"));
    let signals = Signals::watch(&recorder.element);
    let status = answer(recorder.port(), "key");
    assert_eq!(code(&status), "NetConnection.Connect.AppShutdown");
    assert_eq!(signals.names(1), ["rejected auth-unreachable"]);
}

#[test]
fn two_hundred_publishers_wait_alone_for_bad_servers() {
    const EACH: usize = 50;
    let slow = HttpServer::start(|_, _| stay_silent());
    let failing = HttpServer::start(|_, _| Err(io::ErrorKind::ConnectionAborted.into()));
    let lying = HttpServer::start(|_, stream| endless(stream, b"HTTP/1.1 200 OK\r\nA: "));
    let redirecting = HttpServer::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 307 Away\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")
    });
    let limits = "max-clients-per-address=1000 keep-listening=true";
    let open = Recorder::start(&format!("{limits} stream-key=open"));
    let port = open.port();
    let element = |key: &str, server: &HttpServer| {
        let url = server.url();
        Recorder::start(&format!(
            "{limits} port={port} stream-key={key} auth-url={url} auth-timeout=600000"
        ))
    };
    let waiting = element("slow", &slow);
    let others = [
        ("failing", &failing),
        ("lying", &lying),
        ("redirecting", &redirecting),
    ];
    let others = others.map(|(key, server)| (key, element(key, server)));
    let signals = others
        .each_ref()
        .map(|(_, recorder)| Signals::watch(&recorder.element));
    let waiting_signals = Signals::watch(&waiting.element);

    let mut held: Vec<RawClient> = (0..EACH).map(|_| request(port, "slow")).collect();
    let mut refused: Vec<RawClient> = Vec::new();
    for (key, _) in &others {
        refused.extend((0..EACH).map(|_| request(port, key)));
    }
    slow.questions(EACH);
    // Another publisher of the same port gets in at once, and its media arrives.
    let mut publisher = RawClient::publish(port, "live", "open");
    publisher.media(flv::AUDIO, 0, &[0x2F, 1, 9], 128);
    open.wait_until("its media", |buffers| buffers.len() > 1);
    for mut client in refused {
        let status = client.expect_command("onStatus");
        assert_eq!(code(&status), "NetConnection.Connect.AppShutdown");
    }
    for signals in &signals {
        let names = signals.names(EACH);
        assert!(
            names.iter().all(|name| name == "rejected auth-bad-answer"),
            "{names:?}"
        );
    }
    // All of that while the slow server has answered nobody. The end of the element ends the wait.
    assert!(waiting_signals.wait_for(0).is_empty());
    drop(waiting);
    for client in &mut held {
        assert!(client.try_expect_command("onStatus").is_none());
    }
    assert!(waiting_signals.wait_for(0).is_empty());
    publisher.media(flv::AUDIO, 20, &[0x2F, 1, 9], 128);
    open.wait_until("more media", |buffers| buffers.len() > 2);
}

#[test]
fn the_end_of_an_element_interrupts_its_questions() {
    let (ended, has_ended) = mpsc::channel();
    let ended = Mutex::new(ended);
    let server = HttpServer::start(move |_, stream| {
        // Until the other side closes.
        let end = stream.read(&mut [0; 1]);
        ended
            .lock()
            .unwrap()
            .send(end.is_ok_and(|count| count == 0))
            .unwrap();
        Err(io::ErrorKind::ConnectionAborted.into())
    });
    let recorder = Recorder::start(&format!("auth-url={} auth-timeout=600000", server.url()));
    let signals = Signals::watch(&recorder.element);
    let mut client = request(recorder.port(), "key");
    server.questions(1);
    drop(recorder);
    assert_eq!(has_ended.recv_timeout(PATIENCE), Ok(true));
    assert!(client.try_expect_command("onStatus").is_none());
    assert!(signals.wait_for(0).is_empty());
}
