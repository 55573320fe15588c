#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""Records everyone who publishes, each stream to files of its own: record_all.py [PORT LOCATION]. Ctrl-C finishes them."""

import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

port, location = sys.argv[1:] or ("1935", "rec/{application}/{stream-key}/%Y%m%d-%H%M%S.mp4")
Gst.init(None)
pipeline, source = Gst.Pipeline(), Gst.ElementFactory.make("rtmp2multiserversrc")
bus, loop, sinks = pipeline.get_bus(), GLib.MainLoop(), {}


def on_pad_added(_source, pad):
    sinks[pad] = Gst.ElementFactory.make("rtmp2recordsink")
    sinks[pad].set_property("location", location)
    pipeline.add(sinks[pad])
    sinks[pad].sync_state_with_parent()
    pad.link(sinks[pad].get_static_pad("sink"))


def on_pad_removed(_source, pad):
    sinks[pad].set_state(Gst.State.NULL)
    pipeline.remove(sinks.pop(pad))


def on_message(_bus, message):
    structure = message.get_structure()
    if structure and structure.has_name("rtmp2-recorded-file"):
        print(structure.get_string("event"), structure.get_string("path"), flush=True)
    elif message.type in (Gst.MessageType.WARNING, Gst.MessageType.ERROR):
        print(structure.to_string(), file=sys.stderr)


pipeline.add(source)
source.set_property("port", int(port))
source.connect("pad-added", on_pad_added)
source.connect("pad-removed", on_pad_removed)
bus.add_signal_watch()
bus.connect("message", on_message)
GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, 2, loop.quit)
pipeline.set_state(Gst.State.PLAYING)
print(f"listening on rtmp://127.0.0.1:{source.get_property('current-port')}/", flush=True)
loop.run()
pipeline.set_state(Gst.State.NULL)
