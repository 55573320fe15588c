// SPDX-License-Identifier: MPL-2.0

//! A publisher that starts after the pipeline has been playing for a while.

use gst::prelude::*;

use support::clients::{FFMPEG, publish};
use support::media;
use support::recorder::Recorder;

/// The running time at which the publisher starts. Without a segment that starts then, all frames
/// would be that late.
const DELAY: gst::ClockTime = gst::ClockTime::from_seconds(4);

/// The sink drops frames later than this. A busy machine renders a frame late now and then.
const MAX_LATENESS: gst::ClockTime = gst::ClockTime::from_seconds(1);

/// Frames in the file that is published.
const FRAMES: u64 = 60;

#[test]
fn a_live_sink_renders_every_frame_of_a_late_publisher() {
    // Video sinks drop late frames by default; other sinks must be configured to.
    let downstream = format!(
        "flvdemux name=demuxer demuxer.audio ! queue ! fakesink async=false \
         demuxer.video ! queue ! h264parse ! avdec_h264 ! \
         fakesink name=sink sync=true async=false max-lateness={}",
        MAX_LATENESS.nseconds()
    );
    let recorder = Recorder::start_into("", &downstream);
    let file = media::small(2);
    let pipeline = &recorder.pipeline;
    pipeline.state(gst::ClockTime::from_seconds(60)).0.unwrap();
    let clock = pipeline.clock().unwrap();
    let start = pipeline.base_time().unwrap() + DELAY;
    clock.new_single_shot_id(start).wait().0.unwrap();
    publish(FFMPEG, &file, true, &recorder.url("live/key")).succeed();
    recorder.finish();
    let sink = pipeline.by_name("sink").unwrap();
    let stats = sink.property::<gst::Structure>("stats");
    assert_eq!(stats.get::<u64>("dropped"), Ok(0), "{stats}");
    assert_eq!(stats.get::<u64>("rendered"), Ok(FRAMES), "{stats}");
}
