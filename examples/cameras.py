#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""Hands the newest picture of each of many cameras to Python code, as a numpy array in OpenCV's colour order.

Every publisher of rtmp://HOST:PORT/live/NAME is a camera, in whatever codec. Pictures that come while `look_at` is busy are
replaced by newer ones. Once a second each camera prints its frame rate. Needs numpy; --show needs OpenCV too. Ctrl-C ends it.
"""

import argparse
import sys
import threading
import time
import traceback

import gi
import numpy

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

try:
    import cv2
except ImportError:
    cv2 = None

DECODER = """
    eflvdemux name=demux demux.video_0 ! queue ! decodebin3 ! videoconvert ! video/x-raw,format=BGR
    ! appsink name=sink emit-signals=true sync=false max-buffers=1 drop=true
"""


def look_at(name, picture):
    """Is called with each picture that is looked at: an array of rows, columns and blue, green, red. Put your code here."""
    return f"brightness {picture[::8, ::8].mean():5.1f}"


def to_array(sample):
    """Copies a picture out of GStreamer's memory, whose rows may be longer than the picture is wide."""
    caps = sample.get_caps().get_structure(0)
    width, height = caps.get_value("width"), caps.get_value("height")
    buffer = sample.get_buffer()
    is_mapped, memory = buffer.map(Gst.MapFlags.READ)
    if not is_mapped:
        raise RuntimeError("the picture is not in readable memory")
    try:
        row = memory.size // height
        return numpy.ndarray((height, width, 3), numpy.uint8, memory.data, strides=(row, 3, 1)).copy()
    finally:
        buffer.unmap(memory)


class Camera:
    def __init__(self, cameras, pad):
        self.name = f"{pad.get_property('application')}/{pad.get_property('stream-key')}"
        self.cameras = cameras
        self.pad = pad
        self.newest = None
        self.decoded = self.used = self.decoded_before = 0
        self.counted_at = time.monotonic()
        self.result = ""
        self.bin = Gst.parse_bin_from_description(DECODER, False)
        entry = self.bin.get_by_name("demux").get_static_pad("sink")
        self.bin.add_pad(Gst.GhostPad.new("sink", entry))
        sink = self.bin.get_by_name("sink")
        sink.connect("new-sample", self.on_sample)
        sink.connect("eos", lambda _: GLib.idle_add(cameras.remove, self))

    def on_sample(self, sink):
        """Runs in the streaming thread of the camera, once for each picture."""
        sample = sink.emit("pull-sample")
        with self.cameras.changed:
            self.decoded += 1
            self.newest = sample
            self.cameras.changed.notify()
        return Gst.FlowReturn.OK

    def report(self):
        now, decoded = time.monotonic(), self.decoded
        rate = (decoded - self.decoded_before) / (now - self.counted_at)
        self.counted_at, self.decoded_before = now, decoded
        print(f"{self.name}: {rate:.1f} fps, {decoded - self.used} skipped, {self.result}", flush=True)


class Cameras:
    def __init__(self, options):
        self.options = options
        self.loop = GLib.MainLoop()
        self.failed = False
        self.cameras = []
        # Guards the newest pictures, and tells that there is one.
        self.changed = threading.Condition()
        self.is_over = False
        self.pipeline = Gst.Pipeline.new()
        self.source = Gst.ElementFactory.make("rtmp2multiserversrc")
        self.source.set_property("port", options.port)
        self.source.set_property("application", "live")
        self.source.connect("pad-added", self.on_pad)
        self.source.connect("notify::current-port", self.on_port)
        self.pipeline.add(self.source)
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", self.on_error)

    def run(self):
        GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, 2, self.loop.quit)
        GLib.timeout_add_seconds(1, self.report)
        worker = threading.Thread(target=self.work)
        worker.start()
        self.pipeline.set_state(Gst.State.PLAYING)
        self.loop.run()
        with self.changed:
            self.is_over = True
            self.changed.notify()
        worker.join()
        self.pipeline.set_state(Gst.State.NULL)
        return 1 if self.failed else 0

    def work(self):
        """Looks at pictures until the end. An error of the code that does ends the program, which would go on without it."""
        try:
            self.look()
        except Exception:
            traceback.print_exc()
            self.failed = True
            GLib.idle_add(self.loop.quit)

    def look(self):
        """Looks at the newest picture of each camera in turn."""
        windows = set()
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.is_over or any(camera.newest for camera in self.cameras))
                if self.is_over:
                    return
                names = {camera.name for camera in self.cameras}
                fresh = [(camera, camera.newest) for camera in self.cameras if camera.newest]
                for camera, _ in fresh:
                    camera.newest = None
                    camera.used += 1
            for camera, sample in fresh:
                picture = to_array(sample)
                camera.result = f"{picture.shape[1]}x{picture.shape[0]}, {look_at(camera.name, picture)}"
                if self.options.show:
                    cv2.imshow(camera.name, picture)
                    windows.add(camera.name)
            if self.options.show:
                for name in windows - names:
                    cv2.destroyWindow(name)
                windows &= names
                cv2.waitKey(1)

    def on_port(self, source, _):
        port = source.get_property("current-port")
        if port:
            print(f"listening on rtmp://127.0.0.1:{port}/live/", flush=True)

    def on_pad(self, _source, pad):
        """Runs in the thread of the publisher, whose media waits meanwhile."""
        camera = Camera(self, pad)
        with self.changed:
            self.cameras.append(camera)
        print(f"{camera.name}: connected", flush=True)
        self.pipeline.add(camera.bin)
        camera.bin.sync_state_with_parent()
        pad.link(camera.bin.get_static_pad("sink"))

    def remove(self, camera):
        """Ends a camera whose last picture has come, or that has failed."""
        with self.changed:
            if camera not in self.cameras:
                return GLib.SOURCE_REMOVE
            self.cameras.remove(camera)
        print(f"{camera.name}: ended after {camera.decoded} pictures", flush=True)
        camera.pad.unlink(camera.bin.get_static_pad("sink"))
        camera.bin.set_state(Gst.State.NULL)
        self.pipeline.remove(camera.bin)
        if self.options.once and not self.cameras:
            self.loop.quit()
        return GLib.SOURCE_REMOVE

    def report(self):
        for camera in self.cameras:
            camera.report()
        return GLib.SOURCE_CONTINUE

    def on_error(self, _bus, message):
        """Ends the camera that an error belongs to, or the program."""
        error, detail = message.parse_error()
        print(f"{message.src.get_name()}: {error.message}\n{detail or ''}", file=sys.stderr)
        for camera in self.cameras:
            if message.src == camera.bin or message.src.has_as_ancestor(camera.bin):
                self.remove(camera)
                return
        self.failed = True
        self.loop.quit()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=1935, help="0 takes any free one")
    parser.add_argument("--once", action="store_true", help="end when all cameras have left")
    parser.add_argument("--show", action="store_true", help="show each camera in a window of OpenCV")
    options = parser.parse_args()
    if options.show and cv2 is None:
        return "--show needs OpenCV: apt install python3-opencv"
    Gst.init(None)
    if Gst.ElementFactory.find("rtmp2multiserversrc") is None:
        return "GStreamer has no rtmp2multiserversrc: is GST_PLUGIN_PATH set?"
    return Cameras(options).run()


if __name__ == "__main__":
    sys.exit(main())
