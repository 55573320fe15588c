// SPDX-License-Identifier: MPL-2.0

//! Grants of an answer beside the permission to publish.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gstrtmp2server::internal::amf0::Value;

use super::http_server::{HttpServer, response};
use super::{answer, description};
use support::flv;
use support::raw::{RawClient, code};
use support::recorder::Recorder;
use support::signals::Signals;

#[test]
fn a_publisher_is_ended_and_told_after_its_maximum_duration() {
    let server = HttpServer::answering(200, r#"{"max-duration": 0.3}"#);
    let recorder = Recorder::start(&format!(
        "keep-listening=true resume-timeout=60000 auth-url={}",
        server.url()
    ));
    let signals = Signals::watch(&recorder.element);
    for silent in [true, false] {
        let mut client = RawClient::publish(recorder.port(), "live", "key");
        if !silent {
            client.media(flv::AUDIO, 0, &[0x2F, 1, 9], 128);
        }
        let status = client.expect_command("onStatus");
        assert_eq!(code(&status), "NetStream.Publish.Rejected");
        let text = description(&status);
        assert!(text.contains("allowed to publish is over"), "{text}");
        assert!(client.next_message().is_none());
    }
    let names = signals.names(4);
    assert_eq!(names, ["added", "removed max-duration"].repeat(2));
}

#[test]
fn a_publisher_that_leaves_before_its_maximum_duration_is_not_affected() {
    let server = HttpServer::answering(200, r#"{"max-duration": 3600}"#);
    let recorder = Recorder::start(&format!("auth-url={}", server.url()));
    let signals = Signals::watch(&recorder.element);
    let client = RawClient::publish(recorder.port(), "live", "key");
    support::raw::unpublish(client);
    assert_eq!(signals.names(2), ["added", "removed unpublished"]);
}

#[test]
fn a_redirected_publisher_is_asked_to_reconnect_where_it_can() {
    let url = "rtmp://other.example/live";
    let server = HttpServer::answering(200, r#"{"redirect": "rtmp://other.example/live"}"#);
    let recorder = Recorder::start(&format!("auth-url={}", server.url()));
    let signals = Signals::watch(&recorder.element);
    let request = |name: &str| {
        let mut client = RawClient::connect(recorder.port());
        let object = Value::Object(vec![
            ("app".into(), "live".into()),
            ("capsEx".into(), 1.0.into()),
        ]);
        client.handshake().command(0, "connect", 1.0, &[object]);
        client.expect_command("_result");
        client.command(1, name, 2.0, &[Value::Null, "key".into()]);
        client
    };
    // Some clients wait for the answer to their announcement.
    for name in ["publish", "FCPublish"] {
        let mut client = request(name);
        let status = client.expect_command("onStatus");
        assert_eq!(code(&status), "NetConnection.Connect.ReconnectRequest");
        let tc_url = status.arguments[1].get("tcUrl").and_then(Value::as_str);
        assert_eq!(tc_url, Some(url));
        assert!(client.try_expect_command("onStatus").is_none());
    }
    let status = answer(recorder.port(), "key");
    assert_eq!(code(&status), "NetStream.Publish.Rejected");
    assert!(description(&status).contains(url), "{status:?}");
    assert_eq!(signals.names(3), ["rejected redirected"; 3]);
}

#[test]
fn a_publisher_that_kicks_others_replaces_them_whatever_the_policy() {
    let kicks = Arc::new(AtomicBool::new(false));
    let present = kicks.clone();
    let server = HttpServer::start(move |_, stream| {
        let kicks = present.load(Ordering::SeqCst);
        let body = format!("{{\"kick-others\": {kicks}}}");
        stream.write_all(response(200, &body).as_bytes())
    });
    let recorder = Recorder::start(&format!(
        "publisher-policy=reject keep-listening=true auth-url={}",
        server.url()
    ));
    let signals = Signals::watch(&recorder.element);
    let mut first = RawClient::publish(recorder.port(), "live", "key");
    let busy = answer(recorder.port(), "key");
    assert!(
        description(&busy).contains("has a publisher already"),
        "{busy:?}"
    );
    kicks.store(true, Ordering::SeqCst);
    let mut second = RawClient::publish(recorder.port(), "live", "key");
    let status = first.expect_command("onStatus");
    assert!(
        description(&status).contains("has taken over"),
        "{status:?}"
    );
    second.media(flv::AUDIO, 0, &[0x2F, 1, 9], 128);
    recorder.wait_until("its media", |buffers| buffers.len() > 1);
    let names = signals.names(4);
    assert_eq!(
        names,
        ["added", "rejected busy", "removed replaced", "added"]
    );
}
