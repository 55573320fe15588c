// SPDX-License-Identifier: MPL-2.0

//! Signals and actions: how the application learns of publishers, decides about them and acts.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstrtmp2server::internal::amf0::Value;

use support::PATIENCE;
use support::clients::{FFMPEG, publish};
use support::flv;
use support::media::small;
use support::raw::{RawClient, code, unpublish};
use support::recorder::Recorder;
use support::signals::Signals;

#[test]
fn publisher_signals_carry_all_that_is_known_of_the_publisher() {
    let recorder = Recorder::start("application=live");
    let signals = Signals::watch(&recorder.element);
    let url = recorder.url("live/key?token=abc");
    publish(FFMPEG, &small(1), false, &url).succeed();
    recorder.finish();
    let emissions = signals.wait_for(2);
    assert_eq!(emissions[0].name, "publisher-added");
    assert_eq!(
        (emissions[1].name, &emissions[1].reason[..]),
        ("publisher-removed", "unpublished")
    );
    for emission in emissions {
        let text = |name: &str| emission.info.get::<String>(name).unwrap();
        assert!(text("address").starts_with("127.0.0.1:"));
        assert_eq!(text("application"), "live");
        assert_eq!(text("stream-key"), "key");
        assert_eq!(text("query"), "token=abc");
        assert!(text("tc-url").starts_with("rtmp://127.0.0.1:"));
        assert!(text("flash-ver").starts_with("FMLE"));
        assert_eq!(emission.info.get("tls"), Ok(false));
        let variables: gst::Structure = emission.info.get("variables").unwrap();
        assert_eq!(variables.n_fields(), 0);
    }
}

#[test]
fn publisher_connecting_decides_before_publish_start() {
    let recorder = Recorder::start("keep-listening=true");
    let signals = Signals::watch(&recorder.element);
    let asked = Signals::default();
    let seen = asked.clone();
    recorder
        .element
        .connect("publisher-connecting", false, move |arguments| {
            seen.add("publisher-connecting", arguments);
            let info: gst::Structure = arguments[1].get().unwrap();
            Some((info.get("query") == Ok("token=good")).to_value())
        });
    let output = publish(
        FFMPEG,
        &small(1),
        false,
        &recorder.url("live/key?token=bad"),
    )
    .wait();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains("has rejected this publisher"),
        "{text}"
    );

    let mut client = RawClient::connect(recorder.port());
    client.handshake().connect_application("live");
    client.expect_command("_result");
    // A client that is about to be refused gets no start.
    client.command(0, "FCPublish", 2.0, &[Value::Null, "key".into()]);
    client.command(1, "publish", 3.0, &[Value::Null, "key".into()]);
    let mut names = Vec::new();
    while let Some(message) = client.next_message() {
        if message.type_id == 20 {
            let command =
                gstrtmp2server::internal::rtmp::command::Command::read(message.payload.body());
            names.push(command.unwrap());
        }
    }
    let answers: Vec<_> = names.iter().map(|c| (c.name.as_str(), code(c))).collect();
    assert_eq!(
        answers,
        [
            ("_result", ""),
            ("onFCPublish", "NetStream.Publish.Denied"),
            ("onStatus", "NetStream.Publish.Denied")
        ]
    );

    publish(
        FFMPEG,
        &small(1),
        false,
        &recorder.url("live/key?token=good"),
    )
    .succeed();
    let expected = [
        "rejected denied",
        "rejected denied",
        "added",
        "removed unpublished",
    ];
    assert_eq!(signals.names(4), expected);
    // Once for each client, though ffmpeg names its stream key twice.
    assert_eq!(asked.wait_for(3).len(), 3);
    assert_eq!(recorder.stats().get::<u64>("rejected"), Ok(2));
}

#[test]
fn a_slow_handler_delays_only_its_own_client() {
    let slow = Recorder::start("application=live stream-key=slow");
    let port = slow.port();
    let quick = Recorder::start(&format!("port={port} application=live stream-key=quick"));
    let (asked, is_asked) = mpsc::channel();
    let (answer, answers) = mpsc::channel::<bool>();
    let answers = std::sync::Mutex::new(answers);
    slow.element
        .connect("publisher-connecting", false, move |_| {
            asked.send(()).unwrap();
            Some(
                answers
                    .lock()
                    .unwrap()
                    .recv_timeout(PATIENCE)
                    .unwrap()
                    .to_value(),
            )
        });
    let mut waiting = RawClient::connect(port);
    waiting.handshake().connect_application("live");
    waiting.expect_command("_result");
    waiting.command(1, "publish", 2.0, &[Value::Null, "slow".into()]);
    is_asked.recv_timeout(PATIENCE).unwrap();
    // While the answer is pending, another element's publisher starts and ends, and early media of
    // the waiting client is kept.
    let file = small(1);
    publish(FFMPEG, &file, false, &quick.url("live/quick")).succeed();
    flv::assert_same_media(&flv::read_file(&file), &quick.finish());
    waiting.media(flv::AUDIO, 0, &[0x2F, 1, 9], 128);
    answer.send(true).unwrap();
    assert_eq!(
        code(&waiting.expect_command("onStatus")),
        "NetStream.Publish.Start"
    );
    drop(waiting);
    assert_eq!(flv::media(&slow.finish()).len(), 1);
}

