#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""Hands every decoded picture of an RTMP publisher, in any codec, to Python code, which prints its brightness here.

Waits for the next publisher after each, unless --once is given. Ctrl-C ends it.
"""

import argparse
import datetime
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

PIPELINE = """
    rtmp2serverbin name=source source.video_0
    ! queue ! decodebin3 ! videoconvert ! video/x-raw,format=GRAY8
    ! appsink name=sink emit-signals=true sync=false max-buffers=4
"""


def epoch(buffer):
    meta = buffer.get_reference_timestamp_meta(Gst.Caps.from_string("timestamp/x-rtmp"))
    return meta and meta.reference.get_structure(0).get_value("epoch")


def time_of_day(buffer):
    """Returns when the picture was captured, in UTC, if the publisher states it."""
    meta = buffer.get_reference_timestamp_meta(Gst.Caps.from_string("timestamp/x-unix"))
    return meta and datetime.datetime.fromtimestamp(meta.timestamp / Gst.SECOND, datetime.timezone.utc)


class Frames:
    def __init__(self, port, once):
        self.loop = GLib.MainLoop()
        self.failed = False
        self.frames = 0
        self.epoch = None
        self.pipeline = Gst.parse_launch(PIPELINE)
        source = self.pipeline.get_by_name("source")
        source.set_property("port", port)
        source.set_property("keep-listening", not once)
        source.connect("notify::current-port", self.on_port)
        self.pipeline.get_by_name("sink").connect("new-sample", self.on_sample)
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::eos", self.on_eos)
        bus.connect("message::error", self.on_error)

    def run(self):
        GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, 2, self.on_interrupt)
        self.pipeline.set_state(Gst.State.PLAYING)
        self.loop.run()
        self.pipeline.set_state(Gst.State.NULL)
        print(f"{self.frames} frames")
        return 1 if self.failed else 0

    def on_port(self, source, _):
        port = source.get_property("current-port")
        if port:
            print(f"listening on rtmp://127.0.0.1:{port}/", flush=True)

    def on_sample(self, sink):
        """Runs in the streaming thread, once for each picture."""
        buffer = sink.emit("pull-sample").get_buffer()
        if self.epoch != epoch(buffer):
            self.epoch = epoch(buffer)
            print(f"epoch {self.epoch}", flush=True)
        pixels = buffer.extract_dup(0, buffer.get_size())
        self.frames += 1
        if self.frames % 30 == 1:
            brightness = sum(pixels) / len(pixels)
            captured = time_of_day(buffer) or ""
            print(f"{buffer.pts / Gst.SECOND:8.3f} s  brightness {brightness:5.1f}  {captured}".rstrip(), flush=True)
        return Gst.FlowReturn.OK

    def on_interrupt(self):
        """Decodes what has arrived. Without a publisher there is no stream that could end."""
        if self.frames:
            self.pipeline.send_event(Gst.Event.new_eos())
        else:
            self.loop.quit()
        return GLib.SOURCE_CONTINUE

    def on_eos(self, _bus, _message):
        self.loop.quit()

    def on_error(self, _bus, message):
        error, detail = message.parse_error()
        print(f"{message.src.get_name()}: {error.message}\n{detail or ''}", file=sys.stderr)
        self.failed = True
        self.loop.quit()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=1935, help="0 takes any free one")
    parser.add_argument("--once", action="store_true", help="end with the first publisher")
    options = parser.parse_args()
    Gst.init(None)
    if Gst.ElementFactory.find("rtmp2serverbin") is None:
        return "GStreamer has no rtmp2serverbin: is GST_PLUGIN_PATH set?"
    return Frames(options.port, options.once).run()


if __name__ == "__main__":
    sys.exit(main())
