// SPDX-License-Identifier: MPL-2.0

//! The bin has the properties, signals and messages of its source.

use std::sync::{Arc, Mutex};

use gst::glib;
use gst::glib::subclass::SignalId;
use gst::prelude::*;
use gstrtmp2server::ConnectionState::{
    self, Authenticating, Disconnected, Negotiating, SocketConnected, Streaming,
};
use gstrtmp2server::StreamStatus::{self, Active, Reconfiguring, Stopped};
use gstrtmp2server::{Rtmp2ServerBin, Rtmp2ServerSrc};

use super::receiver::Receiver;
use support::clients::{FFMPEG, publish};
use support::init;
use support::media::small;
use support::raw::RawClient;
use support::signals::Signals;

fn source_specs(element: &gst::Element) -> Vec<glib::ParamSpec> {
    let all = element.list_properties();
    let own = Rtmp2ServerSrc::static_type();
    let specs = all.iter().filter(|spec| spec.owner_type() == own);
    specs.cloned().collect()
}

/// Describes a property specification completely.
fn description(spec: &glib::ParamSpec) -> String {
    let range = if let Some(spec) = spec.downcast_ref::<glib::ParamSpecUInt>() {
        format!("{} to {}", spec.minimum(), spec.maximum())
    } else if let Some(spec) = spec.downcast_ref::<glib::ParamSpecUInt64>() {
        format!("{} to {}", spec.minimum(), spec.maximum())
    } else {
        String::new()
    };
    // The default of a structure has no printable form.
    let is_structure = spec.value_type() == gst::Structure::static_type();
    let default = (!is_structure).then(|| spec.default_value());
    format!(
        "{} {} {} {:?} {default:?} {range}",
        spec.name(),
        spec.nick(),
        spec.value_type(),
        spec.flags(),
    )
}

/// Returns a value that is not the default.
fn other_value(spec: &glib::ParamSpec) -> glib::Value {
    let default = spec.default_value();
    if let Some(spec) = spec.downcast_ref::<glib::ParamSpecUInt>() {
        let value = spec.default_value();
        let other = if value < spec.maximum() {
            value + 1
        } else {
            value - 1
        };
        other.to_value()
    } else if let Ok(value) = default.get::<bool>() {
        (!value).to_value()
    } else if let Ok(value) = default.get::<u64>() {
        (value + 1).to_value()
    } else if spec.name() == "location" {
        "rtmp://127.0.0.1:12/a/b".to_value()
    } else if spec.value_type() == String::static_type() {
        "text".to_value()
    } else if spec.value_type() == Vec::<String>::static_type() {
        vec!["192.0.2.0/24".to_owned()].to_value()
    } else if spec.value_type() == gst::Structure::static_type() {
        gst::Structure::builder(spec.name())
            .field("max-width", 1920_u32)
            .build()
            .to_value()
    } else if let Some(enumeration) = glib::EnumClass::with_type(spec.value_type()) {
        let (_, value) = glib::EnumValue::from_value(default).unwrap();
        let mut values = enumeration.values().iter();
        let other = values.find(|other| other.value() != value.value());
        other.unwrap().to_value(&enumeration)
    } else {
        panic!("{} is of a new type", spec.name());
    }
}

#[test]
fn the_bin_has_every_property_of_the_source() {
    init();
    let source = gst::ElementFactory::make("rtmp2serversrc").build().unwrap();
    let bin = gst::ElementFactory::make("rtmp2serverbin").build().unwrap();
    let inner = bin.downcast_ref::<gst::Bin>().unwrap();
    let inner = inner.by_name("source").unwrap();
    let specs = source_specs(&source);
    assert!(specs.len() > 30);
    let read = |element: &gst::Element, name: &str| {
        let is_readable = element
            .find_property(name)
            .is_some_and(|spec| spec.flags().contains(glib::ParamFlags::READABLE));
        // The bin's stats contain more.
        let is_read = is_readable && name != "stats";
        is_read.then(|| {
            let value = element.property_value(name);
            // GStreamer has no text for a structure that is not there.
            match value.get::<Option<gst::Structure>>() {
                Ok(structure) => format!("{structure:?}"),
                Err(_) => format!("{value:?}"),
            }
        })
    };
    for spec in &specs {
        let name = spec.name();
        let proxied = bin.find_property(name);
        let proxied = proxied.unwrap_or_else(|| panic!("the bin has no {name}"));
        assert_eq!(proxied.owner_type(), Rtmp2ServerBin::static_type());
        assert_eq!(description(&proxied), description(spec));
        assert!(proxied.blurb() == spec.blurb() || name == "stats", "{name}");
        assert_eq!(read(&bin, name), read(&source, name), "{name}");
    }
    let is_writable = |spec: &&glib::ParamSpec| spec.flags().contains(glib::ParamFlags::WRITABLE);
    for spec in specs.iter().filter(is_writable) {
        let (name, before) = (spec.name(), read(&bin, spec.name()));
        bin.set_property_from_value(name, &other_value(spec));
        assert_eq!(read(&bin, name), read(&inner, name));
        assert!(before.is_none() || read(&bin, name) != before, "{name}");
    }
}

