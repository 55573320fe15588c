// SPDX-License-Identifier: MPL-2.0

//! Where files begin and end, and their names.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use gst::prelude::*;

use support::flv::{Tag, VIDEO};
use support::launch::Launch;
use support::raw::{RawClient, send, unpublish};
use support::synthetic::{audio_header, video_header};

use super::{Recording, assert_holds, connect, number_of, numbered, read};

const LIVE: &str =
    "rtmp2serversrc name=src port=0 keep-listening=true ! rtmp2recordsink name=record";

fn publish(port: u16, key: &str, tags: &[Tag]) -> RawClient {
    let mut client = connect(port, key);
    send(&mut client, tags);
    client
}

fn with_headers(tags: &[Tag]) -> Vec<Tag> {
    [&[video_header(0), audio_header(0)], tags].concat()
}

fn path_of(event: &gst::Structure) -> PathBuf {
    event.get::<String>("path").unwrap().into()
}

#[test]
fn each_publisher_has_a_file_named_by_its_stream() {
    let text = format!("{LIVE} location=\"DIR/{{application}}/{{stream-key}}/out.mp4\"");
    let recording = Recording::start(&text);
    for (key, name) in [
        ("one", "live/one/out.mp4"),
        ("../../two", "live/%2E.%2F..%2Ftwo/out.mp4"),
        ("one", "live/one/out-1.mp4"),
    ] {
        let tags = numbered(0, 30, 0);
        unpublish(publish(recording.port(), key, &with_headers(&tags)));
        let finished = recording.wait_for_event("finished");
        assert_eq!(path_of(&finished), recording.path(name));
        assert_eq!(finished.get::<String>("stream-key").unwrap(), key);
        assert_eq!(finished.get::<String>("reason").unwrap(), "publisher");
        assert_eq!(finished.get::<u64>("packets").unwrap(), 60);
        let tracks: gst::Array = finished.get("tracks").unwrap();
        assert_eq!(tracks.len(), 2);
        assert_holds(&[path_of(&finished)], &tags);
    }
    assert_eq!(recording.stat("files"), 3);
}

#[test]
fn a_publisher_that_returns_continues_its_file() {
    let text = format!("{LIVE} location=DIR/out.mp4");
    let recording = Recording::start(&text.replace("port=0", "port=0 resume-timeout=60000"));
    let mut all = Vec::new();
    for round in 0..3 {
        let tags = numbered(round * 30, 30, 0);
        // Its connection is lost.
        drop(publish(recording.port(), "key", &with_headers(&tags)));
        recording.wait_for_packets(u64::from(round + 1) * 60);
        all.extend(tags);
    }
    recording.stop();
    let files = recording.files(".mp4");
    assert_eq!(files, [recording.path("out.mp4")]);
    assert_holds(&files, &all);
}

#[test]
fn files_end_at_keyframes_after_their_time_and_lose_nothing() {
    for name in ["out.mp4", "out.mkv", "out.flv"] {
        let text = format!("{LIVE} location=DIR/{name} max-size-time=1000000000 max-files=0");
        let recording = Recording::start(&text);
        let tags = numbered(0, 200, 0);
        unpublish(publish(recording.port(), "key", &with_headers(&tags)));
        let mut files = Vec::new();
        let mut reason = String::new();
        while reason != "publisher" {
            let finished = recording.wait_for_event("finished");
            reason = finished.get("reason").unwrap();
            files.push(path_of(&finished));
        }
        // Keyframes come each 400 ms, so that a file has 1.2 s.
        assert_eq!(files.len(), 7, "{files:?}");
        assert_holds(&files, &tags);
        for file in &files {
            let media = read(file);
            let first = media.iter().find(|media| media.kind == VIDEO).unwrap();
            assert_eq!(number_of(first) % 10, 0, "{}", file.display());
        }
    }
}

