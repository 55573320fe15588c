// SPDX-License-Identifier: MPL-2.0

//! Elements downstream go through the changes between publisher and standby.

use super::*;
use gstrtmp2server::Standby;

/// Changes between publisher and standby of a test.
const CHANGES: usize = 20;

/// Lets publishers come and go at seeded times.
fn change_often(recorder: &Recorder) {
    let mut random = fastrand::Rng::with_seed(11);
    // Freeze has nothing to play before the first publisher.
    let is_file = recorder.element.property::<Standby>("standby") == Standby::File;
    let mut standbys = usize::from(is_file);
    for _ in 0..CHANGES / 2 + usize::from(!is_file) {
        let follows_standby = standbys > 0;
        if follows_standby {
            started(recorder, standbys);
        }
        let client = publish(recorder, &media(random.usize(3..15)));
        if follows_standby {
            ended(recorder, standbys);
        }
        drop(client);
        standbys += 1;
    }
    started(recorder, standbys);
    recorder.element.send_event(gst::event::Eos::new());
    recorder.wait_for(gst::MessageType::Eos);
}

#[track_caller]
fn assert_file_decodes(name: &str, downstream: &str) {
    assert_file_of_standby_decodes(&of_file(100), HOLE, name, downstream);
}

#[track_caller]
fn assert_file_of_standby_decodes(standby: &str, hole: u64, name: &str, downstream: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    let text = downstream.replace("FILE", &file.display().to_string());
    let recorder = Recorder::start_into(standby, &text);
    change_often(&recorder);
    assert_no_hole(&video_times(&recorder), hole);
    drop(recorder);
    assert_decodes(&file);
}

const DEMUXED: &str = "eflvdemux name=d d.video_0 ! queue ! h264parse ! muxer. \
                       d.audio_0 ! queue ! aacparse ! muxer.";

const HLS: &str = "eflvdemux name=d d.video_0 ! queue ! h264parse ! muxer.video \
                   d.audio_0 ! queue ! aacparse ! muxer.audio \
                   hlssink2 name=muxer max-files=0 playlist-length=0 target-duration=1 \
                   location=FILE-%05d.ts playlist-location=FILE";

#[test]
fn mp4_of_twenty_changes_decodes() {
    assert_file_decodes(
        "out.mp4",
        &format!("{DEMUXED} mp4mux name=muxer ! filesink location=FILE"),
    );
}

#[test]
fn flv_of_twenty_changes_decodes() {
    let text = format!("{DEMUXED} flvmux name=muxer streamable=true ! filesink location=FILE");
    assert_file_decodes("out.flv", &text);
}

#[test]
fn transport_stream_of_twenty_changes_decodes() {
    assert_file_decodes(
        "out.ts",
        &format!("{DEMUXED} mpegtsmux name=muxer ! filesink location=FILE"),
    );
}

#[test]
fn mp4_of_frozen_pictures_decodes() {
    let standby = "keep-listening=true standby=freeze standby-after=100";
    // The picture that is frozen is sent again once a second.
    assert_file_of_standby_decodes(
        standby,
        1_000_000_000,
        "frozen.mp4",
        &format!("{DEMUXED} mp4mux name=muxer ! filesink location=FILE"),
    );
}

#[test]
fn transport_stream_of_other_configurations_decodes() {
    assert_file_of_standby_decodes(
        &of_other_file(100),
        HOLE,
        "other.ts",
        &format!("{DEMUXED} mpegtsmux name=muxer ! filesink location=FILE"),
    );
}

#[test]
fn hls_of_other_configurations_decodes() {
    assert_file_of_standby_decodes(&of_other_file(100), HOLE, "other.m3u8", HLS);
}

#[test]
fn hls_of_twenty_changes_decodes() {
    assert_file_decodes("out.m3u8", HLS);
}

/// Asserts that a sink that shows pictures in time has all of them.
#[track_caller]
fn assert_pictures_have_no_hole(standby: &str, downstream: &str) {
    // The machine of a test may be slow, and what is shown is the same.
    let text = downstream.replace(
        "SINK",
        "fakesink name=sink sync=true max-lateness=5000000000",
    );
    let recorder = Recorder::start_into(standby, &text);
    let times = times_at(&recorder.pipeline, "sink", "sink");
    change_often(&recorder);
    let shown = times.lock().unwrap().clone();
    assert!(shown.len() > 60, "{}", shown.len());
    // No change misses more than a frame.
    assert_no_hole(&shown, 2 * FRAME + 1_000_000);
    let sink = recorder.pipeline.by_name("sink").unwrap();
    let stats: gst::Structure = sink.property("stats");
    assert_eq!(stats.get::<u64>("dropped"), Ok(0), "{stats}");
}

const DECODED: &str = "eflvdemux name=d d.video_0 ! queue ! h264parse ! avdec_h264 ! SINK \
                       d.audio_0 ! queue ! aacparse ! avdec_aac ! fakesink sync=false";

const DECODED_BY_BINS: &str = "eflvdemux name=d d.video_0 ! queue ! decodebin3 ! SINK \
                               d.audio_0 ! queue ! decodebin3 ! fakesink sync=false";

#[test]
fn decoder_and_synchronised_sink_miss_no_frame_in_twenty_changes() {
    assert_pictures_have_no_hole(&of_file(100), DECODED);
}

#[test]
fn decoder_goes_through_other_configurations() {
    assert_pictures_have_no_hole(&of_other_file(100), DECODED);
}

#[test]
fn decodebin3_goes_through_twenty_changes() {
    assert_pictures_have_no_hole(&of_file(100), DECODED_BY_BINS);
}

#[test]
fn decodebin3_goes_through_other_configurations() {
    assert_pictures_have_no_hole(&of_other_file(100), DECODED_BY_BINS);
}
