// SPDX-License-Identifier: MPL-2.0

//! The sample files of AV1 and Opus of the Enhanced RTMP project.

use std::path::Path;

use super::codecs::assert_as_ffmpeg;
use support::{init, rendered};

/// Frames of video and packets of audio in each.
const SAMPLES: [(&str, u64, u64); 2] = [("testsrc.flv", 300, 501), ("mptestsrc.flv", 342, 501)];

#[test]
fn samples_of_the_specification_play() {
    init();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/enhanced-rtmp");
    for (name, frames, packets) in SAMPLES {
        let file = folder.join(name);
        assert_as_ffmpeg(&file, &["audio_0", "video_0"]);
        for (pad, count) in [("video_0", frames), ("audio_0", packets)] {
            let text = format!(
                "filesrc location={} ! eflvdemux name=d d.{pad} ! queue ! decodebin ! \
                 fakesink name=sink sync=false",
                file.display()
            );
            let pipeline = gst::parse::launch(&text).unwrap();
            assert_eq!(rendered(&pipeline), count, "{name}: {pad}");
        }
    }
}
