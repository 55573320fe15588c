// SPDX-License-Identifier: MPL-2.0

//! Downstream elements continue across the loss of a publisher, and across a new one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gst::prelude::*;

use support::clients::{FFMPEG, ffmpeg, publish};
use support::flv;
use support::media::{made_by, small};
use support::raw::{RawClient, unpublish};
use support::recorder::Recorder;
use support::signals::Signals;
use support::wire::Wire;

const RECONNECTS: u64 = 10;

/// Frames in the file that is published each time.
const FRAMES: u64 = 30;

/// A resume timeout longer than any test: the publisher always returns in time.
const PATIENT: &str = "resume-timeout=600000";

/// Publishes a second of video repeatedly, cut off each time. The last client is returned, still
/// connected.
fn publish_repeatedly(recorder: &Recorder, between: impl Fn(u64)) -> RawClient {
    let tags = flv::read_file(&small(1));
    let bytes: Vec<u8> = tags
        .iter()
        .filter(|tag| tag.kind != flv::SCRIPT)
        .flat_map(|tag| Wire::of(tag).absolute(tag).concat())
        .collect();
    let signals = Signals::watch(&recorder.element);
    for round in 1..=RECONNECTS {
        let mut client = RawClient::publish(recorder.port(), "live", "key");
        client.send(&bytes);
        drop(client);
        // Added and removed. A successor waits only briefly for unread data of its predecessor, so
        // the loss comes first.
        signals.wait_for(2 * round as usize);
        between(round);
    }
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    client.send(&bytes);
    client
}

/// Asserts that a file decodes without errors, and has this number of video frames.
fn assert_plays_completely(file: &Path, frames: u64) {
    let arguments = format!("-i {} -f null -", file.display());
    let output = ffmpeg(FFMPEG, &arguments).wait();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.is_empty(), "{errors}");
    let output = std::process::Command::new("ffprobe")
        .args("-v error -count_frames -select_streams v".split(' '))
        .args("-show_entries stream=nb_read_frames -of csv=p=0".split(' '))
        .arg(file)
        .output()
        .unwrap();
    // ffprobe prints the count of a transport stream twice: for its program and for the stream.
    let text = String::from_utf8(output.stdout).unwrap();
    let first = text.split_whitespace().next().unwrap_or_default();
    assert_eq!(first.trim_end_matches(','), frames.to_string());
}

/// Counts buffers, or CAPS events, that pass a pad of an element of the recorder's pipeline.
fn count(recorder: &Recorder, element: &str, pad: &str, kind: gst::PadProbeType) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    let element = recorder.pipeline.by_name(element).unwrap();
    let pad = element.static_pad(pad).unwrap();
    pad.add_probe(kind, move |_, info| {
        let counts = match &info.data {
            Some(gst::PadProbeData::Event(event)) => event.type_() == gst::EventType::Caps,
            _ => true,
        };
        counted.fetch_add(u64::from(counts), Ordering::SeqCst);
        gst::PadProbeReturn::Ok
    });
    count
}

/// Waits until a counter of another thread has reached a value.
#[track_caller]
fn wait_for(count: &AtomicU64, least: u64) {
    let deadline = std::time::Instant::now() + support::PATIENCE;
    while count.load(Ordering::SeqCst) < least {
        let is_late = std::time::Instant::now() > deadline;
        assert!(!is_late, "{} of {least}", count.load(Ordering::SeqCst));
        std::thread::yield_now();
    }
}

/// Asserts that the output of this muxer plays completely after ten reconnects.
#[track_caller]
fn assert_muxer_output_plays(muxer: &str, name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    let sink = format!(
        "flvdemux name=demuxer {muxer} name=muxer ! filesink location={} \
         demuxer.video ! h264parse ! queue ! muxer. demuxer.audio ! aacparse ! queue ! muxer.",
        file.display()
    );
    let recorder = Recorder::start_into(PATIENT, &sink);
    unpublish(publish_repeatedly(&recorder, |_| {}));
    recorder.wait_for(gst::MessageType::Eos);
    assert_plays_completely(&file, (RECONNECTS + 1) * FRAMES);
}

#[test]
fn an_mp4_file_of_ten_reconnects_plays_completely() {
    assert_muxer_output_plays("mp4mux", "out.mp4");
}

#[test]
fn a_transport_stream_of_ten_reconnects_plays_completely() {
    assert_muxer_output_plays("mpegtsmux latency=2000000000", "out.ts");
}

