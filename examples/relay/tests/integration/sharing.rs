// SPDX-License-Identifier: MPL-2.0

//! Relays that share users: a publisher at the wrong relay is asked to go, once, and otherwise
//! served.
//!
//! The relay runs as one of two, or twice. The assignment of users to relays does not change as
//! long as the relays' addresses do not.

use std::path::Path;

use gstrtmp2server::internal::amf0::Value;
use gstrtmp2server::internal::rtmp::command::Command;

use super::program::Relay;
use support::clients::{FFMPEG, publish};
use support::media::small;
use support::ports::reserved_port;
use support::raw::{RawClient, code, send, unpublish};
use support::synthetic::stream;

const HERE: &str = "rtmp://a.example:1935";
const ELSEWHERE: &str = "rtmp://b.example:1935";
/// These users belong to it.
const OF_HERE: &str = "bob";
const OF_ELSEWHERE: &str = "ann";
/// The bits of `capsEx` of a client that knows how to reconnect.
const RECONNECT: f64 = 1.0;

/// Starts one of several relays at an address.
fn start_as(folder: &Path, address: &str, relays: &[&str], this: &str) -> Relay {
    let options = ["--relay", &relays.join(","), "--this", this];
    Relay::start_at(address, folder, &options)
}

fn start(folder: &Path) -> Relay {
    start_as(folder, "127.0.0.1:0", &[HERE, ELSEWHERE], HERE)
}

/// Waits for these counters of publishers of the other relay: asked to go there, and served here.
#[track_caller]
fn wait_for(relay: &Relay, asked: u32, served: u32) {
    let name = "relay_publishers_of_other_relays_total";
    let lines = [("asked", asked), ("served", served)]
        .map(|(outcome, count)| format!("{name}{{outcome=\"{outcome}\"}} {count}\n"));
    relay.wait_until("metrics", |text| {
        lines.iter().all(|line| text.contains(line))
    });
}

/// Starts a publisher with these capabilities of Enhanced RTMP.
fn publish_to(relay: &Relay, application: &str, capabilities: f64) -> RawClient {
    let mut client = RawClient::connect(relay.port);
    client.handshake();
    let tc_url = format!("{HERE}/{application}");
    let object = Value::Object(vec![
        ("app".into(), application.into()),
        ("tcUrl".into(), tc_url.as_str().into()),
        ("capsEx".into(), capabilities.into()),
    ]);
    client.command(0, "connect", 1.0, &[object]);
    client.expect_command("_result");
    client.command(1, "publish", 2.0, &[Value::Null, "cam".into()]);
    let status = client.expect_command("onStatus");
    assert_eq!(code(&status), "NetStream.Publish.Start");
    client
}

/// Returns the URL that it has been asked to go to so far.
fn destination(client: &mut RawClient) -> Option<String> {
    // Earlier messages have arrived by the answer to this.
    client.command(0, "releaseStream", 9.0, &[Value::Null, "cam".into()]);
    client.command(0, "createStream", 10.0, &[Value::Null]);
    let mut destination = None;
    while let Some(message) = client.next_message() {
        let Ok(command) = Command::read(message.payload.body()) else {
            continue;
        };
        if command.name == "_result" && command.transaction_id == 10.0 {
            break;
        }
        if command.name == "onStatus" {
            assert_eq!(code(&command), "NetConnection.Connect.ReconnectRequest");
            let tc_url = command.arguments[1].get("tcUrl").and_then(Value::as_str);
            destination = tc_url.map(str::to_owned);
        }
    }
    destination
}

/// Asserts that it is asked to go to its relay.
#[track_caller]
fn is_asked(client: &mut RawClient, application: &str) {
    let status = client.expect_command("onStatus");
    assert_eq!(code(&status), "NetConnection.Connect.ReconnectRequest");
    let tc_url = status.arguments[1].get("tcUrl").and_then(Value::as_str);
    let expected = format!("{ELSEWHERE}/{application}");
    assert_eq!(tc_url, Some(expected.as_str()));
}

#[test]
fn a_publisher_at_the_wrong_relay_is_asked_to_go_once() {
    let folder = tempfile::tempdir().unwrap();
    let relay = start(folder.path());
    let application = format!("live/{OF_ELSEWHERE}");
    let mut client = publish_to(&relay, &application, RECONNECT);
    is_asked(&mut client, &application);
    wait_for(&relay, 1, 0);
    unpublish(client);
    // It did not get in there, and is back.
    let client = publish_to(&relay, &application, RECONNECT);
    wait_for(&relay, 1, 1);
    unpublish(client);
    // Streams without a user are assigned one by one.
    let mut client = publish_to(&relay, "live", RECONNECT);
    is_asked(&mut client, "live");
    wait_for(&relay, 2, 1);
}

#[test]
fn publishers_that_belong_here_or_cannot_go_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = start(folder.path());
    let mut here = publish_to(&relay, &format!("live/{OF_HERE}"), RECONNECT);
    // There is no stream before there is media.
    send(&mut here, &stream(0, 4));
    relay.wait_until("streams", |text| text.contains(OF_HERE));
    wait_for(&relay, 0, 0);
    let cannot = publish_to(&relay, &format!("live/{OF_ELSEWHERE}"), 0.0);
    wait_for(&relay, 0, 1);
    drop((here, cannot));
    let url = format!("rtmp://127.0.0.1:{}/live/cora/cam", relay.port);
    let client = publish(FFMPEG, &small(20), true, &url);
    relay.wait_for("ready live/cora/cam ");
    wait_for(&relay, 0, 2);
    drop(client);
}

#[test]
fn two_relays_have_each_user_once() {
    let ports = [reserved_port(), reserved_port()];
    let addresses = ports
        .each_ref()
        .map(|(_, port)| format!("127.0.0.1:{port}"));
    let urls = addresses
        .each_ref()
        .map(|address| format!("rtmp://{address}"));
    let list = urls.each_ref().map(String::as_str);
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let relays = [0, 1].map(|index| {
        let folder = folders[index].path();
        start_as(folder, &addresses[index], &list, list[index])
    });
    let mut homes = Vec::new();
    // With so many, each relay has some, at any addresses.
    for number in 0..32 {
        let (user, first) = (format!("user{number}"), number % 2);
        let application = format!("live/{user}");
        let here = |index: usize| {
            let mut client = publish_to(&relays[index], &application, RECONNECT);
            send(&mut client, &stream(0, 4));
            relays[index].wait_until("streams", |text| text.contains(&format!("{user}/")));
            client
        };
        let mut client = here(first);
        let mut home = first;
        if let Some(destination) = destination(&mut client) {
            home = 1 - first;
            assert_eq!(destination, format!("{}/{application}", urls[home]));
            unpublish(client);
            client = here(home);
        }
        // No publisher is sent away.
        assert_eq!(self::destination(&mut client), None, "{user}");
        homes.push((first, home));
    }
    for (first, home) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        assert!(homes.contains(&(first, home)), "{homes:?}");
    }
    for (index, relay) in relays.iter().enumerate() {
        let sent_away = homes
            .iter()
            .filter(|(first, home)| *first == index && *home != index);
        wait_for(relay, sent_away.count() as u32, 0);
    }
}
