// SPDX-License-Identifier: MPL-2.0

//! Relays that share users: who came to the wrong one is asked to go, once, and else served.
//!
//! Each test runs the program `examples/relay` as one of two. Which users belong to which of them never changes.

use std::process::{Command, Stdio};
use std::time::Instant;

use gstrtmp2server::amf0::Value;

use crate::support::PATIENCE;
use crate::support::clients::{FFMPEG, publish};
use crate::support::launch::plugin_folder;
use crate::support::media::small;
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
        let program = plugin_folder().join("examples/relay");
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(program);
        command
            .args(["--rtmp", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .args(["--relay", HERE, "--relay", ELSEWHERE, "--this", HERE])
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
