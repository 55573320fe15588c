// SPDX-License-Identifier: MPL-2.0

//! Failures cost other streams nothing, and are reported.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::media::{clean_media, dirty_media};
use super::program::{Relay, command};
use super::segments::{assert_clean, assert_goes_on, assert_plays};
use support::clients::Running;
use support::flv::Tag;
use support::netns;
use support::raw::{RawClient, send, unpublish};
use support::synthetic;

#[test]
fn a_failing_stream_disturbs_no_other_stream() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), &[]);
    let media = dirty_media(10, "relay-ten.flv", "0,4,8");
    let (start, end) = media.split_at(media.len() / 2);
    let mut good = relay.publish("ann");
    send(&mut good, start);
    // Noise in place of pictures, and a file in place of a directory.
    let mut noise = relay.publish("bob");
    send(&mut noise, &synthetic::stream(0, 100));
    std::fs::create_dir_all(folder.path().join("live")).unwrap();
    std::fs::write(folder.path().join("live/carl"), "").unwrap();
    let mut nowhere = relay.publish("carl");
    send(&mut nowhere, &media);
    unpublish(noise);
    unpublish(nowhere);
    let mut seen = relay.wait_for("gone live/");
    seen += &relay.wait_for("gone live/");
    assert!(
        !seen.contains("ready live/bob") && !seen.contains("gone live/ann"),
        "{seen}"
    );
    send(&mut good, end);
    unpublish(good);
    relay.wait_for("gone live/ann/cam");
    let segments = relay.segments("ann");
    assert_eq!(segments.len(), 5);
    assert_clean(&segments);
    assert_goes_on(&segments);
}

#[test]
fn a_stream_is_written_as_soon_as_possible() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), &[]);
    assert_eq!(relay.health(), (200, r#"{"status":"ok"}"#.to_owned()));
    // A playlist of another program in place of the stream's.
    let theirs = relay.stream("ann").join("index.m3u8");
    std::fs::create_dir_all(relay.stream("ann")).unwrap();
    std::fs::write(&theirs, "theirs").unwrap();
    let mut client = relay.publish("ann");
    let media = clean_media(10);
    send(&mut client, &media);
    relay.wait_for_health(|status, text| {
        status == 503 && text.contains("/live/ann/cam: index.m3u8 exists")
    });
    assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "theirs");
    std::fs::remove_file(&theirs).unwrap();
    relay.wait_for_health(|status, _| status == 200);
    // The same publisher goes on, and is served from here on.
    send(&mut client, &shifted(media, 10_000));
    unpublish(client);
    let seen = relay.wait_for("gone live/ann/cam");
    assert!(seen.contains("ready live/ann/cam"), "{seen}");
    assert_clean(&relay.segments("ann"));
}

/// Mounts a file system for a folder, or resizes the present one.
fn mount(options: &str, folder: &Path) {
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", options, "none"]);
    Running::spawn(command.arg(folder)).succeed();
}

