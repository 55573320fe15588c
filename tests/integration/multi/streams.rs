// SPDX-License-Identifier: MPL-2.0

//! Streams from their publisher to their pad and to its removal.

use gst::prelude::*;
use gstrtmp2server::internal::amf0::Value;
use gstrtmp2server::{ConnectionState, StreamEvent, StreamStatus};

use super::multi_recorder::{MultiRecorder, publisher};
use support::PATIENCE;
use support::flv::assert_same_media;
use support::raw::{RawClient, code, send, unpublish};
use support::synthetic::{self, stream};

/// A resume timeout longer than any test: the publisher always returns in time.
const LONG_RESUME: &str = "resume-timeout=600000";

/// The tags of a stream that starts at this time.
fn media(start: u32) -> Vec<support::flv::Tag> {
    stream(start, 12)
}

#[test]
fn each_publisher_has_a_pad_while_it_publishes() {
    let recorder = MultiRecorder::start("application=live");
    let mut clients: Vec<RawClient> = Vec::new();
    for (number, key) in ["a", "b", "c"].into_iter().enumerate() {
        let mut client = RawClient::publish(recorder.port(), "live", key);
        send(&mut client, &media(1000 * number as u32));
        clients.push(client);
    }
    for number in 0..3 {
        let pad = format!("src_{number}");
        recorder.wait_for_buffers(&pad, media(0).len() + 1);
        let pad = recorder.element.static_pad(&pad).unwrap();
        assert_eq!(pad.property::<String>("application"), "live");
        assert_eq!(
            pad.property::<String>("stream-key"),
            ["a", "b", "c"][number]
        );
    }
    // The second stream ends first.
    for number in [1, 0, 2] {
        unpublish(clients.remove(number.min(clients.len() - 1)));
        let pad = format!("src_{number}");
        let expected = [
            format!("added {pad}"),
            format!("+{pad}"),
            format!("eos {pad}"),
            format!("removed {pad} unpublished"),
            format!("-{pad}"),
        ];
        let mut history = recorder.history(&pad, 5);
        // These two are recorded on two threads.
        history[2..4].sort();
        assert_eq!(history, expected);
        let expected = synthetic::from_zero(&media(1000 * number as u32));
        assert_same_media(&expected, &recorder.tags(&pad));
    }
    assert_eq!(recorder.element.num_src_pads(), 0);
    // The same stream key again gets another pad.
    let client = publisher(recorder.port(), "a");
    recorder.wait_for("+src_3");
    drop(client);
    recorder.wait_for("-src_3");
}

#[test]
fn a_pad_describes_its_stream_from_the_start() {
    let (seen, is_seen) = std::sync::mpsc::channel();
    let recorder = MultiRecorder::start_with(
        "application=live stream-key=cam{camera}_{quality}",
        move |_, pad| {
            let text = |name: &str| pad.property::<String>(name);
            let variables: gst::Structure = pad.property("variables");
            let state: ConnectionState = pad.property("connection-state");
            let status: StreamStatus = pad.property("stream-status");
            let stats: gst::Structure = pad.property("stats");
            let publishing: bool = stats.get("publishing").unwrap();
            seen.send((
                text("application"),
                text("stream-key"),
                variables.to_string(),
                (state, status, pad.property::<u64>("epoch"), publishing),
            ))
            .unwrap();
        },
    );
    let client = publisher(recorder.port(), "cam7_main");
    let (application, key, variables, state) = is_seen.recv_timeout(PATIENCE).unwrap();
    assert_eq!((&application[..], &key[..]), ("live", "cam7_main"));
    assert_eq!(
        variables,
        "variables, camera=(string)7, quality=(string)main;"
    );
    let expected = (
        ConnectionState::Negotiating,
        StreamStatus::Reconfiguring,
        1,
        true,
    );
    assert_eq!(state, expected);
    // The pad notifies of changes.
    let pad = recorder.element.static_pad("src_0").unwrap();
    let (notified, is_notified) = std::sync::mpsc::channel();
    let active = notified.clone();
    pad.connect_notify(Some("stream-status"), move |pad, _| {
        let _ = active.send(pad.property::<StreamStatus>("stream-status"));
    });
    // The change may precede the handler.
    drop(notified);
    if pad.property::<StreamStatus>("stream-status") != StreamStatus::Active {
        while is_notified.recv_timeout(PATIENCE).unwrap() != StreamStatus::Active {}
    }
    assert_eq!(pad.property::<u64>("epoch"), 1);
    assert_eq!(
        pad.property::<ConnectionState>("connection-state"),
        ConnectionState::Streaming
    );
    unpublish(client);
    recorder.wait_for("-src_0");
    // The counters stay with the pad.
    let stats: gst::Structure = pad.property("stats");
    assert_eq!(
        stats.get::<u64>("total-tags"),
        Ok(stream(0, 4).len() as u64)
    );
    assert_eq!(
        pad.property::<StreamStatus>("stream-status"),
        StreamStatus::Stopped
    );
}

