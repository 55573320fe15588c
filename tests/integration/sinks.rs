// SPDX-License-Identifier: MPL-2.0

//! Sinks that serve many clients.

use support::clients::{FFMPEG, ffmpeg, publish};
use support::media::small;
use support::recorder::Recorder;

#[test]
fn a_late_client_gets_the_stream_header_and_decodes() {
    let sink = "tcpserversink name=sink host=127.0.0.1 port=0 sync=false sync-method=next-keyframe";
    let recorder = Recorder::start_into("", sink);
    let publisher = publish(FFMPEG, &small(6), true, &recorder.url("live/key"));
    recorder.wait_until("a second of the stream", |buffers| buffers.len() > 80);
    let sink = gst::prelude::GstBinExt::by_name(&recorder.pipeline, "sink").unwrap();
    let port: i32 = gst::prelude::ObjectExt::property(&sink, "current-port");
    // The client gets the stream headers and the present end of the stream, and decodes without
    // errors.
    let arguments = format!("-xerror -f flv -i tcp://127.0.0.1:{port} -t 1 -f null -");
    let output = ffmpeg(FFMPEG, &arguments).wait();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
    drop(publisher);
}
