// SPDX-License-Identifier: MPL-2.0

//! Properties that are set while an element starts.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use gst::prelude::*;

use support::init;
use support::isolated::is_isolated;
use support::raw::RawClient;

/// Starts an element, and sets a property to `value` from within: after it has claimed its route
/// with the former value, and before it is running.
fn start_and_set(element: &str, name: &'static str, value: &str) -> gst::Element {
    init();
    gst::log::set_threshold_from_string("rtmp2serversrc:INFO,rtmp2multiserversrc:INFO", false);
    let text = format!("{element} port=0 resume-timeout=0");
    let pipeline = gst::parse::launch(&text).unwrap();
    let weak = pipeline.downgrade();
    let value = value.to_owned();
    let is_set = AtomicBool::new(false);
    gst::log::add_log_function(move |_, _, _, _, _, _, message| {
        let is_listening = message.get().is_some_and(|m| m.starts_with("Listening on"));
        if is_listening
            && let Some(element) = weak.upgrade()
            && !is_set.swap(true, Ordering::Relaxed)
        {
            element.set_property_from_str(name, &value);
        }
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    pipeline
}

fn publish(element: &gst::Element) -> Option<RawClient> {
    let port = element.property::<u32>("current-port") as u16;
    let socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let mut client = RawClient::over(socket);
    client.try_publish("live", "key").map(|()| client)
}

fn check_policy(element: &str, test: &str) {
    if !is_isolated(&format!("starting::{test}")) {
        return;
    }
    let element = start_and_set(element, "publisher-policy", "replace");
    let _first = publish(&element).expect("the stream is free");
    publish(&element).expect("the first publisher is replaced");
    element.set_state(gst::State::Null).unwrap();
}

fn check_drain(element: &str, test: &str) {
    if !is_isolated(&format!("starting::{test}")) {
        return;
    }
    let element = start_and_set(element, "drain", "true");
    assert!(publish(&element).is_none(), "a draining element accepts it");
    element.set_property("drain", false);
    element.set_state(gst::State::Null).unwrap();
}

#[test]
fn policy_set_while_the_source_starts_counts() {
    check_policy(
        "rtmp2serversrc",
        "policy_set_while_the_source_starts_counts",
    );
}

#[test]
fn policy_set_while_the_multi_source_starts_counts() {
    let test = "policy_set_while_the_multi_source_starts_counts";
    check_policy("rtmp2multiserversrc", test);
}

#[test]
fn policy_set_while_the_bin_starts_counts() {
    check_policy("rtmp2serverbin", "policy_set_while_the_bin_starts_counts");
}

#[test]
fn drain_set_while_the_source_starts_counts() {
    check_drain("rtmp2serversrc", "drain_set_while_the_source_starts_counts");
}

#[test]
fn drain_set_while_the_multi_source_starts_counts() {
    let test = "drain_set_while_the_multi_source_starts_counts";
    check_drain("rtmp2multiserversrc", test);
}

#[test]
fn drain_set_while_the_bin_starts_counts() {
    check_drain("rtmp2serverbin", "drain_set_while_the_bin_starts_counts");
}