#[test]
fn the_bin_has_every_signal_of_the_source() {
    init();
    for (name, is_action) in [
        ("publisher-connecting", false),
        ("publisher-added", false),
        ("publisher-removed", false),
        ("publisher-rejected", false),
        ("disconnect-publisher", true),
        ("request-reconnect", true),
    ] {
        let [of_source, of_bin] = [Rtmp2ServerSrc::static_type(), Rtmp2ServerBin::static_type()]
            .map(|owner| {
                let signal = SignalId::lookup(name, owner);
                let query = signal
                    .unwrap_or_else(|| panic!("{owner} has no {name}"))
                    .query();
                let parameters = query.param_types().iter().map(|kind| kind.type_());
                let parameters = parameters.collect::<Vec<_>>();
                (query.return_type().type_(), parameters, query.flags())
            });
        assert_eq!(of_source, of_bin, "{name}");
        assert_eq!(of_bin.2.contains(glib::SignalFlags::ACTION), is_action);
    }
}

/// Records the names of the bin's property notifications from now on.
fn notifications(bin: &gst::Element) -> Arc<Mutex<Vec<String>>> {
    let names = Arc::new(Mutex::new(Vec::new()));
    let kept = names.clone();
    bin.connect_notify(None, move |_, spec| {
        kept.lock().unwrap().push(spec.name().to_owned());
    });
    names
}

#[test]
fn a_property_change_is_notified_once() {
    init();
    let bin = gst::ElementFactory::make("rtmp2serverbin").build().unwrap();
    let names = notifications(&bin);
    bin.set_property("latency", 7u32);
    assert_eq!(*names.lock().unwrap(), ["latency"]);
    names.lock().unwrap().clear();
    bin.set_property("location", "rtmp://127.0.0.1:12/a/b");
    let mut notified = names.lock().unwrap().clone();
    notified.sort();
    let expected = ["application", "host", "location", "port", "stream-key"];
    assert_eq!(notified, expected);
    // Changes made directly at the source are notified too.
    names.lock().unwrap().clear();
    let inner = bin.downcast_ref::<gst::Bin>().unwrap();
    let inner = inner.by_name("source").unwrap();
    inner.set_property("latency", 8u32);
    assert_eq!(*names.lock().unwrap(), ["latency"]);
    assert_eq!(bin.property::<u32>("latency"), 8);
}

