// SPDX-License-Identifier: MPL-2.0

//! Access to the element: policies, limits, routes, draining and actions.

use gst::prelude::*;
use gstrtmp2server::StreamEvent;
use gstrtmp2server::internal::amf0::Value;

use super::multi_recorder::{MultiRecorder, publisher};
use support::PATIENCE;
use support::clients::{FFMPEG, publish};
use support::media::small;
use support::raw::{RawClient, code, send, unpublish};
use support::recorder::Recorder;
use support::synthetic::stream;

const BAD_NAME: &str = "NetStream.Publish.BadName";

/// Requests to publish. Returns the status code and the client.
fn request_publish(port: u16, application: &str, key: &str) -> (String, RawClient) {
    let mut client = RawClient::connect(port);
    client.handshake().connect_application(application);
    client.expect_command("_result");
    client.command(1, "publish", 2.0, &[Value::Null, key.into()]);
    let status = client.expect_command("onStatus");
    (code(&status).to_owned(), client)
}

fn history_of(recorder: &MultiRecorder) -> Vec<String> {
    recorder.inspect(|seen| seen.history.clone())
}

#[test]
fn publisher_policy_applies_to_each_stream() {
    let recorder = MultiRecorder::start("publisher-policy=reject");
    let first = RawClient::publish(recorder.port(), "live", "key");
    recorder.wait_for("added src_0");
    assert_eq!(request_publish(recorder.port(), "live", "key").0, BAD_NAME);
    recorder.wait_for("rejected busy");
    let rejected = recorder.inspect(|seen| {
        let events = seen.element_messages("rtmp2-stream-event").into_iter();
        let mut rejected =
            events.filter(|(_, s)| s.get("event") == Ok(StreamEvent::PublisherRejected));
        rejected.next().unwrap()
    });
    assert_eq!((&rejected.0[..], rejected.1.get("pad")), ("src", Ok("")));

    recorder
        .element
        .set_property_from_str("publisher-policy", "replace");
    let mut second = RawClient::publish(recorder.port(), "live", "key");
    send(&mut second, &stream(0, 4));
    recorder.wait_until("the second publisher", |seen| {
        let added = seen.history.iter().filter(|h| *h == "added src_0");
        (added.count() == 2).then_some(())
    });
    assert!(history_of(&recorder).contains(&"removed src_0 replaced".to_owned()));
    drop(first);

    // A stalled publisher is replaced.
    recorder.element.set_property("stall-timeout", 1u32);
    recorder
        .element
        .set_property_from_str("publisher-policy", "replace-stalled");
    let third = loop {
        let (code, client) = request_publish(recorder.port(), "live", "key");
        if code == "NetStream.Publish.Start" {
            break client;
        }
    };
    drop(second);
    unpublish(third);
    recorder.wait_for("-src_0");
    let pads = history_of(&recorder)
        .iter()
        .filter(|h| h.starts_with('+'))
        .count();
    assert_eq!(pads, 1);
    assert_eq!(recorder.stats().get::<u64>("replacements"), Ok(2));
}

#[test]
fn max_streams_limits_the_streams() {
    let recorder = MultiRecorder::start("max-streams=2 resume-timeout=600000");
    let port = recorder.port();
    let mut clients = vec![
        RawClient::publish(port, "live", "a"),
        RawClient::publish(port, "live", "b"),
    ];
    assert_eq!(request_publish(port, "live", "c").0, BAD_NAME);
    recorder.wait_for("rejected full");
    // A stream that awaits its publisher's return counts, and the publisher resumes it.
    drop(clients.pop());
    recorder.wait_for("removed src_1 closed");
    assert_eq!(request_publish(port, "live", "c").0, BAD_NAME);
    clients.push(RawClient::publish(port, "live", "b"));
    // An unpublished stream frees its place at once.
    unpublish(clients.remove(0));
    clients.push(RawClient::publish(port, "live", "c"));
    recorder.wait_for("added src_2");
    // A new limit applies at once.
    recorder.element.set_property("max-streams", 3u32);
    clients.push(RawClient::publish(port, "live", "d"));
    recorder.wait_for("added src_3");
    assert_eq!(recorder.stats().get::<u64>("rejected"), Ok(2));
}

#[test]
fn clients_that_never_publish_leave_no_pad() {
    let recorder = MultiRecorder::start("application=live");
    let port = recorder.port();
    let asked = std::sync::Mutex::new(Vec::new());
    recorder
        .element
        .connect("publisher-connecting", false, move |arguments| {
            let info: gst::Structure = arguments[1].get().unwrap();
            let key: String = info.get("stream-key").unwrap();
            let mut asked = asked.lock().unwrap();
            asked.push(key.clone());
            Some((key != "bad").to_value())
        });
    assert_eq!(
        request_publish(port, "live", "bad").0,
        "NetStream.Publish.Denied"
    );
    recorder.wait_for("rejected denied");
    // The client only announces that it will publish.
    let mut client = RawClient::connect(port);
    client.handshake().connect_application("live");
    client.expect_command("_result");
    client.command(0, "FCPublish", 2.0, &[Value::Null, "key".into()]);
    client.expect_command("onFCPublish");
    drop(client);
    let mut client = RawClient::connect(port);
    client.handshake().connect_application("other");
    assert_eq!(
        code(&client.expect_command("_error")),
        "NetConnection.Connect.InvalidApp"
    );
    recorder.wait_for("rejected no-application");
    let client = publisher(port, "good");
    // The first pad belongs to the first publisher.
    recorder.wait_for("+src_0");
    assert_eq!(recorder.element.num_src_pads(), 1);
    assert_eq!(recorder.stats().get::<u64>("publishers"), Ok(1));
    assert_eq!(recorder.stats().get::<u64>("rejected"), Ok(2));
    drop(client);
}