#[test]
fn a_full_disk_is_reported_and_freed_space_is_used() {
    // Only there may the test mount anything.
    let name = "failing::a_full_disk_is_reported_and_freed_space_is_used";
    if let Some(status) = netns::enter(name) {
        assert!(status.success());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    mount("size=64k", folder.path());
    let mut relay = Relay::start(folder.path(), &[]);
    let mut client = relay.publish("ann");
    let media = clean_media(10);
    send(&mut client, &media);
    relay.wait_for_health(|status, text| status == 503 && text.contains("No space left on device"));
    mount("remount,size=64m", folder.path());
    // The same publisher goes on, and is served from here on.
    send(&mut client, &shifted(media, 10_000));
    relay.wait_for_health(|status, _| status == 200);
    unpublish(client);
    let seen = relay.wait_for("gone live/ann/cam");
    assert!(seen.contains("ready live/ann/cam"), "{seen}");
    let segments = relay.segments("ann");
    assert!(segments.len() >= 4, "{segments:?}");
    assert_clean(&segments);
    assert_plays(&relay.stream("ann"));
    relay.terminate();
    // A mounted file system cannot be removed with the folder.
    Running::spawn(Command::new("umount").arg(folder.path())).succeed();
}

/// Returns the same media later, in milliseconds.
fn shifted(media: Vec<Tag>, milliseconds: u32) -> Vec<Tag> {
    let shift = |tag: Tag| Tag {
        timestamp: tag.timestamp + milliseconds,
        ..tag
    };
    media.into_iter().map(shift).collect()
}

#[test]
fn an_unwritable_directory_is_reported_at_the_start() {
    let output = command("127.0.0.1:0", Path::new("/proc")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.starts_with("--directory /proc: it is not writable"),
        "{errors}"
    );
}

/// Starts a relay with a ready stream, whose notification nobody answers.
fn ignored(folder: &Path, listener: &TcpListener) -> (Relay, RawClient, TcpStream) {
    let secret = folder.join("secret");
    std::fs::write(&secret, "0123456789abcdef").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let secret = secret.to_str().unwrap();
    let options = ["--notify", &url, "--notify-secret-file", secret];
    let mut relay = Relay::start(&folder.join("hls"), &options);
    let mut client = relay.publish("ann");
    send(&mut client, &dirty_media(10, "relay-ten.flv", "0,4,8"));
    relay.wait_for("ready live/ann/cam");
    let (asking, _) = listener.accept().unwrap();
    (relay, client, asking)
}

#[test]
fn stopping_does_not_wait_for_a_silent_receiver() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (relay, _client, _asking) = ignored(folder.path(), &listener);
    let start = Instant::now();
    relay.terminate();
    // An attempt takes 10 s, and this one began shortly before.
    assert!(
        start.elapsed() < Duration::from_millis(9_500),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_second_signal_ends_the_relay_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut relay, _client, _asking) = ignored(folder.path(), &listener);
    relay.signal(Signal::TERM);
    // The stream has ended, so the first signal was handled.
    relay.wait_for("gone live/ann/cam");
    relay.signal(Signal::INT);
    assert_eq!(relay.program.wait().code(), Some(1));
}

/// Supervisors signal a process and its group.
#[test]
fn a_repeated_signal_within_a_second_counts_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), &[]);
    let mut client = relay.publish("ann");
    send(&mut client, &clean_media(10));
    relay.wait_for("ready live/ann/cam");
    relay.signal(Signal::TERM);
    relay.signal(Signal::TERM);
    relay.wait_for("gone live/ann/cam");
    assert!(relay.program.wait().success());
}

#[test]
fn a_directory_belongs_to_one_relay_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::start(folder.path(), &[]);
    let output = command("127.0.0.1:0", folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("another relay uses it"), "{errors}");
    relay.terminate();
    Relay::start(folder.path(), &[]).terminate();
}

#[test]
fn a_removed_directory_is_created_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), &[]);
    let mut client = relay.publish("ann");
    let media = clean_media(10);
    send(&mut client, &media);
    relay.wait_for("ready live/ann/cam");
    std::fs::remove_dir_all(folder.path().join("live")).unwrap();
    send(&mut client, &shifted(media, 10_000));
    unpublish(client);
    relay.wait_for("gone live/ann/cam");
    let segments = relay.segments("ann");
    assert!(segments.len() >= 4, "{segments:?}");
    assert_clean(&segments);
    assert_plays(&relay.stream("ann"));
}

#[test]
fn names_that_cannot_be_directories_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::start(folder.path(), &[]);
    for (application, stream) in [("live", ".."), ("live/.ann", "cam"), ("live", "index.m3u8")] {
        let mut client = RawClient::connect(relay.port);
        assert!(
            client.try_publish(application, stream).is_none(),
            "{application}/{stream}"
        );
    }
    let mut client = RawClient::connect(relay.port);
    client.try_publish("live", "cam").unwrap();
    relay.terminate();
}
