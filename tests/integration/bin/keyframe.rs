// SPDX-License-Identifier: MPL-2.0

//! Keyframe requests from downstream.

use gst::glib;
use gst::prelude::*;

use super::receiver::Receiver;
use support::raw::{RawClient, code};
use support::recorder::Recorder;
use support::synthetic::stream;

fn force_key_unit() -> gst::Event {
    gst_video::UpstreamForceKeyUnitEvent::builder().build()
}

/// Returns the action of a `keyframe-requested` event, and the reason for none.
fn keyframe_request(message: &gst::Structure) -> Option<(String, String)> {
    let (_, event) = glib::EnumValue::from_value(message.value("event").ok()?)?;
    let details: gst::Structure = message.get("details").ok()?;
    let text = |name| details.get::<String>(name).unwrap_or_default();
    (event.nick() == "keyframe-requested").then(|| (text("action"), text("reason")))
}

fn requests(receiver: &Receiver, count: usize) -> Vec<(String, String)> {
    receiver.wait_until("the events", |seen| {
        let events = seen.element_messages("rtmp2-stream-event");
        let events = events.iter();
        let requests: Vec<_> = events
            .filter_map(|(_, event)| keyframe_request(event))
            .collect();
        (requests.len() >= count).then_some(requests)
    })
}

fn publisher(receiver: &Receiver, caps: f64) -> RawClient {
    let mut client = RawClient::connect(receiver.port());
    client.try_publish_with("live", "key", caps).unwrap();
    for tag in stream(0, 2) {
        client.media(tag.kind, tag.timestamp, &tag.body, 128);
    }
    receiver.wait_until("its pads", |seen| {
        seen.pads.contains(&"audio_0".to_owned()).then_some(())
    });
    client
}

fn none(reason: &str) -> (String, String) {
    ("none".into(), reason.into())
}

#[test]
fn the_publisher_is_asked_to_reconnect_once() {
    let receiver = Receiver::start("keep-listening=true");
    let mut client = publisher(&receiver, 1.0);
    let pad = receiver.bin.static_pad("video_0").unwrap();
    let send_request = || pad.send_event(force_key_unit());
    assert!(!send_request());
    assert_eq!(requests(&receiver, 1), [none("off")]);
    // The property changes while the element runs.
    receiver
        .bin
        .set_property("reconnect-on-force-key-unit", true);
    assert!(send_request());
    let status = client.expect_command("onStatus");
    assert_eq!(code(&status), "NetConnection.Connect.ReconnectRequest");
    // The publisher is not asked again so soon.
    assert!(!send_request());
    let asked = ("reconnect-requested".into(), String::new());
    let expected = [none("off"), asked, none("too-soon")];
    assert_eq!(requests(&receiver, 3), expected);
    let stats: gst::Structure = receiver.bin.property("stats");
    assert_eq!(stats.get("force-key-unit-events"), Ok(3u64));
    // No other request has arrived meanwhile.
    receiver.bin.emit_by_name::<()>("disconnect-publisher", &[]);
    let status = client.expect_command("onStatus");
    assert_eq!(code(&status), "NetStream.Publish.Rejected");
}

#[test]
fn a_publisher_without_reconnect_support_is_not_asked() {
    let receiver = Receiver::start("keep-listening=true reconnect-on-force-key-unit=true");
    let client = publisher(&receiver, 0.0);
    let pad = receiver.bin.static_pad("audio_0").unwrap();
    assert!(!pad.send_event(force_key_unit()));
    assert_eq!(requests(&receiver, 1), [none("not-supported")]);
    drop(client);
    receiver.wait_until("its end", |seen| {
        let statuses = seen.element_messages("rtmp2-stream-status");
        (statuses.last()?.1.get("connection-state")
            == Ok(gstrtmp2server::ConnectionState::Disconnected))
        .then_some(())
    });
    assert!(!pad.send_event(force_key_unit()));
    let expected = [none("not-supported"), none("no-publisher")];
    assert_eq!(requests(&receiver, 2), expected);
}

/// An element without a publisher posts the event too.
#[test]
fn idle_elements_report_keyframe_requests() {
    let recorder = Recorder::start("reconnect-on-force-key-unit=true");
    let pad = recorder.element.static_pad("src").unwrap();
    for count in 1..=4 {
        let sent = if count % 2 == 0 {
            pad.send_event(force_key_unit())
        } else {
            recorder.element.send_event(force_key_unit())
        };
        assert!(!sent);
        let events = recorder.messages("rtmp2-stream-event", count);
        assert_eq!(
            keyframe_request(&events[count - 1]),
            Some(none("no-publisher"))
        );
    }
    let stats = recorder.stats();
    assert_eq!(stats.get("force-key-unit-events"), Ok(4u64));

    let receiver = Receiver::start("");
    assert!(!receiver.bin.send_event(force_key_unit()));
    assert_eq!(requests(&receiver, 1), [none("off")]);
    // Neither element runs.
    for element in [&recorder.element, &receiver.bin] {
        element.set_state(gst::State::Null).unwrap();
        assert!(!element.send_event(force_key_unit()));
    }
}
