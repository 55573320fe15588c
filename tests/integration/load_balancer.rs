// SPDX-License-Identifier: MPL-2.0

//! PROXY headers, health checks and draining behind a load balancer.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstrtmp2server::internal::amf0::Value;
use rustix::process::Signal;

use support::camera::{self, Camera, Report};
use support::clients::{FFMPEG, Running, publish};
use support::flv;
use support::launch::Launch;
use support::media::small;
use support::program::Program;
use support::raw::{RawClient, code};
use support::recorder::Recorder;
use support::signals::Signals;

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v1(address: &str) -> Vec<u8> {
    format!("PROXY TCP4 {address} 198.51.100.1 56324 1935\r\n").into_bytes()
}

fn v2(address: [u8; 4]) -> Vec<u8> {
    let [a, b, c, d] = address;
    let tail = [
        0x21, 0x11, 0, 12, a, b, c, d, 198, 51, 100, 1, 0xDC, 4, 7, 0x8F,
    ];
    [V2_SIGNATURE, &tail].concat()
}

fn connect_with_header(port: u16, header: &[u8]) -> RawClient {
    let mut client = RawClient::connect(port);
    client.send(header);
    client
}

fn publish_with_header(port: u16, header: &[u8]) -> RawClient {
    let mut client = connect_with_header(port, header);
    client.handshake().connect_application("live");
    client.expect_command("_result");
    client.command(1, "publish", 2.0, &[Value::Null, "key".into()]);
    assert_eq!(
        code(&client.expect_command("onStatus")),
        "NetStream.Publish.Start"
    );
    client
}

#[track_caller]
fn assert_closed(mut socket: TcpStream) {
    socket.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    // A reset closes too.
    let _ = socket.read_to_end(&mut bytes);
    assert!(bytes.is_empty());
}

#[test]
fn the_proxied_address_is_the_publishers_address() {
    for (version, header) in [("v1", v1("192.0.2.7")), ("v2", v2([192, 0, 2, 7]))] {
        let recorder = Recorder::start(&format!("proxy-protocol={version}"));
        let signals = Signals::watch(&recorder.element);
        let mut client = publish_with_header(recorder.port(), &header);
        assert_eq!(recorder.stats().get("address"), Ok("192.0.2.7:56324"));
        let info = signals.wait_for(1).remove(0).info;
        assert_eq!(info.get("address"), Ok("192.0.2.7:56324"));
        client.media(flv::AUDIO, 0, &[0x2F, 1, 9], 128);
        drop(client);
        assert_eq!(flv::media(&recorder.finish()).len(), 1);
    }
}

#[test]
fn address_rules_apply_to_proxied_addresses() {
    let recorder = Recorder::start(
        "proxy-protocol=v2 allowed-addresses=192.0.2.0/24 max-clients-per-address=1",
    );
    let port = recorder.port();
    assert_closed(connect_with_header(port, &v2([198, 51, 100, 9])).socket);
    let publisher = publish_with_header(port, &v2([192, 0, 2, 1]));
    // A load balancer's own connection (command LOCAL) has no client address that may publish.
    let local = [V2_SIGNATURE, &[0x20, 0, 0, 0]].concat();
    let mut own = connect_with_header(port, &local);
    own.send(&[3]);
    assert_closed(own.socket);
    // The limit counts the publisher's address, not the load balancer's.
    assert_closed(connect_with_header(port, &v2([192, 0, 2, 1])).socket);
    let mut other = connect_with_header(port, &v2([192, 0, 2, 2]));
    other.handshake().connect_application("live");
    other.expect_command("_result");
    drop(publisher);
}

#[test]
fn the_proxy_header_is_required_and_may_arrive_in_pieces() {
    let recorder = Recorder::start("proxy-protocol=v2");
    let port = recorder.port();
    for start in [&[3, 0, 0][..], &v1("192.0.2.7"), b"GET / HTTP/1.1\r\n\r\n"] {
        assert_closed(connect_with_header(port, start).socket);
    }
    // The header arrives byte by byte, and its last byte together with C0 and C1.
    let header = v2([192, 0, 2, 7]);
    let mut client = RawClient::connect(port);
    for byte in &header[..header.len() - 1] {
        client.send(&[*byte]);
    }
    let hello = [&header[header.len() - 1..], &[3], &[0; 1536]].concat();
    client.send(&hello);
    client.socket.read_exact(&mut [0; 3073]).unwrap();
}

