// SPDX-License-Identifier: MPL-2.0

//! Disks that are full, read-only or changed by others. Other branches and the pipeline go on, and
//! so does the recording once it can.

use std::path::Path;
use std::process::Command;

use gst::prelude::*;

use support::flv::{Tag, VIDEO};
use support::netns;
use support::raw::{RawClient, send, unpublish};
use support::synthetic::{audio_header, video_header};

use super::{Recording, assert_holds, connect, number_of, numbered, numbered_of, read};

const BRANCHES: &str = "rtmp2serversrc name=src port=0 keep-listening=true ! tee name=t \
    t. ! queue ! rtmp2recordsink name=record location=DIR/rec/out.mp4 \
    t. ! queue ! fakesink name=other sync=false async=false";

/// Runs the test again in a mount namespace of its own, and returns whether this is it.
fn is_inside(test: &str) -> bool {
    let status = netns::enter(&format!("record_sink::disk::{test}"));
    if let Some(status) = status {
        assert!(status.success(), "in namespaces of its own: {status}");
        return false;
    }
    true
}

fn mount(options: &str, folder: &Path) {
    let mut command = Command::new("mount");
    command
        .args(["-t", "tmpfs", "-o", options, "none"])
        .arg(folder);
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}");
}

fn remount(options: &str, folder: &Path) {
    let mut command = Command::new("mount");
    command
        .args(["-o", &format!("remount,{options}")])
        .arg(folder);
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}");
}

/// Starts [`BRANCHES`] with these properties, on a disk with these mount options.
fn start(options: &str, properties: &str) -> (Recording, RawClient) {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("rec");
    std::fs::create_dir(&disk).unwrap();
    mount(options, &disk);
    let text = BRANCHES.replace("out.mp4", &format!("out.mp4 {properties}"));
    let recording = Recording::start_in(folder, &text);
    let mut client = connect(recording.port(), "key");
    send(&mut client, &[video_header(0), audio_header(0)]);
    (recording, client)
}

/// Frames of 20 kB from a number on, so that 25 of them are half a megabyte.
fn large(first: u32, count: u32) -> Vec<Tag> {
    numbered_of(first, count, first * 40, 20_000)
}

/// Asserts that the other branch gets media.
fn assert_goes_on(recording: &Recording) {
    let other = recording.pipeline.by_name("other").unwrap();
    let stats: gst::Structure = other.property("stats");
    assert!(stats.get::<u64>("rendered").unwrap() > 0);
    let state = recording.pipeline.current_state();
    assert_eq!(state, gst::State::Playing);
}

#[test]
fn a_full_disk_ends_its_file_and_recording_begins_again_with_space() {
    if !is_inside("a_full_disk_ends_its_file_and_recording_begins_again_with_space") {
        return;
    }
    let (recording, mut client) = start("size=2m", "");
    let filler = recording.path("rec/filler");
    std::fs::write(&filler, vec![0; 1 << 20]).unwrap();
    send(&mut client, &large(0, 200));
    let warning = recording.wait_for_warning("space");
    assert!(warning.contains("Cannot record"), "{warning}");
    let failed = recording.wait_for_event("failed");
    // The whole fragments of that file are kept.
    let path = failed.get::<String>("path").unwrap();
    let media = read(Path::new(&path));
    assert!(media.iter().any(|media| media.kind == VIDEO), "{path}");
    assert_goes_on(&recording);
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_file(&filler).unwrap();
    let tags = numbered(1000, 200, 40_000);
    send(&mut client, &tags);
    unpublish(client);
    let finished = recording.wait_for_event("finished");
    let path = finished.get::<String>("path").unwrap();
    let media = read(Path::new(&path));
    let first = media.iter().find(|media| media.kind == VIDEO).unwrap();
    assert_eq!(number_of(first) % 10, 0, "a keyframe");
    let last = media.iter().rfind(|media| media.kind == VIDEO).unwrap();
    assert_eq!(number_of(last), 1199);
    assert!(recording.stat("dropped-disk") > 0);
    assert!(recording.files(".part").is_empty());
}

#[test]
fn below_min_free_bytes_the_oldest_files_go() {
    if !is_inside("below_min_free_bytes_the_oldest_files_go") {
        return;
    }
    let properties = "max-size-time=400000000 max-files=100 min-free-bytes=2000000";
    let (recording, mut client) = start("size=5m", properties);
    // 8 MB in all.
    let tags = large(0, 400);
    send(&mut client, &tags);
    unpublish(client);
    recording.wait_for("the last file", |message| {
        let structure = message.structure()?;
        let reason = structure.get::<String>("reason").ok()?;
        assert_ne!(reason, "error", "{structure}");
        (reason == "publisher").then_some(())
    });
    recording.stop();
    assert!(recording.stat("files-deleted") > 0);
    assert_eq!(recording.stat("files-failed"), 0);
    assert_eq!(recording.stat("dropped-disk"), 0);
    // The newest media is there, without a hole.
    let mut files = recording.files(".mp4");
    // Names of deleted files are used again.
    files.sort_by_key(|file| number_of(&read(file)[0]));
    let first = number_of(&read(&files[0])[0]) as usize;
    assert_holds(&files, &tags[2 * first..]);
}

