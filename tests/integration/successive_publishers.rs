// SPDX-License-Identifier: MPL-2.0

//! Publishers after each other in one stream.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use gst::prelude::*;

use support::clients::{FFMPEG, publish};
use support::flv::{self, Tag};
use support::recorder::Recorder;
use support::{PATIENCE, media};

/// Frames in each file that is published.
const FRAMES: usize = 60;

/// Decodes an FLV stream through flvdemux and returns the number of decoded frames.
fn decoded_frames(flv: &[u8]) -> usize {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(flv).unwrap();
    let text = format!(
        "filesrc location={} ! flvdemux ! h264parse ! avdec_h264 ! \
         fakesink name=sink sync=false signal-handoffs=true",
        file.path().display()
    );
    let pipeline = gst::parse::launch(&text).unwrap();
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    let count = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    pipeline
        .by_name("sink")
        .unwrap()
        .connect("handoff", false, move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            None
        });
    pipeline.set_state(gst::State::Playing).unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let patience = gst::ClockTime::try_from(PATIENCE).unwrap();
    let message = pipeline.bus().unwrap().timed_pop_filtered(patience, &kinds);
    pipeline.set_state(gst::State::Null).unwrap();
    let message = message.expect("the stream ends");
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    count.load(Ordering::Relaxed)
}

#[test]
fn three_publishers_make_one_stream_that_plays_completely() {
    let recorder = Recorder::start("keep-listening=true");
    let file = media::small(2);
    let sent = flv::media(&flv::read_file(&file));
    let sent: Vec<Tag> = sent
        .into_iter()
        .filter(|tag| !tag.is_end_of_sequence())
        .collect();
    let mut seen = 0;
    let mut per_publisher = Vec::new();
    for _ in 0..3 {
        publish(FFMPEG, &file, false, &recorder.url("live/key")).succeed();
        recorder.wait_until("all of a publisher", |buffers| {
            let media = |b: &&gst::Buffer| b.map_readable().unwrap()[0] & 0x1E == 8;
            buffers.iter().filter(media).count() == seen + sent.len()
        });
        seen += sent.len();
    }
    recorder.pipeline.send_event(gst::event::Eos::new());
    let tags = flv::media(&recorder.finish());
    let tags: Vec<Tag> = tags
        .into_iter()
        .filter(|tag| !tag.is_end_of_sequence())
        .collect();
    for part in tags.chunks(sent.len()) {
        flv::assert_same_media(&sent, part);
        per_publisher.push((part[0].timestamp, part[part.len() - 1].timestamp));
    }
    assert_eq!(per_publisher.len(), 3);
    for pair in per_publisher.windows(2) {
        assert!(pair[1].0 > pair[0].1, "{per_publisher:?}");
    }
    // `flv::parse` rejects a second file header, and the whole stream decodes.
    assert_eq!(decoded_frames(&recorder.bytes()), 3 * FRAMES);
}