#[test]
fn health_checks_log_nothing() {
    let mut launch = Launch::start_logged(
        "rtmp2serversrc port=0 proxy-protocol=v2 ! fakesink",
        "rtmp2server:5,rtmp2serversrc:5",
    );
    let port = launch.port();
    let before = launch.log();
    // Command LOCAL: the load balancer's own connection.
    let local = [V2_SIGNATURE, &[0x20, 0, 0, 0]].concat();
    for bytes in [&b""[..], &local] {
        for _ in 0..3 {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
            socket.write_all(bytes).unwrap();
            socket.shutdown(std::net::Shutdown::Write).unwrap();
            let _ = socket.read_to_end(&mut Vec::new());
        }
    }
    assert_eq!(launch.log(), before);
}

#[test]
fn drain_disconnects_after_its_timeout_and_ends_the_stream() {
    let recorder = Recorder::start("keep-listening=true drain-timeout=300");
    let signals = Signals::watch(&recorder.element);
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    client.media(flv::AUDIO, 0, &[0x2F, 1, 9], 128);
    recorder.wait_until("its media", |buffers| buffers.len() > 1);
    let start = Instant::now();
    recorder.element.set_property("drain", true);
    // The client does not support reconnect requests, so it may stay until the timeout.
    client.media(flv::AUDIO, 20, &[0x2F, 1, 9], 128);
    assert!(client.next_message().is_none());
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(flv::media(&recorder.finish()).len(), 2);
    assert_eq!(signals.names(2), ["added", "removed drained"]);
    // The port is closed, so that the load balancer notices.
    let deadline = Instant::now() + support::PATIENCE;
    while TcpStream::connect(("127.0.0.1", recorder.port())).is_ok() {
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn a_drained_element_on_a_shared_port_rejects_publishers() {
    let drained = Recorder::start("stream-key=one keep-listening=true drain=true");
    let port = drained.port();
    let other = Recorder::start(&format!("port={port} stream-key=two"));
    drained.wait_for(gst::MessageType::Eos);
    let output = publish(FFMPEG, &small(1), false, &drained.url("live/one")).wait();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("about to stop"), "{text}");
    publish(FFMPEG, &small(1), false, &other.url("live/two")).succeed();
    assert!(!flv::media(&other.finish()).is_empty());
}

#[test]
fn a_port_closed_by_drain_reopens() {
    let recorder = Recorder::start("keep-listening=true drain-timeout=60000");
    let port = recorder.port();
    let _publisher = RawClient::publish(port, "live", "key");
    recorder.element.set_property("drain", true);
    let deadline = Instant::now() + support::PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_ok() {
        assert!(Instant::now() < deadline);
    }
    recorder.element.set_property("drain", false);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline);
    }
    let _other = Recorder::start(&format!("port={port} stream-key=other"));
    RawClient::publish(port, "live", "other");
}

/// The example `ingest`, which records cameras, in a process of its own.
struct Ingest {
    program: Program,
    port: u16,
    folder: tempfile::TempDir,
}

const KEYS: [&str; 4] = ["one", "two", "three", "four"];