#[test]
fn below_min_free_bytes_without_max_files_recording_pauses() {
    if !is_inside("below_min_free_bytes_without_max_files_recording_pauses") {
        return;
    }
    let (recording, mut client) = start("size=5m", "min-free-bytes=2000000");
    send(&mut client, &large(0, 400));
    let warning = recording.wait_for_warning("space");
    assert!(warning.contains("min-free-bytes"), "{warning}");
    let finished = recording.wait_for_event("finished");
    assert_eq!(finished.get::<String>("reason").unwrap(), "min-free-bytes");
    assert_goes_on(&recording);
    let path = finished.get::<String>("path").unwrap();
    let media = read(Path::new(&path));
    let pictures = media.iter().filter(|media| media.kind == VIDEO);
    let numbers: Vec<u32> = pictures.map(number_of).collect();
    assert!(numbers.len() > 50, "{numbers:?}");
    assert_eq!(numbers, (0..numbers.len() as u32).collect::<Vec<_>>());
    std::fs::remove_file(path).unwrap();
    send(&mut client, &numbered(1000, 200, 40_000));
    unpublish(client);
    recording.wait_for_event("opened");
    let finished = recording.wait_for_event("finished");
    assert_eq!(finished.get::<String>("reason").unwrap(), "publisher");
}

#[test]
fn below_min_free_bytes_files_of_earlier_runs_go() {
    if !is_inside("below_min_free_bytes_files_of_earlier_runs_go") {
        return;
    }
    let (recording, mut client) = start("size=6m", "max-files=100 min-free-bytes=2000000");
    let (earlier, other) = (
        recording.path("rec/out-7.mp4"),
        recording.path("rec/out-x.mp4"),
    );
    std::fs::write(&earlier, vec![0; 2 << 20]).unwrap();
    std::fs::write(&other, vec![0; 1 << 20]).unwrap();
    // 2 MB, with 3 MB free of which one may be used.
    let tags = large(0, 100);
    send(&mut client, &tags);
    unpublish(client);
    let deleted = recording.wait_for_event("deleted");
    assert_eq!(
        deleted.get::<String>("path").unwrap(),
        earlier.to_str().unwrap()
    );
    let finished = recording.wait_for_event("finished");
    assert_eq!(finished.get::<String>("reason").unwrap(), "publisher");
    assert_holds(&[recording.path("rec/out.mp4")], &tags);
    assert!(other.exists());
}

#[test]
fn a_read_only_disk_is_told_and_used_once_it_can_be() {
    if !is_inside("a_read_only_disk_is_told_and_used_once_it_can_be") {
        return;
    }
    let (recording, mut client) = start("size=5m,ro", "");
    send(&mut client, &numbered(0, 100, 0));
    let warning = recording.wait_for_warning("Read-only");
    assert!(warning.contains("Cannot record"), "{warning}");
    assert_goes_on(&recording);
    remount("rw", &recording.path("rec"));
    send(&mut client, &numbered(100, 200, 4000));
    unpublish(client);
    let finished = recording.wait_for_event("finished");
    let path = finished.get::<String>("path").unwrap();
    let media = read(Path::new(&path));
    let last = media.iter().rfind(|media| media.kind == VIDEO).unwrap();
    assert_eq!(number_of(last), 299);
}

#[test]
fn a_removed_folder_is_made_again() {
    let recording = Recording::start(BRANCHES);
    let mut client = connect(recording.port(), "key");
    send(&mut client, &[video_header(0), audio_header(0)]);
    send(&mut client, &numbered(0, 50, 0));
    recording.wait_for_event("opened");
    recording.wait_for_packets(100);
    std::fs::remove_dir_all(recording.path("rec")).unwrap();
    let tags = numbered(50, 200, 2000);
    send(&mut client, &tags);
    recording.wait_for_warning("removed");
    recording.wait_for_event("opened");
    assert_goes_on(&recording);
    unpublish(client);
    let finished = recording.wait_for_event("finished");
    let media = read(Path::new(&finished.get::<String>("path").unwrap()));
    let first = media.iter().find(|media| media.kind == VIDEO).unwrap();
    assert_eq!(number_of(first) % 10, 0, "a keyframe");
    assert!(number_of(first) < 150, "{}", number_of(first));
    let last = media.iter().rfind(|media| media.kind == VIDEO).unwrap();
    assert_eq!(number_of(last), 249);
}
