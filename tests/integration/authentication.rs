// SPDX-License-Identifier: MPL-2.0

//! Challenge authentication with user names and passwords, with every client that supports it.

use std::path::Path;

use gstrtmp2server::internal::amf0::Value;

use support::clients::{FFMPEG, NEW_FFMPEG, Running, gst_launch, publish};
use support::flv;
use support::media::{copy, small};
use support::raw::{RawClient, code, unpublish};
use support::recorder::Recorder;
use support::signals::Signals;

const PASSWORD: &str = "s3cret";

fn recorder(method: &str) -> Recorder {
    Recorder::start(&format!(
        "application=live stream-key=key keep-listening=true \
         authmod={method} username=camera password={PASSWORD}"
    ))
}

fn url(recorder: &Recorder, user: &str) -> String {
    format!("rtmp://{user}127.0.0.1:{}/live/key", recorder.port())
}

#[test]
fn both_ffmpegs_authenticate_by_both_methods() {
    let file = small(1);
    for method in ["adobe", "llnw"] {
        for program in [Path::new(FFMPEG), &NEW_FFMPEG] {
            let recorder = recorder(method);
            let signals = Signals::watch(&recorder.element);
            for (user, reason) in [
                ("", "No credentials set"),
                ("camera:wrong@", "Incorrect username/password"),
                ("other:s3cret@", "Incorrect username/password"),
            ] {
                let output = publish(program, &file, false, &url(&recorder, user)).wait();
                let text = String::from_utf8_lossy(&output.stderr);
                assert!(!output.status.success() && text.contains(reason), "{text}");
            }
            let right = url(&recorder, &format!("camera:{PASSWORD}@"));
            publish(program, &file, false, &right).succeed();
            let expected = [
                "rejected wrong-credentials",
                "rejected wrong-credentials",
                "added",
                "removed unpublished",
            ];
            assert_eq!(signals.names(4), expected);
            let sent = flv::read_file(&copy(program, &file));
            let sent: Vec<_> = sent
                .into_iter()
                .filter(|t| !t.is_end_of_sequence())
                .collect();
            recorder.wait_until("all", |b| b.len() > flv::media(&sent).len());
            flv::assert_same_media(&sent, &recorder.tags());
        }
    }
}

fn publish_with_gstreamer(sink: &str) -> Running {
    gst_launch(&format!(
        "filesrc location={} ! flvdemux name=d d.video ! h264parse ! flvmux streamable=true ! {sink}",
        small(1).display()
    ))
}

#[test]
fn rtmp2sink_authenticates_by_adobe() {
    let recorder = recorder("adobe");
    let sink = |password: &str| {
        let url = url(&recorder, "");
        format!("rtmp2sink location={url} username=camera password={password} authmod=adobe")
    };
    let output = publish_with_gstreamer(&sink("wrong")).wait();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("authentication failed; wrong credentials?"),
        "{text}"
    );
    publish_with_gstreamer(&sink(PASSWORD)).succeed();
    recorder.wait_until("its frames", |buffers| buffers.len() > 30);
}

#[test]
fn librtmp_authenticates_by_llnw() {
    let recorder = recorder("llnw");
    let publish = |password: &str| {
        let location = format!("{} pubUser=camera pubPasswd={password}", url(&recorder, ""));
        let mut command = std::process::Command::new("gst-launch-1.0");
        let front = format!(
            "--quiet filesrc location={} ! flvdemux name=d d.video ! h264parse ! \
             flvmux streamable=true ! rtmpsink",
            small(1).display()
        );
        command.args(front.split_whitespace());
        Running::spawn(command.arg(format!("location=\"{location}\"")))
    };
    assert!(!publish("wrong").wait().status.success());
    publish(PASSWORD).succeed();
    recorder.wait_until("its frames", |buffers| buffers.len() > 30);
}

/// Some clients stay on the connection that brought the challenge.
#[test]
fn a_challenge_may_be_answered_on_the_same_connection() {
    let recorder = recorder("llnw");
    let mut client = RawClient::connect(recorder.port());
    client.handshake().connect_application("live");
    let challenge = |client: &mut RawClient| {
        let error = client.expect_command("_error");
        assert_eq!(code(&error), "NetConnection.Connect.Rejected");
        let information = &error.arguments[1];
        let description = information.get("description").and_then(Value::as_str);
        description.unwrap().to_owned()
    };
    assert!(challenge(&mut client).contains("code=403 need auth; authmod=llnw"));
    client.connect_application("live?authmod=llnw&user=camera");
    let description = challenge(&mut client);
    let (_, nonce) = description.split_once("&nonce=").unwrap();
    let hex = |text: &str| format!("{:x}", md5_of(text));
    let identity = hex(&format!("camera:live:{PASSWORD}"));
    let resource = hex("publish:/live/_definst_");
    let response = hex(&format!("{identity}:{nonce}:00000001:beef:auth:{resource}"));
    client.connect_application(&format!(
        "live?authmod=llnw&user=camera&nonce={nonce}&cnonce=beef&nc=00000001&response={response}"
    ));
    client.expect_command("_result");
    client.command(1, "publish", 2.0, &[Value::Null, "key".into()]);
    assert_eq!(
        code(&client.expect_command("onStatus")),
        "NetStream.Publish.Start"
    );
}