#[test]
fn only_the_newest_files_are_kept() {
    let text = format!("{LIVE} location=DIR/out.mp4 max-size-time=1000000000 max-files=3");
    let recording = Recording::start(&text);
    let tags = numbered(0, 200, 0);
    unpublish(publish(recording.port(), "key", &with_headers(&tags)));
    for number in ["", "-1", "-2", "-3"] {
        let deleted = recording.wait_for_event("deleted");
        assert_eq!(
            path_of(&deleted),
            recording.path(&format!("out{number}.mp4"))
        );
    }
    recording.stop();
    assert_eq!(recording.files(".mp4").len(), 3);
}

#[test]
fn files_of_earlier_runs_count_and_other_files_are_left_alone() {
    let text = format!("{LIVE} location=\"DIR/{{stream-key}}/a-%Y%m%d-%H%M%S.mp4\" max-files=2");
    let folder = tempfile::tempdir().unwrap();
    let earlier = ["cam/a-20200101-000000.mp4", "cam/a-20200101-000000-1.mp4"];
    let others = [
        "cam/a-20201301-000000.mp4",
        "cam/a-20200101-000000.mkv",
        "cam/a-20200101-000000-x.mp4",
        "cam/holidays.mp4",
        "cam2/a-20200101-000000.mp4",
    ];
    for (age, name) in earlier.into_iter().rev().chain(others).enumerate() {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = std::fs::File::create(path).unwrap();
        let hours = Duration::from_secs(3600 * (age as u64 + 1));
        file.set_modified(SystemTime::now() - hours).unwrap();
    }
    let recording = Recording::start_in(folder, &text);
    let publish_one = || {
        let client = publish(recording.port(), "cam", &with_headers(&numbered(0, 30, 0)));
        unpublish(client);
        path_of(&recording.wait_for_event("finished"))
    };
    let mut newest = vec![publish_one()];
    // The oldest one goes first.
    for name in earlier {
        assert_eq!(
            path_of(&recording.wait_for_event("deleted")),
            recording.path(name)
        );
        if newest.len() < 2 {
            newest.push(publish_one());
        }
    }
    recording.stop();
    let mut expected: Vec<PathBuf> = others.map(|name| recording.path(name)).to_vec();
    expected.extend(newest);
    expected.sort();
    assert_eq!(recording.files(""), expected);
    assert_eq!(recording.stat("files-deleted"), 2);
}

#[test]
fn late_audio_is_in_the_next_file() {
    let recording = Recording::start(&format!("{LIVE} location=DIR/out.mp4"));
    let tags = numbered(0, 100, 0);
    let (early, late) = tags.split_at(110);
    let early: Vec<Tag> = early.iter().filter(|t| t.kind == VIDEO).cloned().collect();
    let mut sent = vec![video_header(0)];
    sent.extend(early.clone());
    sent.push(audio_header(late[0].timestamp));
    sent.extend(late.to_vec());
    unpublish(publish(recording.port(), "key", &sent));
    let files = [(); 2].map(|()| path_of(&recording.wait_for_event("finished")));
    assert_holds(&files, &[&early[..], late].concat());
    // The first one ends where the next keyframe is.
    assert_eq!(read(&files[0]).len(), 60);
}

#[test]
fn a_changed_configuration_begins_a_file() {
    let recording = Recording::start(&format!("{LIVE} location=DIR/out.mkv"));
    let (first, second) = (numbered(0, 35, 0), numbered(40, 40, 1400));
    let mut header = video_header(1400);
    // Another sequence parameter set.
    let last = header.body.len() - 1;
    header.body[last] ^= 1;
    let mut sent = with_headers(&first);
    sent.push(header);
    sent.extend(second.clone());
    unpublish(publish(recording.port(), "key", &sent));
    let events = [(); 2].map(|()| recording.wait_for_event("finished"));
    let reasons = events
        .each_ref()
        .map(|e| e.get::<String>("reason").unwrap());
    assert_eq!(reasons, ["configuration", "publisher"]);
    let files = events.each_ref().map(path_of);
    assert_holds(&files[..1], &first);
    assert_holds(&files[1..], &second);
}

