#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Publishes a generated stream into a recording pipeline, and prints what was captured.

The exit code is 0 only if every frame that was sent is in the recording.
"""

import argparse
import pathlib
import re
import sys

import harness

# identity's line for a buffer. A decoder can start there unless the flags include delta-unit or header.
BUFFER_LINE = re.compile(r"last-message = chain .*flags: [0-9a-f]+ ([a-z -]*)")


def first_frame(pipeline):
    """Returns the time of the first buffer that a decoder can start with."""
    for when, buffer in pipeline.matches(BUFFER_LINE):
        flags = buffer.group(1).split()
        if "header" not in flags and "delta-unit" not in flags:
            return when
    raise harness.Failure(f"no keyframe was seen by {pipeline}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=10, help="length of the stream")
    parser.add_argument("--output", type=pathlib.Path, default=harness.TARGET / "demo.flv")
    options = parser.parse_args()

    options.output.unlink(missing_ok=True)
    description = [
        "rtmp2serversrc", "port=0", "!",
        "identity", "silent=false", "!",
        "filesink", f"location={options.output}",
    ]
    with harness.launch(description) as pipeline:
        port = harness.port_of(pipeline)
        url = f"rtmp://127.0.0.1:{port}/live/demo"
        print("pipeline            ", *pipeline.arguments)
        print("publishing to       ", url, "with ffmpeg", flush=True)
        arguments = [*harness.generated(options.seconds), "-f", "flv", url]
        with harness.ffmpeg(arguments) as publisher:
            publisher.finish(options.seconds + 30)
            sent = harness.frames_sent(publisher)
        pipeline.finish()
        waited = first_frame(pipeline) - publisher.started

    captured = harness.packets(options.output)
    print("recorded to         ", options.output, f"({options.output.stat().st_size} bytes)")
    print("frames sent         ", sent)
    print("frames recorded     ", captured["video"])
    print("audio packets       ", captured["audio"])
    print("time to first frame ", f"{waited * 1000:.0f} ms, ffmpeg's own start included")
    if sent == 0 or captured["video"] != sent:
        raise harness.Failure(f"{sent} frames were sent and {captured['video']} recorded")
    if captured["audio"] == 0:
        raise harness.Failure("no audio was recorded")


if __name__ == "__main__":
    try:
        main()
    except harness.Failure as failure:
        sys.exit(f"demo: {failure}")