struct Hex([u8; 16]);

impl std::fmt::LowerHex for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn md5_of(text: &str) -> Hex {
    use md5::Digest;
    Hex(md5::Md5::digest(text.as_bytes()).into())
}

#[test]
fn credentials_are_checked_against_the_published_stream() {
    let first =
        Recorder::start("application=live stream-key=one authmod=llnw username=a password=first");
    let port = first.port();
    let second = Recorder::start(&format!(
        "port={port} application=live stream-key=two authmod=llnw username=b password=second"
    ));
    let publish = |user: &str, key: &str| {
        let url = format!("rtmp://{user}@127.0.0.1:{port}/live/{key}");
        publish(FFMPEG, &small(1), false, &url).wait()
    };
    let output = publish("a:first", "two");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("do not belong to this stream"), "{text}");
    assert!(publish("b:second", "two").status.success());
    assert!(publish("a:first", "one").status.success());
    assert!(!flv::media(&first.finish()).is_empty());
    assert!(!flv::media(&second.finish()).is_empty());
}

#[test]
fn a_client_that_ignores_the_challenge_cannot_publish() {
    let recorder = recorder("adobe");
    let mut client = RawClient::connect(recorder.port());
    client.handshake().connect_application("live");
    client.expect_command("_error");
    // The client continues as if it had been accepted.
    client.command(0, "createStream", 2.0, &[Value::Null]);
    client.command(1, "publish", 3.0, &[Value::Null, "key".into()]);
    assert!(client.try_expect_command("onStatus").is_none());
    assert_eq!(recorder.stats().get("publishing"), Ok(false));
}

#[test]
fn secrets_never_reach_the_log() {
    let mut launch = support::launch::Launch::start_logged(
        "rtmp2serversrc port=0 application=live stream-key=longsecretkey authmod=adobe \
         username=camera password=longsecretpassword ! fakesink",
        "rtmp2server:9,rtmp2serversrc:9",
    );
    let port = launch.port();
    let user = "camera:longsecretpassword@";
    for path in [
        "longsecretkey?token=longsecrettoken",
        "longsecretother",
        "longsecretkey",
    ] {
        let url = format!("rtmp://{user}127.0.0.1:{port}/live/{path}");
        publish(FFMPEG, &small(1), false, &url).wait();
    }
    launch.interrupt();
    launch.wait();
    let log = launch.log();
    assert!(
        log.contains("publishes application \"live\", stream key \"lo…\""),
        "{log}"
    );
    assert!(!log.contains("longsecret"), "{log}");
    assert!(!log.contains("response="), "{log}");
}

#[test]
fn log_keys_apply_to_the_log_of_connections() {
    for (log_keys, expected) in [
        ("masked", "\"st…\" ending in \"-1\""),
        ("full", "\"studio-camera-1\""),
        ("none", "\"…\""),
    ] {
        let mut launch = support::launch::Launch::start_logged(
            &format!(
                "rtmp2serversrc port=0 stream-key=studio-camera-1 keep-listening=true \
                 log-keys={log_keys} ! fakesink"
            ),
            "rtmp2server:9",
        );
        let port = launch.port();
        unpublish(RawClient::publish(port, "live", "studio-camera-1"));
        let mut client = RawClient::connect(port);
        client.handshake().connect_application("live");
        client.expect_command("_result");
        client.command(
            1,
            "publish",
            2.0,
            &[Value::Null, "studio-camera-1/x".into()],
        );
        assert_eq!(
            code(&client.expect_command("onStatus")),
            "NetStream.Publish.BadName"
        );
        launch.interrupt();
        launch.wait();
        let log = launch.log();
        let line = format!("publishes application \"live\", stream key {expected} to ");
        assert!(log.contains(&line), "{log_keys}: {log}");
        let is_whole = log.contains("studio-camera-1/x");
        assert_eq!(is_whole, log_keys == "full", "{log_keys}: {log}");
    }
}

#[test]
fn every_client_reports_its_refusal_and_exits() {
    let recorder = Recorder::start("application=live stream-key=key");
    for (path, reason, code) in [
        (
            "other/key",
            "no such application",
            "NetConnection.Connect.InvalidApp",
        ),
        (
            "live/wrong",
            "No stream of this application and stream key",
            "NetStream.Publish.BadName",
        ),
    ] {
        let url = recorder.url(path);
        for program in [Path::new(FFMPEG), &NEW_FFMPEG] {
            let output = publish(program, &small(1), false, &url).wait();
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && text.contains(reason), "{text}");
        }
        let output = publish_with_gstreamer(&format!("rtmp2sink location={url}")).wait();
        let text = String::from_utf8_lossy(&output.stderr);
        let says_why = text.contains(reason) || text.contains(code);
        assert!(!output.status.success() && says_why, "{text}");
        // librtmp reports no reason, but it exits.
        let output = publish_with_gstreamer(&format!("rtmpsink location={url}")).wait();
        assert!(!output.status.success());
    }
    assert_eq!(recorder.stats().get("rejected"), Ok(8u64));
}
