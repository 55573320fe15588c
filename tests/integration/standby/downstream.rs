// SPDX-License-Identifier: MPL-2.0

//! Elements downstream go through the changes between publisher and standby.

use super::*;

/// Publishers of a test. Each one means two changes.
const ROUNDS: usize = 10;

/// Lets publishers come and go at seeded times.
fn change_often(recorder: &Recorder) {
    let mut random = fastrand::Rng::with_seed(11);
    for round in 1..=ROUNDS {
        started(recorder, round);
        let client = publish(recorder, &media(random.usize(3..15)));
        ended(recorder, round);
        drop(client);
    }
    started(recorder, ROUNDS + 1);
    recorder.element.send_event(gst::event::Eos::new());
    recorder.wait_for(gst::MessageType::Eos);
}

#[track_caller]
fn assert_file_decodes(name: &str, downstream: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    let text = downstream.replace("FILE", &file.display().to_string());
    let recorder = Recorder::start_into(&of_file(100), &text);
    change_often(&recorder);
    assert_no_hole(&video_times(&recorder), HOLE);
    drop(recorder);
    assert_decodes(&file);
}

const DEMUXED: &str = "eflvdemux name=d d.video_0 ! queue ! h264parse ! muxer. \
                       d.audio_0 ! queue ! aacparse ! muxer.";

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
fn hls_of_twenty_changes_decodes() {
    let text = "eflvdemux name=d d.video_0 ! queue ! h264parse ! muxer.video \
                d.audio_0 ! queue ! aacparse ! muxer.audio \
                hlssink2 name=muxer max-files=0 playlist-length=0 target-duration=1 \
                location=FILE-%05d.ts playlist-location=FILE";
    assert_file_decodes("out.m3u8", text);
}

/// Asserts that a sink that shows pictures in time has all of them.
#[track_caller]
fn assert_pictures_have_no_hole(downstream: &str) {
    // The machine of a test may be slow, and what is shown is the same.
    let text = downstream.replace(
        "SINK",
        "fakesink name=sink sync=true max-lateness=5000000000",
    );
    let recorder = Recorder::start_into(&of_file(100), &text);
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

#[test]
fn decoder_and_synchronised_sink_miss_no_frame_in_twenty_changes() {
    assert_pictures_have_no_hole(
        "eflvdemux name=d d.video_0 ! queue ! h264parse ! avdec_h264 ! SINK \
         d.audio_0 ! queue ! aacparse ! avdec_aac ! fakesink sync=false",
    );
}

#[test]
fn decodebin3_goes_through_twenty_changes() {
    assert_pictures_have_no_hole(
        "eflvdemux name=d d.video_0 ! queue ! decodebin3 ! SINK \
         d.audio_0 ! queue ! decodebin3 ! fakesink sync=false",
    );
}