#[test]
fn each_stream_status_change_is_posted_once() {
    let receiver = Receiver::new("", |_| true);
    let names = notifications(&receiver.bin);
    receiver.play();
    publish(FFMPEG, &small(1), false, &receiver.url("live/key")).succeed();
    receiver.finish();
    receiver.pipeline.set_state(gst::State::Null).unwrap();
    let names = names.lock().unwrap();
    let count = |name: &str| names.iter().filter(|n| *n == name).count();
    assert_eq!(count("current-port"), 2);
    assert_eq!(count("epoch"), 1);
    assert_eq!(count("stream-status"), 3);
    assert_eq!(receiver.bin.property::<u64>("epoch"), 1);

    let statuses = receiver.inspect(|seen| seen.element_messages("rtmp2-stream-status"));
    // From the bin, which is the element that the application knows.
    let is_from_bin = |(source, _): &(String, _)| source == "bin";
    assert!(statuses.iter().all(is_from_bin), "{statuses:?}");
    let states = statuses.iter().map(|(_, status)| {
        let epoch: u64 = status.get("epoch").unwrap();
        let connection: ConnectionState = status.get("connection-state").unwrap();
        let stream: StreamStatus = status.get("stream-status").unwrap();
        (connection, stream, epoch)
    });
    let expected = [
        (SocketConnected, Stopped, 0),
        (Authenticating, Stopped, 0),
        (Negotiating, Reconfiguring, 1),
        (Streaming, Active, 1),
        (Disconnected, Stopped, 1),
    ];
    assert_eq!(states.collect::<Vec<_>>(), expected);
    let events = receiver.inspect(|seen| seen.element_messages("rtmp2-stream-event"));
    let events: Vec<String> = events
        .iter()
        .map(|(source, message)| {
            assert_eq!(source, "bin");
            let (_, event) = glib::EnumValue::from_value(message.value("event").unwrap()).unwrap();
            event.nick().to_owned()
        })
        .collect();
    let expected = [
        "reconfiguration-started",
        "publisher-connected",
        "reconfiguration-done",
        "publisher-gone",
    ];
    assert_eq!(events, expected);
}

#[test]
fn stats_cover_the_source_and_the_demuxer() {
    let receiver = Receiver::start("keep-listening=true");
    let mut client = RawClient::publish(receiver.port(), "live", "key");
    for tag in support::synthetic::stream(0, 5) {
        client.media(tag.kind, tag.timestamp, &tag.body, 128);
    }
    receiver.wait_for_packets("audio_0", 5);
    let stats: gst::Structure = receiver.bin.property("stats");
    assert_eq!(stats.get("publishing"), Ok(true));
    assert_eq!(stats.get::<&str>("stream-key"), Ok("key"));
    let demuxer: gst::Structure = stats.get("demuxer").unwrap();
    assert_eq!(demuxer.get("video-buffers"), Ok(5u64));
    // A buffer is counted before it is pushed.
    assert_eq!(demuxer.get("audio-buffers"), Ok(5u64));
}

#[test]
fn signals_and_actions_work_on_the_bin() {
    let receiver = Receiver::start("keep-listening=true");
    let signals = Signals::watch(&receiver.bin);
    receiver
        .bin
        .connect("publisher-connecting", false, |arguments| {
            assert!(arguments[0].get::<gst::Bin>().is_ok());
            let info: gst::Structure = arguments[1].get().unwrap();
            Some((info.get::<&str>("stream-key") != Ok("bad")).to_value())
        });
    let mut refused = RawClient::connect(receiver.port());
    assert!(refused.try_publish("live", "bad").is_none());
    let mut client = RawClient::connect(receiver.port());
    client.try_publish_with("live", "good", 1.0).unwrap();
    let request = || {
        let arguments: [&dyn ToValue; 2] = [&Some("rtmp://other.example/live"), &Some("moving")];
        let bin = &receiver.bin;
        bin.emit_by_name::<bool>(
            "request-reconnect",
            &[&arguments[0].to_value(), &arguments[1].to_value()],
        )
    };
    assert!(request());
    let status = client.expect_command("onStatus");
    let information = &status.arguments[1];
    let tc_url = information.get("tcUrl").and_then(|url| url.as_str());
    assert_eq!(tc_url, Some("rtmp://other.example/live"));
    receiver.bin.emit_by_name::<()>("disconnect-publisher", &[]);
    while client.next_message().is_some() {}
    let expected = ["rejected denied", "added", "removed disconnected"];
    assert_eq!(signals.names(3), expected);
    assert!(!request());
}

#[test]
fn a_duplicate_route_error_names_the_other_element() {
    let first = Receiver::start("stream-key=key");
    let port = first.port();
    let second = Receiver::new(&format!("port={port} stream-key=key"), |_| true);
    let started = second.pipeline.set_state(gst::State::Playing);
    assert!(started.is_err());
    let text = second.inspect(|seen| {
        let mut messages = seen.messages.iter();
        messages.find_map(|message| match message.view() {
            gst::MessageView::Error(error) => Some(error.error().to_string()),
            _ => None,
        })
    });
    let text = text.expect("there is an error on the bus");
    assert!(text.contains("bin/source"), "{text}");
}
