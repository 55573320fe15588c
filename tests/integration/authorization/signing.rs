// SPDX-License-Identifier: MPL-2.0

//! Publish URLs that expire.

use std::process::Command;
use std::time::SystemTime;

use gst::prelude::*;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{answer, description};
use crate::multi::multi_recorder::MultiRecorder;
use support::clients::{FFMPEG, publish};
use support::flv;
use support::media::small;
use support::raw::{RawClient, code};
use support::recorder::Recorder;
use support::repository;
use support::signals::Signals;

const KEY: &str = "correct horse battery staple";

/// Returns the query of a URL for `path`, which expires after so many seconds.
fn query(path: &str, seconds: i64, rest: &str) -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    let expires = now + seconds;
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
    mac.update(format!("{path}?expires={expires}{rest}").as_bytes());
    let bytes: [u8; 32] = mac.finalize().into_bytes().into();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("expires={expires}{rest}&signature={hex}")
}

fn recorder() -> Recorder {
    let recorder = Recorder::start("application=live stream-key=camera1 keep-listening=true");
    recorder.pipeline.set_state(gst::State::Null).unwrap();
    recorder.element.set_property("signing-key", KEY);
    recorder.pipeline.set_state(gst::State::Playing).unwrap();
    recorder
}

#[test]
fn the_documented_openssl_line_makes_a_url_that_ffmpeg_publishes_to() {
    let page = std::fs::read_to_string(repository().join("docs/elements.md")).unwrap();
    let mut lines = page.lines().filter(|line| line.contains("openssl dgst"));
    let line = lines.next().expect("the page has the line");
    assert!(lines.next().is_none());
    let output = Command::new("sh")
        .args(["-c", line])
        .env("KEY", KEY)
        .output()
        .unwrap();
    let url = String::from_utf8(output.stdout).unwrap();
    let recorder = recorder();
    let url = url
        .trim()
        .replace("localhost:1935", &format!("127.0.0.1:{}", recorder.port()));
    publish(FFMPEG, &small(1), false, &url).succeed();
    recorder.wait_until("its frames", |buffers| buffers.len() > 20);
    assert!(!flv::media(&recorder.tags()).is_empty());
    // The same URL with another key is wrong.
    let other = url.replace("signature=", "signature=0");
    let output = publish(FFMPEG, &small(1), false, &other).wait();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("The signature of this URL is wrong"),
        "{text}"
    );
}

#[test]
fn signatures_that_are_missing_wrong_or_expired_are_told_apart() {
    let recorder = recorder();
    let signals = Signals::watch(&recorder.element);
    let path = "live/camera1";
    let cases = [
        (String::new(), "signature-missing", "is not signed"),
        ("?expires=1".into(), "signature-missing", "is not signed"),
        (
            format!("?{}", query("live/camera2", 60, "")),
            "signature-wrong",
            "is wrong",
        ),
        (
            format!("?{}", query(path, -1, "")),
            "signature-expired",
            "has expired",
        ),
        (
            format!("?{}", query(path, 60, "&ip=192.0.2.1")),
            "signature-address",
            "for another address",
        ),
    ];
    for (index, (query, reason, text)) in cases.iter().enumerate() {
        let status = answer(recorder.port(), &format!("camera1{query}"));
        assert_eq!(code(&status), "NetStream.Publish.Denied");
        assert!(description(&status).contains(text), "{status:?}");
        assert_eq!(signals.wait_for(index + 1)[index].reason, *reason);
    }
    let count = cases.len();
    assert_eq!(recorder.stats().get("rejected"), Ok(count as u64));
    for rest in ["", "&ip=127.0.0.1"] {
        let key = format!("camera1?{}&user=a", query(path, 60, rest));
        RawClient::publish(recorder.port(), "live", &key);
    }
    // Clients that have the query in the application.
    let application = format!("live?{}", query(path, 60, ""));
    RawClient::publish(recorder.port(), &application, "camera1");
}

#[test]
fn each_stream_of_a_multi_source_has_its_own_signature() {
    let recorder = MultiRecorder::start("application=live signing-key=k");
    let status = answer(recorder.port(), "a?expires=1&signature=00");
    assert!(description(&status).contains("is wrong"), "{status:?}");
}

#[test]
fn the_key_cannot_be_read() {
    let recorder = recorder();
    let spec = recorder.element.find_property("signing-key").unwrap();
    assert!(!spec.flags().contains(gst::glib::ParamFlags::READABLE));
    let (_, message) = Recorder::refusal("signing-key=\"\"");
    assert!(message.contains("signing-key is empty"), "{message}");
}
