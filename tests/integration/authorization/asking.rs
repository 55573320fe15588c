// SPDX-License-Identifier: MPL-2.0

//! Questions to an authorization server.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gst::prelude::*;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::http_server::{HttpServer, response};
use super::{answer, description};
use crate::multi::multi_recorder::MultiRecorder;
use crate::tls::CertificateFiles;
use support::clients::{FFMPEG, NEW_FFMPEG, publish};
use support::flv;
use support::launch::{Launch, command};
use support::media::small;
use support::program::Program;
use support::raw::{RawClient, code};
use support::recorder::Recorder;
use support::signals::Signals;

#[test]
fn publishers_are_asked_about_in_the_format_of_mediamtx() {
    let server = HttpServer::answering(200, "");
    let recorder = Recorder::start(&format!("application=live auth-url={}", server.url()));
    let url = recorder.url("live/camera1?user=studio&pass=p%26q&token=t1");
    publish(FFMPEG, &small(1), false, &url).succeed();
    assert!(!flv::media(&recorder.finish()).is_empty());
    // ffmpeg announces and publishes: one question is enough.
    let questions = server.questions(1);
    assert_eq!(questions.len(), 1);
    let question = &questions[0];
    for (name, expected) in [
        ("user", "studio"),
        ("password", "p&q"),
        ("token", "t1"),
        ("ip", "127.0.0.1"),
        ("action", "publish"),
        ("path", "live/camera1"),
        ("protocol", "rtmp"),
        ("query", "user=studio&pass=p%26q&token=t1"),
    ] {
        assert_eq!(question[name], expected, "{question}");
    }
    assert_eq!(question["id"].as_str().unwrap().len(), 36);
    let head = server.heads().remove(0).to_lowercase();
    assert!(head.starts_with("post /auth http/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
}

#[test]
fn only_status_20x_lets_in() {
    let elsewhere = HttpServer::answering(200, "");
    let location = elsewhere.url();
    let status = Arc::new(AtomicUsize::new(200));
    let present = status.clone();
    let server = HttpServer::start(move |_, stream| {
        let status = present.load(Ordering::SeqCst) as u16;
        let head = format!("HTTP/1.1 {status} Status\r\nLocation: {location}\r\n");
        stream.write_all(format!("{head}Content-Length: 0\r\n\r\n").as_bytes())
    });
    let recorder = Recorder::start(&format!(
        "application=live keep-listening=true auth-url={}",
        server.url()
    ));
    let signals = Signals::watch(&recorder.element);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    recorder
        .element
        .connect("publisher-connecting", false, move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            Some(true.to_value())
        });
    let start = "NetStream.Publish.Start";
    let denied = "NetStream.Publish.Denied";
    let shutdown = "NetConnection.Connect.AppShutdown";
    let mut seen = 0;
    for (value, expected, reason) in [
        (200, start, ""),
        (201, start, ""),
        (209, start, ""),
        (401, denied, "auth-denied"),
        (403, denied, "auth-denied"),
        (404, shutdown, "auth-bad-answer"),
        (500, shutdown, "auth-bad-answer"),
        (302, shutdown, "auth-bad-answer"),
        (307, shutdown, "auth-bad-answer"),
    ] {
        status.store(value, Ordering::SeqCst);
        let answer = answer(recorder.port(), "key");
        assert_eq!(code(&answer), expected, "{value}: {}", description(&answer));
        // Added and removed, or rejected.
        seen += if reason.is_empty() { 2 } else { 1 };
        let emissions = signals.wait_for(seen);
        if !reason.is_empty() {
            assert_eq!(emissions[seen - 1].reason, reason, "{value}");
            let text: String = recorder.stats().get("last-error").unwrap();
            assert_eq!(text, format!("refused: {reason}"));
        }
    }
    // The application is asked about those that the server lets in.
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    // Redirects of HTTP are not followed.
    assert_eq!(elsewhere.connections(), 0);
}

#[test]
fn credentials_of_a_challenge_are_asked_about() {
    let server = HttpServer::answering(200, "");
    let recorder = Recorder::start(&format!(
        "application=live authmod=adobe username=camera password=s3cret auth-url={}",
        server.url()
    ));
    let url = |user: &str| format!("rtmp://{user}127.0.0.1:{}/live/key", recorder.port());
    assert!(
        !publish(FFMPEG, &small(1), false, &url("camera:wrong@"))
            .wait()
            .status
            .success()
    );
    publish(FFMPEG, &small(1), false, &url("camera:s3cret@")).succeed();
    let questions = server.questions(1);
    // The local rule comes first.
    assert_eq!(questions.len(), 1);
    assert_eq!(questions[0]["user"], "camera");
    assert_eq!(questions[0]["password"], "s3cret");
}

#[test]
fn both_ffmpegs_show_a_refusal_and_exit() {
    let server = HttpServer::answering(401, "no");
    let recorder = Recorder::start(&format!("auth-url={}", server.url()));
    for program in [Path::new(FFMPEG), &NEW_FFMPEG] {
        let output = publish(program, &small(1), false, &recorder.url("live/key")).wait();
        let text = String::from_utf8_lossy(&output.stderr);
        let says_why = text.contains("You may not publish this stream");
        assert!(!output.status.success() && says_why, "{text}");
    }
}

#[test]
fn each_stream_of_a_multi_source_is_asked_about() {
    let server = HttpServer::start(|question, stream| {
        let status = if question["path"] == "live/b" {
            403
        } else {
            200
        };
        stream.write_all(response(status, "").as_bytes())
    });
    let recorder = MultiRecorder::start(&format!("application=live auth-url={}", server.url()));
    let codes = ["a", "b", "c"].map(|key| code(&answer(recorder.port(), key)).to_owned());
    let start = "NetStream.Publish.Start";
    assert_eq!(codes, [start, "NetStream.Publish.Denied", start]);
}

#[test]
fn questions_share_a_connection_and_survive_its_end() {
    let server = HttpServer::answering(200, "{}");
    let recorder = Recorder::start(&format!("keep-listening=true auth-url={}", server.url()));
    for _ in 0..4 {
        assert_eq!(
            code(&answer(recorder.port(), "key")),
            "NetStream.Publish.Start"
        );
    }
    assert_eq!(server.connections(), 1);
    // A server that says that it keeps a connection, and closes it.
    let server = HttpServer::start(|_, stream| {
        stream.write_all(response(200, "").as_bytes())?;
        Err(std::io::ErrorKind::ConnectionAborted.into())
    });
    let recorder = Recorder::start(&format!("keep-listening=true auth-url={}", server.url()));
    for _ in 0..10 {
        assert_eq!(
            code(&answer(recorder.port(), "key")),
            "NetStream.Publish.Start"
        );
    }
}

fn server_config(files: &CertificateFiles) -> ServerConfig {
    let certificate = CertificateDer::from_pem_file(files.certificate()).unwrap();
    let key = PrivateKeyDer::from_pem_file(files.key()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap()
}

#[test]
fn https_servers_are_verified_by_the_roots_of_the_system_or_a_file() {
    let files = CertificateFiles::new();
    let other = CertificateFiles::new();
    let server = HttpServer::secure(server_config(&files));
    for (roots, expected) in [
        (&files, "NetStream.Publish.Start"),
        (&other, "NetConnection.Connect.AppShutdown"),
    ] {
        let (mut gst_launch, _registry) = command("gst-launch-1.0");
        let url = format!("https://localhost:{}/auth", server.port());
        let auth_url = format!("auth-url={url}");
        gst_launch
            .env("SSL_CERT_FILE", roots.certificate())
            .args(["-v", "rtmp2serversrc", "port=0", &auth_url, "!", "fakesink"])
            .stdout(std::process::Stdio::piped());
        let mut program = Program::start(&mut gst_launch);
        let port = program.rest_after("current-port = ").parse().unwrap();
        assert_eq!(code(&answer(port, "key")), expected);
    }
    assert_eq!(server.questions(1).len(), 1);
}

#[test]
fn secrets_of_a_question_never_reach_the_log() {
    let server = HttpServer::answering(500, "hiddenanswer");
    let port = server.port();
    let url = format!("http://hiddenuser:hiddenpassword@127.0.0.1:{port}/hiddenpath?key=hiddenkey");
    let mut launch = Launch::start_logged(
        &format!("rtmp2serversrc port=0 application=live auth-url={url} ! fakesink"),
        "rtmp2server:9,rtmp2serversrc:9",
    );
    let key = "key?user=hiddenname&pass=hiddenpass&token=hiddentoken";
    answer(launch.port(), key);
    let head = server.heads().remove(0);
    launch.interrupt();
    launch.wait();
    let log = launch.log();
    let line = format!("Could not ask 127.0.0.1:{port} about 127.0.0.1:");
    assert!(log.contains(&line) && log.contains("status 500"), "{log}");
    assert!(!log.contains("hidden"), "{log}");
    // User and password of the URL are for the server.
    assert!(
        head.to_lowercase().contains("authorization: basic "),
        "{head}"
    );
    assert!(
        head.starts_with("POST /hiddenpath?key=hiddenkey HTTP"),
        "{head}"
    );
}

#[test]
fn an_invalid_url_is_an_error_at_start() {
    for (url, text) in [
        (
            "ftp://127.0.0.1/auth",
            "Invalid auth-url: the scheme is ftp",
        ),
        ("auth", "Invalid auth-url: relative URL without a base"),
    ] {
        let (error, message) = Recorder::refusal(&format!("auth-url={url}"));
        assert!(error.matches(gst::ResourceError::Settings));
        assert!(message.contains(text), "{message}");
    }
}

#[test]
fn one_element_of_a_port_asks_and_another_does_not() {
    let server = HttpServer::answering(403, "");
    let asking = Recorder::start(&format!("stream-key=asked auth-url={}", server.url()));
    let port = asking.port();
    let _open = Recorder::start(&format!("port={port} stream-key=open"));
    assert_eq!(code(&answer(port, "asked")), "NetStream.Publish.Denied");
    RawClient::publish(port, "live", "open");
    assert_eq!(server.questions(1).len(), 1);
}