#[test]
fn a_returning_publisher_keeps_its_pad() {
    let recorder = MultiRecorder::start(LONG_RESUME);
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &media(0));
    recorder.wait_for_buffers("src_0", media(0).len() + 1);
    drop(client);
    recorder.wait_for("removed src_0 closed");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &media(50_000));
    recorder.wait_for_buffers("src_0", 2 * media(0).len() + 1);
    unpublish(client);
    recorder.wait_for("-src_0");
    let history = recorder.inspect(|seen| seen.history.clone());
    let count = |what: &str| history.iter().filter(|h| h.starts_with(what)).count();
    assert_eq!(
        (count("+"), count("eos"), count("-"), count("added")),
        (1, 1, 1, 2)
    );
    let stats = recorder.stats();
    assert_eq!(stats.get::<u64>("reconnects"), Ok(1));
    assert_eq!(stats.get::<u64>("publishers"), Ok(2));
}

#[test]
fn disconnect_publisher_ends_the_wait_for_a_return() {
    let recorder = MultiRecorder::start(LONG_RESUME);
    let client = publisher(recorder.port(), "key");
    recorder.wait_for("+src_0");
    drop(client);
    recorder.wait_for("removed src_0 closed");
    recorder
        .element
        .emit_by_name::<()>("disconnect-publisher", &[&"src_0"]);
    recorder.wait_for("-src_0");
    recorder.wait_for_gone("src_0", "not-resumed");
    let _client = RawClient::publish(recorder.port(), "live", "key");
    recorder.wait_for("added src_1");
}

#[test]
fn a_publisher_that_returns_too_late_gets_a_new_pad() {
    let recorder = MultiRecorder::start("resume-timeout=1");
    let client = publisher(recorder.port(), "key");
    recorder.wait_for("+src_0");
    drop(client);
    recorder.wait_for("-src_0");
    let _client = RawClient::publish(recorder.port(), "live", "key");
    recorder.wait_for("added src_1");
    let mut history = recorder.history("src_0", 5);
    // These two are recorded on two threads.
    history[2..4].sort();
    let expected = [
        "added src_0",
        "+src_0",
        "eos src_0",
        "removed src_0 closed",
        "-src_0",
    ];
    assert_eq!(history, expected);
}

/// Also while the end of the previous stream has not left yet.
#[test]
fn a_client_that_publishes_again_gets_a_new_pad() {
    const ROUNDS: usize = 30;
    let recorder = MultiRecorder::start("max-streams=3");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    for round in 1..=ROUNDS {
        send(&mut client, &stream(0, 4));
        client.command(1, "closeStream", 0.0, &[Value::Null]);
        client.expect_command("onStatus");
        client.command(1, "publish", 0.0, &[Value::Null, "key".into()]);
        let status = client.expect_command("onStatus");
        assert_eq!(code(&status), "NetStream.Publish.Start", "round {round}");
    }
    send(&mut client, &stream(0, 4));
    drop(client);
    for round in 0..=ROUNDS {
        recorder.wait_for(&format!("-src_{round}"));
    }
    assert_eq!(
        recorder.stats().get::<u64>("publishers"),
        Ok(ROUNDS as u64 + 1)
    );
}

#[test]
fn messages_are_posted_by_the_element_and_name_the_pad() {
    let recorder = MultiRecorder::start("");
    let mut clients = ["a", "b"].map(|key| RawClient::publish(recorder.port(), "live", key));
    for (number, client) in clients.iter_mut().enumerate() {
        send(client, &media(0));
        recorder.wait_for_buffers(&format!("src_{number}"), media(0).len() + 1);
    }
    clients.into_iter().for_each(unpublish);
    for (pad, key) in [("src_0", "a"), ("src_1", "b")] {
        recorder.wait_for(&format!("-{pad}"));
        let (sources, statuses): (Vec<String>, Vec<gst::Structure>) = recorder.inspect(|seen| {
            let statuses = seen.element_messages("rtmp2-stream-status").into_iter();
            statuses.filter(|(_, s)| s.get("pad") == Ok(pad)).unzip()
        });
        assert!(sources.iter().all(|source| source == "src"), "{sources:?}");
        let status_of = |s: &gst::Structure| {
            assert_eq!(s.get("stream-key"), Ok(key));
            s.get::<StreamStatus>("stream-status").unwrap()
        };
        let statuses: Vec<StreamStatus> = statuses.iter().map(status_of).collect();
        let expected = [
            StreamStatus::Reconfiguring,
            StreamStatus::Active,
            StreamStatus::Stopped,
        ];
        assert_eq!(statuses, expected);
        let events: Vec<StreamEvent> = recorder.inspect(|seen| {
            let events = seen.element_messages("rtmp2-stream-event").into_iter();
            let of_pad = events.filter(|(source, s)| source == "src" && s.get("pad") == Ok(pad));
            of_pad.map(|(_, s)| s.get("event").unwrap()).collect()
        });
        assert!(
            events.contains(&StreamEvent::PublisherConnected),
            "{events:?}"
        );
        assert!(events.contains(&StreamEvent::PublisherGone), "{events:?}");
    }
}