#[test]
fn an_element_with_a_more_specific_route_gets_the_publisher() {
    // One such element started earlier, one later.
    let early = Recorder::start("application=live stream-key=early");
    let port = early.port();
    let recorder = MultiRecorder::start(&format!("port={port} application=live"));
    let late = Recorder::start(&format!("port={port} application=live stream-key=late"));
    for (recorder, key) in [(&early, "early"), (&late, "late")] {
        let mut client = RawClient::publish(port, "live", key);
        send(&mut client, &stream(0, 4));
        recorder.wait_until(key, |buffers| buffers.len() > 4);
        unpublish(client);
        recorder.finish();
    }
    let client = publisher(port, "any");
    recorder.wait_for("+src_0");
    drop(client);
    recorder.wait_for("-src_0");
    assert_eq!(recorder.stats().get::<u64>("publishers"), Ok(1));
    // The order in which they stop does not matter either.
    drop(early);
    let client = RawClient::publish(port, "live", "early");
    recorder.wait_for("added src_1");
    drop(client);
}

#[test]
fn a_duplicate_route_is_an_error() {
    let recorder = MultiRecorder::start("application=live");
    let port = recorder.port();
    let (error, text) = Recorder::refusal(&format!("port={port} application=live"));
    assert!(error.matches(gst::ResourceError::Busy), "{text}");
    let second = MultiRecorder::new(&format!("port={port} application=live"), |_, _| {});
    assert!(second.pipeline.set_state(gst::State::Playing).is_err());
    let error = second.inspect(
        |seen| match seen.of_kind(gst::MessageType::Error)[0].view() {
            gst::MessageView::Error(error) => error.error(),
            _ => unreachable!(),
        },
    );
    assert!(error.matches(gst::ResourceError::Busy), "{error}");
    assert_eq!(second.port(), 0);
    // A route that is free again can be claimed.
    drop(recorder);
    second.pipeline.set_state(gst::State::Null).unwrap();
    second.play();
    assert_eq!(second.port(), port);
}

#[test]
fn drain_asks_publishers_to_reconnect_and_rejects_new_ones() {
    let recorder = MultiRecorder::start("drain-timeout=600000 resume-timeout=600000");
    // Another element keeps the port open.
    let other = Recorder::start(&format!("port={} application=other", recorder.port()));
    let port = other.port();
    let mut can = RawClient::connect(port);
    can.try_publish_with("live", "can", 1.0).unwrap();
    send(&mut can, &stream(0, 4));
    let cannot = publisher(port, "cannot");
    let awaited = publisher(port, "awaited");
    for pad in ["+src_0", "+src_1", "+src_2"] {
        recorder.wait_for(pad);
    }
    drop(awaited);
    recorder.wait_for("removed src_2 closed");
    recorder.element.set_property("drain", true);
    // No return is awaited any more.
    recorder.wait_for("-src_2");
    let request = can.expect_command("onStatus");
    assert_eq!(code(&request), "NetConnection.Connect.ReconnectRequest");
    unpublish(can);
    recorder.wait_for("-src_0");
    let mut late = RawClient::connect(port);
    late.handshake().connect_application("live");
    late.expect_command("_error");
    unpublish(cannot);
    recorder.wait_for("-src_1");
    recorder.element.set_property("drain", false);
    let _again = RawClient::publish(port, "live", "again");
    recorder.wait_for("added src_3");
}

#[test]
fn drain_disconnects_publishers_after_its_timeout() {
    let recorder = MultiRecorder::start("drain-timeout=1");
    let _stays = publisher(recorder.port(), "stays");
    recorder.wait_for("+src_0");
    recorder.element.set_property("drain", true);
    recorder.wait_for("removed src_0 drained");
    recorder.wait_for("-src_0");
}