impl Ingest {
    fn start(port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(example("ingest"));
        command
            .args(["--port", &port.to_string(), "--keys", &KEYS.join(",")])
            .args([
                "--proxy-protocol",
                "v2",
                "--drain-timeout",
                "1000",
                "--folder",
            ])
            .arg(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut program = Program::start(&mut command);
        let address = program.rest_after("listening on ");
        let port = address.trim_end_matches('/').rsplit(':').next();
        Ingest {
            program,
            port: port.unwrap().parse().unwrap(),
            folder,
        }
    }

    /// Asks the process to drain and waits for its exit.
    fn drain(mut self) -> tempfile::TempDir {
        self.program.signal(Signal::TERM);
        assert!(self.program.wait().success());
        self.folder
    }
}

fn example(name: &str) -> PathBuf {
    support::launch::plugin_folder().join("examples").join(name)
}

/// Starts HAProxy in front of two ports, on a port of its own.
fn haproxy(folder: &Path, backends: [u16; 2]) -> (Running, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let configuration = include_str!("../../docs/haproxy.cfg")
        .replace("bind :1935", "bind fd@0")
        .replace("10.0.0.1:1935", &format!("127.0.0.1:{}", backends[0]))
        .replace("10.0.0.2:1935", &format!("127.0.0.1:{}", backends[1]));
    let file = folder.join("haproxy.cfg");
    std::fs::write(&file, configuration).unwrap();
    let mut command = Command::new("/usr/sbin/haproxy");
    let child = command
        .args(["-db", "-f"])
        .arg(file)
        // The process inherits the listening socket, so that no other process can take the port.
        .stdin(OwnedFd::from(listener))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (Running(child), port)
}

/// Returns the indices of a camera's frames in a recording.
fn recorded(folder: &tempfile::TempDir, key: &str) -> Vec<u32> {
    let path = folder.path().join(format!("{key}.flv"));
    let bytes = std::fs::read(path).unwrap();
    if bytes.is_empty() {
        return Vec::new();
    }
    let tags = flv::parse(&bytes).unwrap();
    let frames = tags.iter().filter(|tag| tag.is_frame());
    // Timestamps restart with each publisher, so frames are identified by their content.
    frames.map(camera::index_of).collect()
}

/// Asserts that a camera lost only frames in flight when its connection ended, across a restart of
/// one of two processes.
fn assert_lost_no_more_than_its_reconnect(key: &str, report: &Report, got: &[u32]) {
    let missing: Vec<u32> = (0..report.frames)
        .filter(|index| !got.contains(index))
        .collect();
    let lost: Vec<u32> = missing
        .iter()
        .filter(|index| !report.unsent.contains(index))
        .copied()
        .collect();
    println!("{key}: {report:?}, lost {lost:?}");
    assert_eq!(
        got.len() + missing.len(),
        report.frames as usize,
        "{key}: a frame came twice"
    );
    // Frames in flight at the end of a connection are lost: very few, and next to a reconnect.
    for index in lost {
        let near = |(at, _): &(u32, Duration)| (at.saturating_sub(3)..=*at).contains(&index);
        assert!(
            report.reconnects.iter().any(near),
            "{key}: {index} is lost, {report:?}"
        );
    }
}

#[test]
fn four_publishers_survive_rolling_restarts_of_two_processes() {
    let folder = tempfile::tempdir().unwrap();
    let first = Ingest::start(0);
    let second = Ingest::start(0);
    let (first_port, ports) = (first.port, [first.port, second.port]);
    let (_haproxy, port) = haproxy(folder.path(), ports);
    // Two cameras support reconnect requests, and two are disconnected.
    let cameras: Vec<Camera> = KEYS
        .iter()
        .enumerate()
        .map(|(index, key)| {
            let address = Ipv4Addr::new(127, 0, 1, 1 + index as u8);
            Camera::start_from(address, port, key, index % 2 == 0)
        })
        .collect();
    let mut first = first;
    let mut second = second;
    // HAProxy distributes round-robin, so each process has two cameras.
    for ingest in [&mut first, &mut second] {
        for _ in 0..2 {
            let line = ingest.program.wait_for("publishes");
            assert!(line.contains(": 127.0.1."), "{line}");
        }
    }
    let mut folders = vec![first.drain()];
    // The two cameras have reconnected to the other process, or are about to.
    (0..2).for_each(|_| drop(second.program.wait_for("publishes")));
    let restarted = Ingest::start(first_port);
    // HAProxy uses the restarted process again, so the other one can be drained.
    let mut restarted = restarted;
    let drained = std::thread::spawn(|| second.drain());
    (0..4).for_each(|_| drop(restarted.program.wait_for("publishes")));
    folders.push(drained.join().unwrap());
    let reports: Vec<Report> = cameras.into_iter().map(Camera::stop).collect();
    folders.push(restarted.drain());
    for (key, report) in KEYS.iter().zip(&reports) {
        let got: Vec<u32> = folders.iter().flat_map(|f| recorded(f, key)).collect();
        assert!(!report.reconnects.is_empty(), "{key}");
        assert_lost_no_more_than_its_reconnect(key, report, &got);
    }
}
