// SPDX-License-Identifier: MPL-2.0

//! The most common first try: ffmpeg into a file.

use std::time::{Duration, Instant};

use support::clients::{FFMPEG, ffmpeg};
use support::media::{SMALL_VIDEO, TONE};
use support::{flv, launch, recorder};

/// Longest time from the publisher's exit to EOS.
const MAX_EOS_DELAY: Duration = Duration::from_millis(300);

fn record_two_seconds(with_audio: bool) {
    let audio = if with_audio { TONE } else { "" };
    for run in 0..20 {
        let recorder = recorder::Recorder::start("");
        let url = recorder.url("live/key");
        let arguments =
            format!("-re {SMALL_VIDEO} {audio} -t 2 -c:v libx264 -c:a aac -f flv {url}");
        ffmpeg(FFMPEG, &arguments).succeed();
        let ended = Instant::now();
        let tags = recorder.finish();
        let delay = ended.elapsed();
        let frames = tags.iter().filter(|tag| tag.is_frame()).count();
        assert_eq!(frames, 60, "run {run}");
        assert!(
            delay < MAX_EOS_DELAY,
            "EOS came after {delay:?} in run {run}"
        );
        let has_audio = tags.iter().any(|tag| tag.kind == flv::AUDIO);
        assert_eq!(has_audio, with_audio);
    }
}

#[test]
fn two_seconds_of_video_record_as_sixty_frames() {
    record_two_seconds(false);
}

#[test]
fn two_seconds_with_audio_record_as_sixty_frames() {
    record_two_seconds(true);
}

#[test]
fn gst_launch_records_to_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.flv");
    let sink = format!(
        "rtmp2serversrc port=0 ! filesink location={}",
        file.display()
    );
    let mut launch = launch::Launch::start("", &sink);
    let port = launch.port();
    let url = format!("rtmp://127.0.0.1:{port}/live/key");
    ffmpeg(
        FFMPEG,
        &format!("{SMALL_VIDEO} -t 2 -c:v libx264 -f flv {url}"),
    )
    .succeed();
    let (status, _) = launch.wait();
    assert!(status.success(), "{}", launch.output());
    let frames = flv::read_file(&file)
        .iter()
        .filter(|tag| tag.is_frame())
        .count();
    assert_eq!(frames, 60);
}
