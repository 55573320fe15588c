// SPDX-License-Identifier: MPL-2.0

//! RTMPS: clients, certificates and errors.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use crate::multi::multi_recorder::MultiRecorder;
use support::clients::{FFMPEG, NEW_FFMPEG, Running, ffmpeg, gst_launch, publish};
use support::flv;
use support::launch::Launch;
use support::media::{copy, small};
use support::recorder::Recorder;
use support::signals::Signals;

pub(crate) struct CertificateFiles {
    folder: tempfile::TempDir,
}

impl CertificateFiles {
    pub(crate) fn new() -> Self {
        let files = CertificateFiles {
            folder: tempfile::tempdir().unwrap(),
        };
        files.renew("first");
        files
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// Replaces certificate and key the way renewing programs do: a new file, renamed over the old
    /// one.
    fn renew(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec!["localhost".into()]).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        let certificate = parameters.self_signed(&key).unwrap();
        for (path, text) in [
            (self.certificate(), certificate.pem()),
            (self.key(), key.serialize_pem()),
        ] {
            let new = path.with_extension("new");
            fs::write(&new, text).unwrap();
            fs::rename(new, path).unwrap();
        }
    }

    pub(crate) fn properties(&self) -> String {
        format!(
            "certificate-file={} private-key-file={}",
            self.certificate().display(),
            self.key().display()
        )
    }
}

fn url(recorder: &Recorder) -> String {
    format!("rtmps://127.0.0.1:{}/live/key", recorder.port())
}

#[test]
fn both_ffmpegs_publish_over_tls() {
    let files = CertificateFiles::new();
    let file = small(4);
    for program in [Path::new(FFMPEG), &NEW_FFMPEG] {
        let recorder = Recorder::start(&files.properties());
        let signals = Signals::watch(&recorder.element);
        // ffmpeg verifies the certificate, which is for this name.
        let url = format!("rtmps://localhost:{}/live/key", recorder.port());
        let certificate = files.certificate();
        let (input, certificate) = (file.display(), certificate.display());
        let options = format!("-ca_file {certificate} -tls_verify 1 -f flv {url}");
        ffmpeg(program, &format!("-i {input} -map 0 -c copy {options}")).succeed();
        let sent = flv::read_file(&copy(program, &file));
        flv::assert_same_media(&sent, &recorder.finish());
        assert_eq!(signals.wait_for(1)[0].info.get("tls"), Ok(true));
    }
}

#[test]
fn several_publishers_reach_one_element_over_tls() {
    let files = CertificateFiles::new();
    let recorder = MultiRecorder::start(&files.properties());
    let file = small(4);
    let url = |key| format!("rtmps://127.0.0.1:{}/live/{key}", recorder.port());
    let publishers = ["a", "b"].map(|key| publish(FFMPEG, &file, false, &url(key)));
    publishers.into_iter().for_each(Running::succeed);
    for pad in ["src_0", "src_1"] {
        recorder.wait_for(&format!("-{pad}"));
        flv::assert_same_media(&flv::read_file(&copy(FFMPEG, &file)), &recorder.tags(pad));
    }
}

#[test]
fn gstreamer_and_librtmp_publish_over_tls() {
    let files = CertificateFiles::new();
    let recorder = Recorder::start(&format!("{} keep-listening=true", files.properties()));
    let url = url(&recorder);
    let frames = |count: usize| move |buffers: &[gst::Buffer]| buffers.len() > count;
    for (index, sink) in [
        format!("rtmp2sink location={url} tls-validation-flags=0"),
        format!("rtmpsink location={url}"),
    ]
    .iter()
    .enumerate()
    {
        gst_launch(&format!(
            "filesrc location={} ! flvdemux name=d d.video ! h264parse ! \
             flvmux streamable=true ! {sink}",
            small(1).display()
        ))
        .succeed();
        recorder.wait_until("its frames", frames(30 * (index + 1)));
    }
}

#[test]
fn authentication_works_over_tls() {
    let files = CertificateFiles::new();
    let recorder = Recorder::start(&format!(
        "{} authmod=adobe username=camera password=secret",
        files.properties()
    ));
    let url = |password: &str| {
        let port = recorder.port();
        format!("rtmps://camera:{password}@127.0.0.1:{port}/live/key")
    };
    let output = publish(FFMPEG, &small(1), false, &url("wrong")).wait();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("Incorrect username/password"), "{text}");
    publish(FFMPEG, &small(1), false, &url("secret")).succeed();
    assert!(!flv::media(&recorder.finish()).is_empty());
}

