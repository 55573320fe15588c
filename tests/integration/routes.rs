// SPDX-License-Identifier: MPL-2.0

//! Elements that share a port, and the routes of their publishers.

use std::net::TcpListener;
use std::time::Instant;

use gst::prelude::*;

use support::PATIENCE;
use support::clients::{FFMPEG, publish};
use support::flv;
use support::media::{copy, small};
use support::raw::RawClient;
use support::recorder::Recorder;
use support::signals::Signals;

/// Elements, each with its own publisher.
const CAMERAS: usize = 16;

fn recorder_on(port: u16, properties: &str) -> Recorder {
    Recorder::start(&format!("port={port} {properties}"))
}

/// Publishes this number of audio tags.
fn publish_raw(port: u16, application: &str, key: &str, tags: u32) -> RawClient {
    let mut client = RawClient::publish(port, application, key);
    for time in 0..tags {
        client.media(flv::AUDIO, time * 20, &[0x2F, 1, 9], 128);
    }
    client
}

#[test]
fn sixteen_elements_on_one_port_accept_sixteen_publishers() {
    let file = small(4);
    let first = Recorder::start("application=live stream-key=camera0");
    let port = first.port();
    let key = |camera| format!("application=live stream-key=camera{camera}");
    let mut recorders = vec![first];
    recorders.extend((1..CAMERAS).map(|camera| recorder_on(port, &key(camera))));
    let publishers: Vec<_> = recorders
        .iter()
        .enumerate()
        .map(|(camera, recorder)| {
            assert_eq!(recorder.port(), port);
            let url = recorder.url(&format!("live/camera{camera}"));
            publish(FFMPEG, &file, true, &url)
        })
        .collect();
    let expected = flv::read_file(&copy(FFMPEG, &file));
    for (publisher, recorder) in publishers.into_iter().zip(&recorders) {
        publisher.succeed();
        flv::assert_same_media(&expected, &recorder.finish());
    }
}

#[test]
fn the_most_specific_route_gets_the_publisher() {
    let any = Recorder::start("");
    let port = any.port();
    let exact = recorder_on(port, "application=live stream-key=cam1_main");
    let template = recorder_on(
        port,
        "application=live stream-key=cam{camera_id}_{stream_name}",
    );
    let application = recorder_on(port, "application=live");
    for (recorder, application, key, count) in [
        (&exact, "live", "cam1_main", 1),
        (&template, "live", "cam2_main", 2),
        (&application, "live", "door", 3),
        (&any, "other", "cam1_main", 4),
    ] {
        drop(publish_raw(port, application, key, count));
        assert_eq!(flv::media(&recorder.finish()).len(), count as usize);
    }
}

#[test]
fn route_variables_are_in_stats_and_signals() {
    let recorder = Recorder::start(
        "application=live/{site} stream-key=cam{camera_id}_{stream_name} keep-listening=true",
    );
    let signals = Signals::watch(&recorder.element);
    let client = publish_raw(recorder.port(), "live/roof", "cam12_low_light?token=x", 1);
    let check = |variables: gst::Structure| {
        for (name, value) in [
            ("site", "roof"),
            ("camera_id", "12"),
            ("stream_name", "low_light"),
        ] {
            assert_eq!(variables.get::<&str>(name), Ok(value));
        }
        assert_eq!(variables.n_fields(), 3);
    };
    check(recorder.stats().get("variables").unwrap());
    let added = signals.wait_for(1).remove(0);
    check(added.info.get("variables").unwrap());
    assert_eq!(added.info.get("application"), Ok("live/roof"));
    assert_eq!(added.info.get("stream-key"), Ok("cam12_low_light"));
    assert_eq!(added.info.get("query"), Ok("token=x"));
    drop(client);
    // One publisher at a time, also with different variables.
    signals.wait_for(2);
    let _client = publish_raw(recorder.port(), "live/door", "cam1_a", 1);
    let variables = recorder.stats().get::<gst::Structure>("variables");
    assert_eq!(variables.unwrap().get("site"), Ok("door"));
    let mut second = RawClient::connect(recorder.port());
    second.handshake().connect_application("live/door");
    second.expect_command("_result");
    let arguments = [gstrtmp2server::internal::amf0::Value::Null, "cam2_a".into()];
    second.command(1, "publish", 2.0, &arguments);
    let status = second.expect_command("onStatus");
    assert_eq!(support::raw::code(&status), "NetStream.Publish.BadName");
}

