// SPDX-License-Identifier: MPL-2.0

//! Relays that share users: who came to the wrong one is asked to go, once, and else served.
//!
//! The program `examples/relay` runs as one of two, or twice. Which users belong to which relay never changes as long as
//! their addresses do not.

use std::process::{self, Stdio};
use std::time::Instant;

use gstrtmp2server::amf0::Value;
use gstrtmp2server::rtmp::command::Command;

use crate::support::PATIENCE;
use crate::support::clients::{FFMPEG, publish};
use crate::support::launch::plugin_folder;
use crate::support::media::small;
use crate::support::ports::reserved_port;
use crate::support::program::Program;
use crate::support::raw::{RawClient, code, send, unpublish};
use crate::support::synthetic::stream;

const HERE: &str = "rtmp://a.example:1935";
const ELSEWHERE: &str = "rtmp://b.example:1935";
/// These users belong to it.
const OF_HERE: &str = "bob";
const OF_ELSEWHERE: &str = "ann";
/// `capsEx`: it knows how to connect again.
const RECONNECT: f64 = 1.0;

struct Relay {
    program: Program,
    port: u16,
    page: String,
    _directory: tempfile::TempDir,
}

impl Relay {
    fn start() -> Self {
        Self::start_as("127.0.0.1:0", &[HERE, ELSEWHERE], HERE)
    }

    /// One of these, which listens at an address.
    fn start_as(address: &str, relays: &[&str], this: &str) -> Self {
        let program = plugin_folder().join("examples/relay");
        let directory = tempfile::tempdir().unwrap();
        let mut command = process::Command::new(program);
        command
            .args(["--rtmp", address, "--http", "127.0.0.1:0"])
            .args(["--relay", &relays.join(","), "--this", this])
            .arg("--directory")
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut program = Program::start(&mut command);
        let page = program.behind("page on ");
        let address = program.behind("listening on ");
        let port = address.trim_end_matches('/').rsplit(':').next();
        Relay {
            program,
            port: port.unwrap().parse().unwrap(),
            page: page.trim_end_matches('/').to_owned(),
            _directory: directory,
        }
    }

    fn get(&self, path: &str) -> String {
        let mut response = ureq::get(format!("{}/{path}", self.page)).call().unwrap();
        response.body_mut().read_to_string().unwrap()
    }

    /// Asks again and again, until it holds.
    #[track_caller]
    fn wait_until(&self, path: &str, holds: impl Fn(&str) -> bool) {
        let start = Instant::now();
        loop {
            let text = self.get(path);
            if holds(&text) {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "{text}");
        }
    }

    /// Publishers of the other relay: how many were asked to go there, and how many are served.
    #[track_caller]
    fn wait_for(&self, asked: u32, served: u32) {
        let name = "relay_publishers_of_other_relays_total";
        let lines = [("asked", asked), ("served", served)]
            .map(|(outcome, count)| format!("{name}{{outcome=\"{outcome}\"}} {count}\n"));
        self.wait_until("metrics", |text| {
            lines.iter().all(|line| text.contains(line))
        });
    }

    /// A publisher that says what it can of Enhanced RTMP.
    fn publish(&self, application: &str, capabilities: f64) -> RawClient {
        let mut client = RawClient::connect(self.port);
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
}

/// Where it has been asked to go so far.
fn destination(client: &mut RawClient) -> Option<String> {
    // What was sent before the answer to this has come by then.
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

/// It is asked to go where it belongs.
#[track_caller]
fn is_asked(client: &mut RawClient, application: &str) {
    let status = client.expect_command("onStatus");
    assert_eq!(code(&status), "NetConnection.Connect.ReconnectRequest");
    let tc_url = status.arguments[1].get("tcUrl").and_then(Value::as_str);
    let expected = format!("{ELSEWHERE}/{application}");
    assert_eq!(tc_url, Some(expected.as_str()));
}

#[test]
fn who_came_to_the_wrong_relay_is_asked_to_go_once() {
    let relay = Relay::start();
    let application = format!("live/{OF_ELSEWHERE}");
    let mut client = relay.publish(&application, RECONNECT);
    is_asked(&mut client, &application);
    relay.wait_for(1, 0);
    unpublish(client);
    // It did not get in there, and is here again.
    let client = relay.publish(&application, RECONNECT);
    relay.wait_for(1, 1);
    unpublish(client);
    // Streams without a user are each for themselves.
    let mut client = relay.publish("live", RECONNECT);
    is_asked(&mut client, "live");
    relay.wait_for(2, 1);
}

#[test]
fn who_belongs_here_or_cannot_go_is_served() {
    let mut relay = Relay::start();
    let mut here = relay.publish(&format!("live/{OF_HERE}"), RECONNECT);
    // There is no stream before there is media.
    send(&mut here, &stream(0, 4));
    relay.wait_until("streams", |text| text.contains(OF_HERE));
    relay.wait_for(0, 0);
    let cannot = relay.publish(&format!("live/{OF_ELSEWHERE}"), 0.0);
    relay.wait_for(0, 1);
    drop((here, cannot));
    let url = format!("rtmp://127.0.0.1:{}/live/cora/cam", relay.port);
    let client = publish(FFMPEG, &small(20), true, &url);
    relay.program.wait_for("ready live/cora/cam ");
    relay.wait_for(0, 2);
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
    let relays = [0, 1].map(|index| Relay::start_as(&addresses[index], &list, list[index]));
    let mut homes = Vec::new();
    // With so many there are some for each of the two, wherever the two are.
    for number in 0..32 {
        let (user, first) = (format!("user{number}"), number % 2);
        let application = format!("live/{user}");
        let here = |index: usize| {
            let mut client = relays[index].publish(&application, RECONNECT);
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
        // Nobody is sent about.
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
        relay.wait_for(sent_away.count() as u32, 0);
    }
}
