#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""Compares each element with its text in tests/inspect, so that no property, default, range, signal or pad template changes
unnoticed. The text is made by introspection, since the output of gst-inspect-1.0 differs between versions of GStreamer.

    scripts/check_inspect.py            compare
    scripts/check_inspect.py --update   keep the present text

Python's GStreamer binding belongs to the system's interpreter, hence the first line.
"""

import difflib
import os
import sys

import harness

os.environ.update(harness.environment())

import gi  # noqa: E402

gi.require_version("Gst", "1.0")
from gi.repository import GObject, Gst  # noqa: E402

GOLDEN = harness.TOP / "tests" / "inspect"
ELEMENTS = ["rtmp2serversrc", "rtmp2multiserversrc", "eflvdemux", "eflvlivedemux", "rtmp2serverbin", "rtmp2fallbacksink", "rtmp2recordsink"]
# Of the largest values, by type: a range up to there is none.
LIMITS = {"gint": 2**31 - 1, "guint": 2**32 - 1, "gint64": 2**63 - 1, "guint64": 2**64 - 1, "gulong": 2**64 - 1}


def is_own(kind):
    """Tells whether a class belongs to the plugin, and not to GStreamer."""
    return kind.name.startswith(("GstRTMP2", "GstEFLV"))


def ancestry(kind):
    """Returns the names of a class and of those it derives from, the most general first."""
    names = []
    while kind.name != "void":
        names.insert(0, kind.name)
        if kind == GObject.TYPE_OBJECT:
            break
        kind = kind.parent
    return names


def flags_of(spec):
    access = {"readable": GObject.ParamFlags.READABLE, "writable": GObject.ParamFlags.WRITABLE}
    flags = [name for name, flag in access.items() if spec.flags & flag]
    if spec.flags & GObject.ParamFlags.WRITABLE:
        is_always = int(spec.flags) & Gst.PARAM_MUTABLE_PLAYING
        flags.append("changeable in any state" if is_always else "changeable in NULL or READY")
    return ", ".join(flags)


def values_of(spec, owner):
    """Returns the values of an enum, as (number, nick, name)."""
    # Only the class of a value has all of them, in each version of PyGObject.
    values = type(owner.get_property(spec.name)).__enum_values__.values()
    return sorted((int(value), value.value_nick, value.value_name) for value in values)


def value_of(spec, owner):
    """Returns the type of a property with its range and default."""
    kind = spec.value_type.name
    if hasattr(spec, "enum_class"):
        nicks = {number: nick for number, nick, _ in values_of(spec, owner)}
        return f"{kind}, default {nicks[int(spec.default_value)]}"
    if kind in LIMITS or kind in ("gdouble", "gfloat"):
        lowest, highest = spec.minimum, spec.maximum
        bounded = f", {lowest} to {highest}" if highest != LIMITS.get(kind) else f", from {lowest}" if lowest > 0 else ""
        return f"{kind}{bounded}, default {spec.default_value}"
    if kind in ("gboolean", "gchararray"):
        return f"{kind}, default {spec.default_value}"
    return kind


def properties(kind, owner):
    """Yields the lines of the properties that the class itself has. `owner` is one of it, which has the values of its enums."""
    for spec in sorted(GObject.list_properties(kind), key=lambda spec: spec.name):
        if is_own(spec.owner_type) and spec.owner_type == kind:
            yield f"  {spec.name}: {spec.blurb}"
            yield f"      {value_of(spec, owner)}; {flags_of(spec)}"
            if hasattr(spec, "enum_class"):
                yield from (f"        {number} {nick}: {name}" for number, nick, name in values_of(spec, owner))


def signals(kind, actions):
    """Yields the lines of the signals, or of the actions, that the class itself has."""
    for number in GObject.signal_list_ids(kind):
        query = GObject.signal_query(number)
        if bool(query.signal_flags & GObject.SignalFlags.ACTION) == actions:
            arguments = ", ".join(parameter.name for parameter in query.param_types)
            yield f"  {query.signal_name}({arguments}) -> {query.return_type.name}"


def text_of(name):
    """Returns what the element offers."""
    factory = Gst.ElementFactory.find(name)
    element = factory and factory.create(None)
    if element is None:
        raise harness.Failure(f"{name} was not found in {harness.RELEASE}")
    kind = element.__gtype__
    lines = [f"{name}, rank {factory.get_rank()}"]
    lines += [f"  {key}: {factory.get_metadata(key)}" for key in ("long-name", "klass", "description", "author")]
    lines += ["", " > ".join(ancestry(kind))]
    interfaces = sorted(interface.name for interface in kind.interfaces)
    lines += [f"implements {', '.join(interfaces)}"] if interfaces else []
    if factory.get_uri_protocols():
        lines.append(f"URIs: {', '.join(sorted(factory.get_uri_protocols()))}")
    pads: list[GObject.GType] = []
    for template in sorted(element.get_pad_template_list(), key=lambda template: template.name_template):
        lines += ["", f"{template.direction.value_nick} template {template.name_template}, {template.presence.value_nick}"]
        caps = template.get_caps()
        structures = [caps.get_structure(index).to_string().rstrip(";") for index in range(caps.get_size())]
        lines += [f"  {structure}" for structure in structures] or ["  ANY"]
        pad_kind = template.get_property("gtype")
        if is_own(pad_kind) and pad_kind not in pads:
            pads.append(pad_kind)
    for title, part in [
        ("properties", properties(kind, element)), ("signals", signals(kind, False)), ("actions", signals(kind, True)),
        *((f"properties of {pad.name}", properties(pad, GObject.new(pad, direction=Gst.PadDirection.SRC))) for pad in pads),
    ]:
        part = list(part)
        lines += ["", title, *part] if part else []
    if element.find_property("stats"):
        stats = element.get_property("stats")
        fields = (stats.nth_field_name(index) for index in range(stats.n_fields()))
        lines += ["", "fields of stats", *(f"  {field}: {stats.get_field_type(field).name}" for field in fields)]
    return "\n".join(lines) + "\n"


def main():
    Gst.init(None)
    differs = False
    for name in ELEMENTS:
        path = GOLDEN / f"{name}.txt"
        now = text_of(name)
        if "--update" in sys.argv[1:]:
            path.write_text(now)
            continue
        before = path.read_text() if path.exists() else ""
        if now != before:
            differs = True
            sys.stdout.writelines(difflib.unified_diff(before.splitlines(True), now.splitlines(True), str(path), "now"))
    if differs:
        raise harness.Failure(f"if that is intended, run {sys.argv[0]} --update")
    print("check_inspect: ok")


if __name__ == "__main__":
    try:
        main()
    except harness.Failure as failure:
        sys.exit(f"check_inspect: {failure}")