#[test]
fn a_duplicate_route_error_names_the_other_element() {
    let first = Recorder::start("application=live stream-key=cam{a}_{b}");
    let properties = format!("port={} application=live", first.port());
    let (error, text) = Recorder::refusal(&format!("{properties} stream-key=cam{{x}}_{{y}}"));
    assert!(error.matches(gst::ResourceError::Busy), "{error:?}");
    assert!(
        text.contains("element \"src\"") && text.contains("application"),
        "{text}"
    );
    // The route counts as a whole path, since clients split it between application and stream key
    // in many ways.
    let split = format!("port={} application=live/x stream-key=y", first.port());
    let _split = Recorder::start(&split);
    let other = format!("port={} application=live stream-key=x/y", first.port());
    let (error, _) = Recorder::refusal(&other);
    assert!(error.matches(gst::ResourceError::Busy), "{error:?}");
    // The port still works.
    drop(publish_raw(first.port(), "live", "cam1_2", 2));
    assert_eq!(flv::media(&first.finish()).len(), 2);
}

/// One address that covers the other can't be listened on beside it.
#[test]
fn an_overlapping_host_error_names_the_own_listener() {
    for (first, second, listening) in [
        ("::", "0.0.0.0", "[::]"),
        ("::", "127.0.0.1", "[::]"),
        ("0.0.0.0", "::", "0.0.0.0"),
        ("127.0.0.1", "0.0.0.0", "127.0.0.1"),
        ("::ffff:127.0.0.1", "0.0.0.0", "127.0.0.1"),
        ("0.0.0.0", "::ffff:127.0.0.1", "0.0.0.0"),
    ] {
        let recorder = Recorder::start(&format!("host={first} application=one"));
        let port = recorder.port();
        let properties = format!("host={second} port={port} application=two");
        let (error, message) = Recorder::refusal(&properties);
        assert!(error.matches(gst::ResourceError::Busy), "{error:?}");
        let own = format!("\"src\" of this process listens on {listening}:{port}");
        let second = second.trim_start_matches("::ffff:");
        for part in [second, &own] {
            assert!(message.contains(part), "{first}, {second}: {message}");
        }
        // The listener that is there is not harmed.
        drop(publish_raw(port, "one", "key", 2));
        assert_eq!(flv::media(&recorder.finish()).len(), 2);
    }
}

#[test]
fn an_ipv4_address_in_either_notation_is_one_listener() {
    let first = Recorder::start("host=127.0.0.1 application=one");
    let second = recorder_on(first.port(), "host=::ffff:127.0.0.1 application=two");
    drop(publish_raw(first.port(), "two", "key", 2));
    assert_eq!(flv::media(&second.finish()).len(), 2);
}

/// A drained element has closed its port, which another one may listen on then.
#[test]
fn a_port_that_opens_again_names_the_own_listener_in_its_way() {
    let drained = Recorder::start("host=127.0.0.1 application=one drain=true");
    let port = drained.port();
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = TcpListener::bind(("127.0.0.1", port)) {
        assert!(Instant::now() < deadline, "{error}");
        std::thread::yield_now();
    }
    let wide = recorder_on(port, "host=0.0.0.0 application=two");
    let properties = format!("host=127.0.0.1 port={port} application=three");
    let (error, message) = Recorder::refusal(&properties);
    assert!(error.matches(gst::ResourceError::Busy), "{error:?}");
    let own = format!("\"src\" of this process listens on 0.0.0.0:{port}");
    assert!(message.contains(&own), "{message}");
    drop(wide);

    // Another program has it now, and not the drained element.
    let other = TcpListener::bind(("0.0.0.0", port)).unwrap();
    let properties = format!("host=0.0.0.0 port={port} application=two");
    let (_, message) = Recorder::refusal(&properties);
    assert!(!message.contains("of this process"), "{message}");
    drop(other);
}