#[test]
fn a_bad_certificate_is_an_error_at_start() {
    let files = CertificateFiles::new();
    let other = CertificateFiles::new();
    let bad = files.folder.path().join("bad.pem");
    fs::write(
        &bad,
        "-----BEGIN CERTIFICATE-----\nbad!\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let missing = files.folder.path().join("missing.pem");
    let (certificate, key) = (files.certificate(), files.key());
    for (certificate, key, text) in [
        (&missing, &key, "missing.pem: No such file"),
        (&certificate, &missing, "missing.pem: No such file"),
        (&bad, &key, "bad.pem is not PEM"),
        (&key, &key, "There is no certificate in"),
        (&certificate, &certificate, "There is no private key in"),
        (
            &certificate,
            &other.key(),
            "does not belong to the certificate",
        ),
    ] {
        let (_, message) = Recorder::refusal(&format!(
            "certificate-file={} private-key-file={}",
            certificate.display(),
            key.display()
        ));
        assert!(message.contains(text), "{message}");
    }
}

#[test]
fn certificate_and_key_may_be_in_one_file() {
    let files = CertificateFiles::new();
    let both = files.folder.path().join("both.pem");
    let text = [files.certificate(), files.key()].map(|path| fs::read_to_string(path).unwrap());
    fs::write(&both, text.concat()).unwrap();
    let recorder = Recorder::start(&format!("certificate-file={}", both.display()));
    publish(FFMPEG, &small(1), false, &url(&recorder)).succeed();
    assert!(!flv::media(&recorder.finish()).is_empty());
}

/// A verifier that accepts any certificate.
#[derive(Debug)]
struct AcceptAnyCertificate;

impl ServerCertVerifier for AcceptAnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = rustls::crypto::ring::default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

fn connect(port: u16, version: &'static rustls::SupportedProtocolVersion) -> TlsStream {
    over(TcpStream::connect(("127.0.0.1", port)).unwrap(), version)
}

/// Starts TLS on a connection.
pub(crate) fn over(
    socket: TcpStream,
    version: &'static rustls::SupportedProtocolVersion,
) -> TlsStream {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptAnyCertificate))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    socket.set_read_timeout(Some(support::PATIENCE)).unwrap();
    StreamOwned::new(connection, socket)
}

#[test]
fn clients_that_do_not_trust_the_certificate_are_told_of() {
    let files = CertificateFiles::new();
    let properties = format!("keep-listening=true {}", files.properties());
    let recorder = Recorder::start(&properties);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let config = Arc::new(config);
    let hello = || {
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(config.clone(), name).unwrap();
        let mut socket = TcpStream::connect(("127.0.0.1", recorder.port())).unwrap();
        client.write_tls(&mut socket).unwrap();
        (client, socket)
    };
    let warning = || {
        let message = recorder.wait_for(gst::MessageType::Warning);
        let gst::MessageView::Warning(warning) = message.view() else {
            unreachable!()
        };
        warning.error().message().to_owned()
    };
    // A client that says why it leaves, and one that does not.
    let (mut client, mut socket) = hello();
    client.complete_io(&mut socket).unwrap_err();
    let text = warning();
    assert!(
        text.contains("trust") && text.contains("UnknownCA"),
        "{text}"
    );
    drop(hello());
    let text = warning();
    assert!(text.contains("middle of the TLS handshake"), "{text}");
}

/// Performs the RTMP handshake and returns the server's certificate.
pub(crate) fn handshake(stream: &mut TlsStream) -> Vec<u8> {
    let mut hello = vec![3];
    hello.extend([0; 1536]);
    stream.write_all(&hello).unwrap();
    stream.read_exact(&mut [0; 3073]).unwrap();
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn tls_1_2_and_tls_1_3_are_supported() {
    let files = CertificateFiles::new();
    let recorder = Recorder::start(&files.properties());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut stream = connect(recorder.port(), version);
        handshake(&mut stream);
        assert_eq!(stream.conn.protocol_version(), Some(version.version));
    }
}