#[test]
fn an_authorization_is_for_one_publish_to_one_element() {
    let any = Recorder::start("keep-listening=true");
    let port = any.port();
    let mut client = RawClient::publish(port, "live", "key");
    client.command(1, "closeStream", 0.0, &[Value::Null]);
    client.expect_command("onStatus");
    // Another element claims this key now, and its application refuses the client.
    let strict = Recorder::start(&format!("port={port} stream-key=key"));
    strict
        .element
        .connect("publisher-connecting", false, |_| Some(false.to_value()));
    client.command(1, "publish", 3.0, &[Value::Null, "key".into()]);
    let status = client.expect_command("onStatus");
    assert_eq!(code(&status), "NetStream.Publish.Denied");
}

#[test]
fn the_time_of_a_handler_does_not_count_against_the_client() {
    let recorder = Recorder::start("handshake-timeout=500");
    recorder
        .element
        .connect("publisher-connecting", false, |_| {
            // The handler's work: longer than the client's deadline.
            std::thread::sleep(Duration::from_millis(800));
            Some(true.to_value())
        });
    let file = small(1);
    publish(FFMPEG, &file, false, &recorder.url("live/key")).succeed();
    flv::assert_same_media(&flv::read_file(&file), &recorder.finish());
}

#[test]
fn slow_notification_handlers_delay_no_client() {
    let recorder = Recorder::start("application=live stream-key=key stall-timeout=300");
    for name in ["publisher-added", "publisher-rejected"] {
        recorder.element.connect(name, false, |_| {
            // The handler's work: longer than the stall timeout.
            std::thread::sleep(Duration::from_millis(400));
            None
        });
    }
    // Far more refusals than the slow handlers can process meanwhile.
    for _ in 0..300 {
        let mut client = RawClient::connect(recorder.port());
        client.handshake().connect_application("other");
        client.expect_command("_error");
    }
    let start = Instant::now();
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    assert!(
        start.elapsed() < Duration::from_millis(400),
        "{:?}",
        start.elapsed()
    );
    client.media(flv::AUDIO, 0, &[0x2F, 1, 9], 128);
    drop(client);
    assert_eq!(flv::media(&recorder.finish()).len(), 1);
}

#[test]
fn rejected_clients_are_reported_with_the_reason() {
    let recorder = Recorder::start("application=live stream-key=key allowed-addresses=127.0.0.1");
    let signals = Signals::watch(&recorder.element);
    let _publisher = RawClient::publish(recorder.port(), "live", "key");
    for (application, key) in [("other", "key"), ("live", "wrong"), ("live", "key")] {
        let mut client = RawClient::connect(recorder.port());
        client.handshake().connect_application(application);
        if application == "live" {
            client.expect_command("_result");
            client.command(1, "publish", 2.0, &[Value::Null, key.into()]);
        }
        while client.next_message().is_some() {}
    }
    let expected = [
        "added",
        "rejected no-application",
        "rejected no-stream",
        "rejected busy",
    ];
    assert_eq!(signals.names(4), expected);
}

#[test]
fn rejections_carry_the_query_apart_from_the_key() {
    let recorder = Recorder::start("application=live stream-key=key");
    let signals = Signals::watch(&recorder.element);
    let mut client = RawClient::connect(recorder.port());
    let is_accepted = client.try_publish("live?user=a", "wrong?pass=hidden");
    assert!(is_accepted.is_none());
    let emissions = signals.wait_for(1);
    let text = |name: &str| emissions[0].info.get::<String>(name).unwrap();
    assert_eq!(
        (text("application"), text("stream-key"), text("query")),
        ("live".into(), "wrong".into(), "user=a&pass=hidden".into())
    );
    // Messages are logged by GStreamer, and printed by gst-launch-1.0.
    let event = &recorder.messages("rtmp2-stream-event", 1)[0];
    assert!(!event.to_string().contains("hidden"), "{event}");
}

