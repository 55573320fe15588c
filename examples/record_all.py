# SPDX-License-Identifier: MPL-2.0
"""Records everyone who publishes, each stream to files of its own, until Ctrl-C: record_all.py [PORT LOCATION]"""

import sys

import gi
gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

port, location = sys.argv[1:] or ("1935", "rec/{application}/{stream-key}/%Y%m%d-%H%M%S.mp4")
Gst.init(None)
pipeline = Gst.parse_launch(f"pipeline. ( rtmp2multiserversrc name=source port={port} )")
source, loop, sinks = pipeline.get_by_name("source"), GLib.MainLoop(), {}


def on_pad_added(_source, pad):
    sinks[pad] = Gst.parse_launch(f'rtmp2recordsink location="{location}"')
    pipeline.add(sinks[pad])
    sinks[pad].sync_state_with_parent()
    pad.link(sinks[pad].get_static_pad("sink"))


def on_pad_removed(_source, pad):
    sinks[pad].set_state(Gst.State.NULL)
    pipeline.remove(sinks.pop(pad))


source.connect("pad-added", on_pad_added)
source.connect("pad-removed", on_pad_removed)
pipeline.get_bus().add_signal_watch()
pipeline.get_bus().connect("message::element", lambda _bus, message: print(message.get_structure().to_string(), flush=True))
GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, 2, lambda: pipeline.set_state(Gst.State.NULL) and loop.quit())
pipeline.set_state(Gst.State.PLAYING)
print(f"listening on rtmp://127.0.0.1:{source.get_property('current-port')}/", flush=True)
loop.run()