#[test]
fn a_renewed_certificate_needs_no_restart() {
    let files = CertificateFiles::new();
    let recorder = Recorder::start(&files.properties());
    let certificate = || handshake(&mut connect(recorder.port(), &rustls::version::TLS13));
    let contains = |certificate: &[u8], name: &str| {
        let mut windows = certificate.windows(name.len());
        windows.any(|window| window == name.as_bytes())
    };
    let mut early = connect(recorder.port(), &rustls::version::TLS13);
    assert!(contains(&handshake(&mut early), "first"));
    files.renew("the second");
    assert!(contains(&certificate(), "the second"));
    // An unusable certificate changes nothing.
    fs::write(files.certificate(), "not there yet").unwrap();
    assert!(contains(&certificate(), "the second"));
    files.renew("and the third");
    assert!(contains(&certificate(), "and the third"));
    // Existing connections keep working.
    early.write_all(&[0; 1536]).unwrap();
}

#[test]
fn unusable_certificate_files_are_tried_again() {
    let files = CertificateFiles::new();
    let recorder = Recorder::start(&files.properties());
    let certificate = || handshake(&mut connect(recorder.port(), &rustls::version::TLS13));
    let mut known = certificate();
    for path in [files.certificate(), files.key()] {
        files.renew("the next");
        let whole = fs::read(&path).unwrap();
        // In the middle of a write, and between removing the old file and naming the new one.
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(certificate(), known);
        fs::remove_file(&path).unwrap();
        assert_eq!(certificate(), known);
        fs::write(&path, &whole).unwrap();
        let renewed = certificate();
        assert_ne!(renewed, known);
        known = renewed;
    }
}

#[test]
fn a_client_of_another_protocol_is_closed_with_a_log_line() {
    let files = CertificateFiles::new();
    let element = |properties: &str| format!("rtmp2serversrc port=0 {properties} ! fakesink");
    let mut secure = Launch::start_logged(&element(&files.properties()), "rtmp2server:4");
    let mut plain = Launch::start_logged(&element(""), "rtmp2server:4");
    let closes = |port: u16, bytes: &[u8]| {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.write_all(bytes).unwrap();
        // A TLS alert may come first.
        let _ = socket.read_to_end(&mut Vec::new());
    };
    let (secure_port, plain_port) = (secure.port(), plain.port());
    closes(secure_port, &[&[3][..], &[0; 1536]].concat());
    closes(secure_port, b"GET / HTTP/1.1\r\n\r\n");
    closes(
        plain_port,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a ClientHello",
    );
    closes(
        plain_port,
        b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 1935\r\n",
    );
    for launch in [&mut secure, &mut plain] {
        launch.interrupt();
        launch.wait();
    }
    let log = secure.log();
    assert!(
        log.contains("it speaks plain RTMP, and this port is RTMPS"),
        "{log}"
    );
    assert!(
        log.contains("it does not speak TLS, and this port is RTMPS"),
        "{log}"
    );
    let log = plain.log();
    assert!(log.contains("TLS on a plain RTMP port"), "{log}");
    assert!(
        log.contains("it sent a PROXY header, and proxy-protocol is off"),
        "{log}"
    );
}

/// The client sends one byte at a time inside a TLS record, and never gets further.
#[test]
fn a_slow_or_silent_tls_client_is_bounded_too() {
    let files = CertificateFiles::new();
    let properties = format!("{} handshake-timeout=300", files.properties());
    let recorder = Recorder::start(&properties);
    let mut socket = TcpStream::connect(("127.0.0.1", recorder.port())).unwrap();
    // The start of a record that never ends, in pieces that arrive before each deadline.
    socket.write_all(&[0x16, 3, 1, 2, 0]).unwrap();
    let mut closed = false;
    for _ in 0..600 {
        if socket.write_all(&[1]).is_err() {
            closed = true;
            break;
        }
        // The pace of the attack.
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(closed);
}

#[test]
fn an_rtmps_location_is_accepted() {
    let files = CertificateFiles::new();
    let recorder = Recorder::start(&format!(
        "{} location=rtmps://127.0.0.1:0/live/key",
        files.properties()
    ));
    let location = gst::prelude::ObjectExt::property::<String>(&recorder.element, "location");
    assert!(location.starts_with("rtmps://"), "{location}");
    publish(FFMPEG, &small(1), false, &url(&recorder)).succeed();
    assert!(!flv::media(&recorder.finish()).is_empty());
}