#[test]
fn files_begin_with_a_keyframe_while_standby_plays() {
    // One keyframe in each loop of two seconds.
    let mut slate = with_headers(&numbered(1000, 50, 0));
    for tag in slate.iter_mut().filter(|tag| tag.kind == VIDEO).skip(2) {
        tag.body[0] = 0x27;
        tag.body[9] = 0x41;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
    slate.iter().for_each(|tag| bytes.extend(tag.to_bytes()));
    std::fs::write(folder.path().join("slate.flv"), bytes).unwrap();
    let standby = "port=0 standby=file standby-location=DIR/slate.flv standby-after=200 \
                   resume-timeout=600";
    let text = format!("{LIVE} location=\"DIR/{{stream-key}}.mkv\"").replace("port=0", standby);
    let recording = Recording::start_in(folder, &text);
    let mut count = 60;
    for key in ["one", "two"] {
        recording.wait_for_packets(count);
        // Its name is known before its media.
        let mut client = connect(recording.port(), key);
        count = recording.stat("packets") + 20;
        recording.wait_for_packets(count);
        send(&mut client, &with_headers(&numbered(0, 15, 0)));
        // It is gone for good in the middle of a loop.
        drop(client);
        count = recording.stat("packets") + 120;
    }
    recording.wait_for_packets(count);
    recording.stop();
    let files = recording.files(".mkv");
    assert!(files.len() >= 3, "{files:?}");
    let mut live = 0;
    for file in files {
        let media = read(&file);
        let mut video = media.iter().filter(|media| media.kind == VIDEO);
        let first = number_of(video.clone().next().unwrap());
        assert!([0, 1000].contains(&first), "{}: {first}", file.display());
        live += video
            .by_ref()
            .filter(|media| number_of(media) < 1000)
            .count();
    }
    assert_eq!(live, 30);
}

#[test]
fn null_and_eos_finish_the_file() {
    for with_eos in [false, true] {
        let recording = Recording::start(&format!("{LIVE} location=DIR/out.mp4"));
        let tags = numbered(0, 30, 0);
        let _client = publish(recording.port(), "key", &with_headers(&tags));
        recording.wait_for_packets(60);
        if with_eos {
            recording.pipeline.send_event(gst::event::Eos::new());
            recording.wait_for_eos();
        }
        recording.stop();
        assert!(recording.files(".part").is_empty());
        assert_holds(&[recording.path("out.mp4")], &tags);
    }
}

#[test]
fn a_stream_without_media_ends_without_an_error() {
    let recording = Recording::start(&format!("{LIVE} location=DIR/out.mp4"));
    recording.pipeline.send_event(gst::event::Eos::new());
    recording.wait_for_eos();
    recording.stop();
    assert!(recording.files("").is_empty());
}

#[test]
fn gst_launch_finishes_the_file_at_an_interrupt_with_and_without_e() {
    for options in ["-e", ""] {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "rtmp2serversrc port=0 keep-listening=true ! rtmp2recordsink location={}/out.mp4",
            folder.path().display()
        );
        let mut launch = Launch::start(&format!("-m {options}"), &text);
        let tags = numbered(0, 50, 0);
        let port = launch.port();
        unpublish(publish(port, "key", &with_headers(&tags)));
        launch.wait_for("finished");
        let client = publish(port, "key", &with_headers(&tags));
        launch.wait_for("opened");
        launch.interrupt();
        assert!(launch.wait().0.success());
        drop(client);
        assert_holds(&[folder.path().join("out.mp4")], &tags);
        assert!(super::files(folder.path(), ".part").is_empty());
    }
}

#[test]
fn an_unusable_location_is_an_error_at_the_start() {
    support::init();
    for (location, text) in [
        ("", "No location is set"),
        ("location=out.avi", "no known ending"),
        ("location={}.mp4", "{field}"),
    ] {
        let text_of = format!("rtmp2serversrc port=0 ! rtmp2recordsink {location}");
        let pipeline = gst::parse::launch(&text_of).unwrap();
        assert!(pipeline.set_state(gst::State::Playing).is_err());
        let bus = pipeline.bus().unwrap();
        let message = bus.pop_filtered(&[gst::MessageType::Error]).unwrap();
        pipeline.set_state(gst::State::Null).unwrap();
        let gst::MessageView::Error(error) = message.view() else {
            unreachable!()
        };
        assert!(error.error().to_string().contains(text), "{error:?}");
    }
}