#[test]
fn actions_apply_to_the_stream_of_a_pad() {
    let recorder = MultiRecorder::start("");
    let mut first = RawClient::connect(recorder.port());
    first.try_publish_with("live", "first", 1.0).unwrap();
    send(&mut first, &stream(0, 4));
    let mut second = publisher(recorder.port(), "second");
    for pad in ["+src_0", "+src_1"] {
        recorder.wait_for(pad);
    }
    let request_reconnect = |pad: &str| -> bool {
        let arguments: [&dyn ToValue; 3] = [&pad, &"rtmp://elsewhere/live", &"moved"];
        let values: Vec<gst::glib::Value> = arguments.iter().map(|a| a.to_value()).collect();
        let asked = recorder
            .element
            .emit_by_name_with_values("request-reconnect", &values);
        asked.unwrap().get().unwrap()
    };
    assert!(request_reconnect("src_0"));
    assert!(!request_reconnect("src_1"), "not supported");
    assert!(!request_reconnect("src_7"));
    let request = first.expect_command("onStatus");
    assert_eq!(code(&request), "NetConnection.Connect.ReconnectRequest");
    recorder
        .element
        .emit_by_name::<()>("disconnect-publisher", &[&"src_1"]);
    recorder.wait_for("removed src_1 disconnected");
    recorder.wait_for("-src_1");
    let status = second.expect_command("onStatus");
    assert_eq!(code(&status), "NetStream.Publish.Rejected");
    assert!(recorder.element.static_pad("src_0").is_some());
}

#[test]
fn properties_work_as_on_the_single_stream_element() {
    let recorder = MultiRecorder::new("", |_, _| {});
    recorder
        .element
        .set_property("location", "rtmp://127.0.0.1:0/recorder");
    assert_eq!(
        recorder.element.property::<String>("application"),
        "recorder"
    );
    assert_eq!(recorder.element.property::<String>("host"), "127.0.0.1");
    let (port, is_port) = std::sync::mpsc::channel();
    recorder
        .element
        .connect_notify(Some("current-port"), move |element, _| {
            let _ = port.send(element.property::<u32>("current-port"));
        });
    recorder.play();
    assert_ne!(is_port.recv_timeout(PATIENCE).unwrap(), 0);
    recorder.pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(is_port.recv_timeout(PATIENCE).unwrap(), 0);

    let recorder = MultiRecorder::start("allowed-addresses=192.0.2.0/24");
    let mut client = RawClient::connect(recorder.port());
    assert!(client.try_handshake().is_err());

    let recorder = MultiRecorder::start("authmod=adobe username=recorder password=secret");
    let port = recorder.port();
    let url = format!("rtmp://recorder:wrong@127.0.0.1:{port}/live/key");
    assert!(
        !publish(FFMPEG, &small(1), false, &url)
            .wait()
            .status
            .success()
    );
    let url = format!("rtmp://recorder:secret@127.0.0.1:{port}/live/key");
    publish(FFMPEG, &small(1), false, &url).succeed();
    recorder.wait_for("-src_0");

    let recorder = MultiRecorder::start("proxy-protocol=v1");
    let mut client = RawClient::connect(recorder.port());
    client.send(b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 1935\r\n");
    client.try_publish("live", "key").unwrap();
    recorder.wait_for("added src_0");
    let streams: gst::Array = recorder.stats().get("streams").unwrap();
    let stats: gst::Structure = streams[0].get().unwrap();
    assert_eq!(stats.get("address"), Ok("192.0.2.7:56324"));
}

#[test]
fn stats_contain_totals_and_each_stream() {
    let recorder = MultiRecorder::start("");
    let port = recorder.port();
    let before: gst::Structure = recorder.stats().get("process").unwrap();
    let media = stream(0, 12);
    let mut clients = ["a", "b"].map(|key| RawClient::publish(port, "live", key));
    for (number, client) in clients.iter_mut().enumerate() {
        send(client, &media);
        recorder.wait_for_buffers(&format!("src_{number}"), media.len() + 1);
    }
    let stats = recorder.stats();
    let tags = media.len() as u64;
    assert_eq!(stats.get::<u64>("publishing"), Ok(2));
    assert_eq!(stats.get::<u64>("total-tags"), Ok(2 * tags));
    let streams: gst::Array = stats.get("streams").unwrap();
    let streams: Vec<gst::Structure> = streams.iter().map(|s| s.get().unwrap()).collect();
    for (number, stats) in streams.iter().enumerate() {
        assert_eq!(stats.get("pad"), Ok(format!("src_{number}")));
        assert_eq!(stats.get("stream-key"), Ok(["a", "b"][number]));
        assert_eq!(stats.get::<u64>("total-tags"), Ok(tags));
        assert!(!stats.has_field("process") && !stats.has_field("rejected"));
    }
    let [first, second] = clients;
    unpublish(first);
    recorder.wait_for("-src_0");
    // Totals never decrease.
    let stats = recorder.stats();
    assert_eq!(stats.get::<u64>("publishing"), Ok(1));
    assert_eq!(stats.get::<u64>("total-tags"), Ok(2 * tags));
    assert_eq!(stats.get::<gst::Array>("streams").unwrap().len(), 1);
    drop(second);
    recorder.wait_for("-src_1");
    let after: gst::Structure = recorder.stats().get("process").unwrap();
    let grown = |name: &str| {
        let count = |stats: &gst::Structure| stats.get::<u64>(name).unwrap();
        count(&after) - count(&before)
    };
    // Other tests count there too.
    assert!(grown("publishers") >= 2 && grown("tags") >= 2 * tags);
}
