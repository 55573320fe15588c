// SPDX-License-Identifier: MPL-2.0

//! What is downstream goes on over the loss of its publisher, and over another one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gst::prelude::*;

use crate::support::clients::{FFMPEG, ffmpeg, publish};
use crate::support::flv;
use crate::support::media::{made_by, small};
use crate::support::raw::{RawClient, unpublish};
use crate::support::recorder::Recorder;
use crate::support::signals::Signals;
use crate::support::wire::Wire;

const RECONNECTS: u64 = 10;

/// In the file that is published each time.
const FRAMES: u64 = 30;

/// Longer than any test: who is cut off comes back.
const PATIENT: &str = "resume-timeout=600000";

/// Publishes a second of video over and over, cut off each time. The last one stays.
fn publish_again_and_again(recorder: &Recorder, between: impl Fn(u64)) -> RawClient {
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
        // Added and removed. Who comes back while there is much to be read of it is not awaited long.
        signals.wait_for(2 * round as usize);
        between(round);
    }
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    client.send(&bytes);
    client
}

/// Errors of decoding a file are none, and it has so many frames of video.
fn assert_plays_whole(file: &Path, frames: u64) {
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
    // A transport stream says it twice, for its program and for itself.
    let text = String::from_utf8(output.stdout).unwrap();
    let first = text.split_whitespace().next().unwrap_or_default();
    assert_eq!(first.trim_end_matches(','), frames.to_string());
}

/// Counts what passes a pad of an element of the recorder's pipeline.
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

/// Waits for a count, which grows by itself.
#[track_caller]
fn wait_for(count: &AtomicU64, least: u64) {
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while count.load(Ordering::SeqCst) < least {
        let is_late = std::time::Instant::now() > deadline;
        assert!(!is_late, "{} of {least}", count.load(Ordering::SeqCst));
        std::thread::yield_now();
    }
}

/// What this muxer makes of ten reconnects plays whole.
#[track_caller]
fn check_muxer(muxer: &str, name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    let sink = format!(
        "flvdemux name=demuxer {muxer} name=muxer ! filesink location={} \
         demuxer.video ! h264parse ! queue ! muxer. demuxer.audio ! aacparse ! queue ! muxer.",
        file.display()
    );
    let recorder = Recorder::start_into(PATIENT, &sink);
    unpublish(publish_again_and_again(&recorder, |_| {}));
    recorder.wait_for(gst::MessageType::Eos);
    assert_plays_whole(&file, (RECONNECTS + 1) * FRAMES);
}

#[test]
fn an_mp4_file_of_ten_reconnects_plays_whole() {
    check_muxer("mp4mux", "out.mp4");
}

#[test]
fn a_transport_stream_of_ten_reconnects_plays_whole() {
    check_muxer("mpegtsmux latency=2000000000", "out.ts");
}

#[test]
fn a_live_sink_shows_every_frame_of_ten_reconnects() {
    // What is five seconds late is dropped: times that did not go on would be later than that half the way.
    let recorder = Recorder::start_into(
        PATIENT,
        "flvdemux name=demuxer demuxer.audio ! queue ! fakesink async=false \
         demuxer.video ! queue ! h264parse ! avdec_h264 ! \
         fakesink name=sink sync=true async=false max-lateness=5000000000",
    );
    unpublish(publish_again_and_again(&recorder, |_| {}));
    recorder.wait_for(gst::MessageType::Eos);
    let sink = recorder.pipeline.by_name("sink").unwrap();
    let stats: gst::Structure = sink.property("stats");
    assert_eq!(stats.get::<u64>("dropped"), Ok(0), "{stats}");
    let rendered = stats.get::<u64>("rendered");
    assert_eq!(rendered, Ok((RECONNECTS + 1) * FRAMES), "{stats}");
}

#[test]
fn a_compositor_goes_on_while_its_publisher_is_away() {
    let recorder = Recorder::start_into(
        PATIENT,
        "flvdemux name=demuxer demuxer.audio ! queue ! fakesink async=false sync=false \
         demuxer.video ! queue ! h264parse ! avdec_h264 name=decoder ! videoconvert ! \
         compositor name=mixer ! fakesink name=sink async=false sync=true \
         videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=30/1 ! mixer.",
    );
    let mixed = count(&recorder, "sink", "sink", gst::PadProbeType::BUFFER);
    let decoded = count(&recorder, "decoder", "src", gst::PadProbeType::BUFFER);
    let client = publish_again_and_again(&recorder, |round| {
        wait_for(&decoded, round * FRAMES);
        // Nobody publishes.
        wait_for(&mixed, mixed.load(Ordering::SeqCst) + 10);
    });
    wait_for(&decoded, (RECONNECTS + 1) * FRAMES);
    unpublish(client);
}

/// 640x360 and 44.1 kHz, where [`small`] has 320x240 and 48 kHz.
fn other() -> PathBuf {
    let arguments = "-f lavfi -i testsrc=size=640x360:rate=30 \
                     -f lavfi -i sine=frequency=440:sample_rate=44100 -t 1 \
                     -c:v libx264 -preset ultrafast -g 30 -c:a aac -f flv";
    made_by(FFMPEG, "other-1.flv", arguments)
}

#[test]
fn another_resolution_and_sample_rate_change_caps_once_for_each_track() {
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
    publish(FFMPEG, &other(), false, &recorder.url("live/key")).succeed();
    // A decoder keeps its last frames until there is more.
    publish(FFMPEG, &other(), false, &recorder.url("live/key")).succeed();
    wait_for(&decoded, 2 * FRAMES);
    assert_eq!(now(), [2; 4]);
    assert_eq!(recorder.element.property::<u64>("epoch"), 3);
}

/// The application knows that it will not.
#[test]
fn who_was_cut_off_need_not_be_awaited() {
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
    is_lost.recv_timeout(crate::support::PATIENCE).unwrap();
    element.emit_by_name::<()>("disconnect-publisher", &[]);
    recorder.wait_for(gst::MessageType::Eos);
}