#[test]
fn a_live_sink_renders_every_frame_of_ten_reconnects() {
    // Frames five seconds late are dropped. Without a continuous timeline, frames would be later
    // than that from the middle on.
    let recorder = Recorder::start_into(
        PATIENT,
        "flvdemux name=demuxer demuxer.audio ! queue ! fakesink async=false \
         demuxer.video ! queue ! h264parse ! avdec_h264 ! \
         fakesink name=sink sync=true async=false max-lateness=5000000000",
    );
    unpublish(publish_repeatedly(&recorder, |_| {}));
    recorder.wait_for(gst::MessageType::Eos);
    let sink = recorder.pipeline.by_name("sink").unwrap();
    let stats: gst::Structure = sink.property("stats");
    assert_eq!(stats.get::<u64>("dropped"), Ok(0), "{stats}");
    let rendered = stats.get::<u64>("rendered");
    assert_eq!(rendered, Ok((RECONNECTS + 1) * FRAMES), "{stats}");
}

#[test]
fn a_compositor_keeps_running_while_its_publisher_is_away() {
    let recorder = Recorder::start_into(
        PATIENT,
        "flvdemux name=demuxer demuxer.audio ! queue ! fakesink async=false sync=false \
         demuxer.video ! queue ! h264parse ! avdec_h264 name=decoder ! videoconvert ! \
         compositor name=mixer ! fakesink name=sink async=false sync=true \
         videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=30/1 ! mixer.",
    );
    let mixed = count(&recorder, "sink", "sink", gst::PadProbeType::BUFFER);
    let decoded = count(&recorder, "decoder", "src", gst::PadProbeType::BUFFER);
    let client = publish_repeatedly(&recorder, |round| {
        wait_for(&decoded, round * FRAMES);
        // No publisher is present now.
        wait_for(&mixed, mixed.load(Ordering::SeqCst) + 10);
    });
    wait_for(&decoded, (RECONNECTS + 1) * FRAMES);
    unpublish(client);
}

/// 640x360 and 44.1 kHz, where [`small`] has 320x240 and 48 kHz.
fn other_format() -> PathBuf {
    let arguments = "-f lavfi -i testsrc=size=640x360:rate=30 \
                     -f lavfi -i sine=frequency=440:sample_rate=44100 -t 1 \
                     -c:v libx264 -preset ultrafast -g 30 -c:a aac -f flv";
    made_by(FFMPEG, "other_format-1.flv", arguments)
}

#[test]
fn a_new_resolution_and_sample_rate_change_caps_once_for_each_track() {
    let recorder = Recorder::start_into(
        "keep-listening=true",
        "eflvdemux name=d \
         d.video_0 ! queue name=video ! h264parse ! avdec_h264 name=pictures ! \
         fakesink sync=false async=false \
         d.audio_0 ! queue name=audio ! aacparse ! avdec_aac name=samples ! \
         fakesink sync=false async=false",
    );
    let events = gst::PadProbeType::EVENT_DOWNSTREAM;
    let caps = ["video", "audio", "pictures", "samples"].map(|name| {
        let pad = if name.ends_with("o") { "sink" } else { "src" };
        count(&recorder, name, pad, events)
    });
    let decoded = count(&recorder, "pictures", "src", gst::PadProbeType::BUFFER);
    let now = || caps.each_ref().map(|count| count.load(Ordering::SeqCst));
    publish(FFMPEG, &small(1), false, &recorder.url("live/key")).succeed();
    publish(FFMPEG, &other_format(), false, &recorder.url("live/key")).succeed();
    // A decoder keeps its last frames until more follow.
    publish(FFMPEG, &other_format(), false, &recorder.url("live/key")).succeed();
    wait_for(&decoded, 2 * FRAMES);
    // Audio has threads of its own.
    caps.iter().for_each(|count| wait_for(count, 2));
    assert_eq!(now(), [2; 4]);
    assert_eq!(recorder.element.property::<u64>("epoch"), 3);
}

/// The application knows that the publisher will not return.
#[test]
fn disconnect_publisher_ends_the_wait_for_a_return() {
    let recorder = Recorder::start(PATIENT);
    let element = recorder.pipeline.by_name("src").unwrap();
    let (lost, is_lost) = std::sync::mpsc::channel();
    let lost = std::sync::Mutex::new(lost);
    element.connect("publisher-removed", false, move |_| {
        let _ = lost.lock().unwrap().send(());
        None
    });
    let client = RawClient::publish(recorder.port(), "live", "key");
    drop(client);
    is_lost.recv_timeout(support::PATIENCE).unwrap();
    element.emit_by_name::<()>("disconnect-publisher", &[]);
    recorder.wait_for(gst::MessageType::Eos);
}