/// An own listener of the other family has nothing to do with it.
#[test]
fn a_port_of_another_program_is_not_taken_for_an_own_one() {
    let recorder = Recorder::start("host=::1 application=one");
    let port = recorder.port();
    let other = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let properties = format!("host=0.0.0.0 port={port} application=two");
    let (error, message) = Recorder::refusal(&properties);
    assert!(error.matches(gst::ResourceError::Busy), "{error:?}");
    assert!(!message.contains("of this process"), "{message}");
    drop(other);
    let recorder = recorder_on(port, "host=0.0.0.0 application=two");
    drop(publish_raw(port, "two", "key", 2));
    assert_eq!(flv::media(&recorder.finish()).len(), 2);
}

#[test]
fn settings_that_cannot_share_a_port_are_refused_at_start() {
    let first = Recorder::start("application=live stream-key=one");
    let port = first.port();
    for (properties, text) in [
        (
            "stream-key=two proxy-protocol=v2",
            "proxy-protocol must be the same",
        ),
        (
            "application=live stream-key=two authmod=adobe username=a password=b",
            "the same authmod",
        ),
    ] {
        let (error, message) = Recorder::refusal(&format!("port={port} {properties}"));
        assert!(error.matches(gst::ResourceError::Settings), "{error:?}");
        assert!(
            message.contains(text) && message.contains("\"src\""),
            "{message}"
        );
    }
    // A publisher of another application cannot be confused with one of these.
    recorder_on(
        port,
        "application=other authmod=adobe username=a password=b",
    );
}

#[test]
fn invalid_settings_are_refused_at_start() {
    for (properties, text) in [
        (
            "stream-key=cam{id",
            "Invalid stream-key: a brace has no partner",
        ),
        ("stream-key=cam{}", "a variable needs a name"),
        ("stream-key={a}{b}", "side by side"),
        (
            "application={a} stream-key={a}",
            "the variable a is there twice",
        ),
        ("location=rtmps://127.0.0.1/live", "set certificate-file"),
        ("private-key-file=key.pem", "certificate-file is not"),
        ("username=a password=b", "set authmod to adobe or llnw"),
        ("authmod=llnw username=a", "set username and password too"),
        (
            "allowed-addresses=10.0.0.0/33",
            "\"10.0.0.0/33\" is neither",
        ),
    ] {
        let (error, message) = Recorder::refusal(properties);
        assert!(error.matches(gst::ResourceError::Settings), "{error:?}");
        assert!(message.contains(text), "{properties}: {message}");
    }
}

#[test]
fn elements_start_and_stop_while_others_stream() {
    let file = small(4);
    let steady = Recorder::start("application=live stream-key=steady");
    let port = steady.port();
    let publisher = publish(FFMPEG, &file, true, &steady.url("live/steady"));
    steady.wait_until("the publisher", |buffers| buffers.len() > 5);
    for round in 0..20 {
        let other = recorder_on(port, "application=live stream-key=other");
        let client = publish_raw(port, "live", "other", 3);
        if round % 2 == 0 {
            drop(client);
            assert_eq!(flv::media(&other.finish()).len(), 3);
        } else {
            // The element stops and closes its publisher.
            other.wait_until("media", |buffers| buffers.len() > 3);
            other.pipeline.set_state(gst::State::Null).unwrap();
            let mut client = client;
            while client.next_message().is_some() {}
        }
    }
    publisher.succeed();
    flv::assert_same_media(&flv::read_file(&copy(FFMPEG, &file)), &steady.finish());
}
