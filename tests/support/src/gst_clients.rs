// SPDX-License-Identifier: MPL-2.0

//! GStreamer's own publishers.

use std::path::Path;
use std::process::Command;

use super::clients::Running;

/// Publishes H.264 and AAC from a file with flvmux and this sink. The input of the sink is left in
/// a second file, since flvmux makes metadata and times of its own.
pub fn publish_with(sink: &str, file: &Path, url: &str, copy: &Path) -> Running {
    let text = format!(
        "-q filesrc location={} ! flvdemux name=demuxer flvmux name=muxer streamable=true ! \
         tee name=both ! queue ! {sink} location={url} both. ! queue ! filesink location={} \
         demuxer.video ! h264parse ! queue max-size-bytes=0 max-size-buffers=0 ! muxer. \
         demuxer.audio ! aacparse ! queue max-size-bytes=0 max-size-buffers=0 ! muxer.",
        file.display(),
        copy.display()
    );
    let mut command = Command::new("gst-launch-1.0");
    command.args(text.split_whitespace());
    Running::spawn(&mut command)
}