#[test]
fn disconnect_publisher_disconnects_and_reports() {
    let recorder = Recorder::start("keep-listening=true");
    let signals = Signals::watch(&recorder.element);
    // Without a publisher the action does nothing.
    recorder
        .element
        .emit_by_name::<()>("disconnect-publisher", &[]);
    let client = publish(FFMPEG, &small(20), true, &recorder.url("live/key"));
    recorder.wait_until("media", |buffers| buffers.len() > 10);
    recorder
        .element
        .emit_by_name::<()>("disconnect-publisher", &[]);
    // The stream is free at once, whether the client has gone or not.
    let mut next = RawClient::publish(recorder.port(), "live", "key");
    let output = client.wait();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{text}");
    recorder
        .element
        .emit_by_name::<()>("disconnect-publisher", &[]);
    let notified = Instant::now();
    assert_eq!(
        code(&next.expect_command("onStatus")),
        "NetStream.Publish.Rejected"
    );
    while next.next_message().is_some() {}
    assert!(notified.elapsed() < Duration::from_secs(1));
    let expected = [
        "added",
        "removed disconnected",
        "added",
        "removed disconnected",
    ];
    assert_eq!(signals.names(4), expected);
}

#[test]
fn request_reconnect_reaches_clients_that_support_it() {
    let recorder = Recorder::start("keep-listening=true");
    let request = |tc_url: Option<&str>, description: Option<&str>| {
        recorder
            .element
            .emit_by_name::<bool>("request-reconnect", &[&tc_url, &description])
    };
    assert!(!request(None, None));
    let client = RawClient::publish(recorder.port(), "live", "key");
    assert!(!request(None, Some("not supported")));
    drop(client);

    let mut client = RawClient::connect(recorder.port());
    client.handshake();
    let object = Value::Object(vec![
        ("app".into(), "live".into()),
        ("capsEx".into(), 5.0.into()),
    ]);
    client.command(0, "connect", 1.0, &[object]);
    client.expect_command("_result");
    client.command(1, "publish", 2.0, &[Value::Null, "key".into()]);
    client.expect_command("onStatus");
    assert!(request(Some("rtmp://other.example/live"), Some("moving")));
    let status = client.expect_command("onStatus");
    assert_eq!(code(&status), "NetConnection.Connect.ReconnectRequest");
    let information = &status.arguments[1];
    let text = |name: &str| information.get(name).and_then(Value::as_str);
    assert_eq!(text("level"), Some("status"));
    assert_eq!(text("tcUrl"), Some("rtmp://other.example/live"));
    assert_eq!(text("description"), Some("moving"));
    assert!(request(None, None));
    let status = client.expect_command("onStatus");
    assert!(status.arguments[1].get("tcUrl").is_none());
    // The client still publishes until it decides to reconnect.
    client.media(flv::AUDIO, 0, &[0x2F, 1, 9], 128);
    recorder.wait_until("its media", |buffers| buffers.len() > 1);
}

/// The handler may request the reconnect before the connection's own thread has sent Publish.Start.
#[test]
fn a_reconnect_request_from_publisher_added_follows_publish_start() {
    let recorder = Recorder::start("keep-listening=true");
    recorder
        .element
        .connect("publisher-added", false, move |arguments| {
            let element: gst::Element = arguments[0].get().unwrap();
            let arguments: [Option<&str>; 2] = [None; 2];
            let [tc_url, description] = arguments.each_ref();
            let asked = element.emit_by_name::<bool>("request-reconnect", &[tc_url, description]);
            assert!(asked);
            None
        });
    for _ in 0..50 {
        let mut client = RawClient::connect(recorder.port());
        client.try_publish_with("live", "key", 1.0).unwrap();
        let status = client.expect_command("onStatus");
        assert_eq!(code(&status), "NetConnection.Connect.ReconnectRequest");
        unpublish(client);
    }
}

#[test]
fn a_handler_may_stop_the_element() {
    let recorder = Recorder::start("");
    let pipeline = recorder.pipeline.downgrade();
    let (stopped, has_stopped) = mpsc::channel();
    recorder
        .element
        .connect("publisher-added", false, move |_| {
            let pipeline = pipeline.upgrade().unwrap();
            pipeline.set_state(gst::State::Null).unwrap();
            stopped.send(()).unwrap();
            None
        });
    let mut client = RawClient::connect(recorder.port());
    client.handshake().connect_application("live");
    client.expect_command("_result");
    client.command(1, "publish", 2.0, &[Value::Null, "key".into()]);
    while client.next_message().is_some() {}
    has_stopped.recv_timeout(PATIENCE).unwrap();
    assert_eq!(recorder.pipeline.current_state(), gst::State::Null);
}
