// SPDX-License-Identifier: MPL-2.0

//! RTMP and RTMPS on one port.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::tls::{CertificateFiles, handshake, over};
use support::clients::{FFMPEG, publish};
use support::flv;
use support::media::{copy, small};
use support::raw::RawClient;
use support::recorder::Recorder;
use support::signals::Signals;

/// Connects, and sends the PROXY header of a load balancer.
fn behind_proxy(port: u16) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 1935\r\n";
    socket.write_all(header).unwrap();
    socket
}

#[test]
fn clients_choose_between_rtmp_and_rtmps_on_one_port() {
    let files = CertificateFiles::new();
    let recorder = Recorder::start(&format!(
        "{} encryption=optional keep-listening=true",
        files.properties()
    ));
    let signals = Signals::watch(&recorder.element);
    let file = small(1);
    let sent = flv::read_file(&copy(FFMPEG, &file));
    let sent: Vec<_> = sent
        .into_iter()
        .filter(|tag| !tag.is_end_of_sequence())
        .collect();
    let count = flv::media(&sent).len();
    for (index, scheme) in ["rtmps", "rtmp"].iter().enumerate() {
        let url = format!("{scheme}://127.0.0.1:{}/live/key", recorder.port());
        publish(FFMPEG, &file, false, &url).succeed();
        let needed = count * (index + 1);
        recorder.wait_until("all of it", |buffers| buffers.len() > needed);
        let info = &signals.wait_for(2 * index + 1)[2 * index].info;
        assert_eq!(info.get("tls"), Ok(*scheme == "rtmps"));
    }
}

#[test]
fn the_choice_comes_after_the_header_of_a_load_balancer() {
    let files = CertificateFiles::new();
    let recorder = Recorder::start(&format!(
        "{} encryption=optional proxy-protocol=v1 keep-listening=true",
        files.properties()
    ));
    // The header arrives by itself, and together with the first bytes after it.
    let certificate = handshake(&mut over(
        behind_proxy(recorder.port()),
        &rustls::version::TLS13,
    ));
    assert!(!certificate.is_empty());
    RawClient::over(behind_proxy(recorder.port())).handshake();
    let mut socket = TcpStream::connect(("127.0.0.1", recorder.port())).unwrap();
    let mut bytes = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 1935\r\n\x03".to_vec();
    bytes.extend([0; 1536]);
    socket.write_all(&bytes).unwrap();
    let mut answer = [0; 3073];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer[0], 3);
}

#[test]
fn required_encryption_refuses_plain_rtmp() {
    let files = CertificateFiles::new();
    let recorder = Recorder::start(&format!("{} encryption=required", files.properties()));
    assert!(RawClient::connect(recorder.port()).try_handshake().is_err());
    let mut secure = over(
        TcpStream::connect(("127.0.0.1", recorder.port())).unwrap(),
        &rustls::version::TLS13,
    );
    assert!(!handshake(&mut secure).is_empty());
}

#[test]
fn encryption_without_a_certificate_is_an_error_at_start() {
    for encryption in ["required", "optional"] {
        let (error, message) = Recorder::refusal(&format!("encryption={encryption}"));
        assert!(error.matches(gst::ResourceError::Settings));
        let says = message.contains(&format!("encryption is {encryption}"))
            && message.contains("set certificate-file and private-key-file");
        assert!(says, "{message}");
    }
    Recorder::start("encryption=auto");
}

#[test]
fn elements_of_one_port_agree_on_its_encryption() {
    let files = CertificateFiles::new();
    let properties = files.properties();
    let first = Recorder::start(&format!("stream-key=one encryption=optional {properties}"));
    let port = first.port();
    let (_, message) = Recorder::refusal(&format!("port={port} stream-key=two {properties}"));
    assert!(message.contains("encryption must be the same"), "{message}");
    Recorder::start(&format!(
        "port={port} stream-key=two encryption=optional {properties}"
    ));
    // The behaviour of the port counts.
    let auto = Recorder::start(&format!("stream-key=one {properties}"));
    Recorder::start(&format!(
        "port={} stream-key=two encryption=required {properties}",
        auto.port()
    ));
}
