#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""Compares docs/elements.md with the elements themselves, by introspection: the names, types, ranges, defaults and flags of
properties, the values of enums, signals, actions with their arguments, and the fields of statistics.

Python's GStreamer binding belongs to the system's interpreter, hence the first line.
"""

import os
import re
import sys

import harness

os.environ.update(harness.environment())

import gi  # noqa: E402

gi.require_version("Gst", "1.0")
from gi.repository import GObject, Gst  # noqa: E402

PAGE = harness.TOP / "docs" / "elements.md"
SOURCE = harness.TOP / "src"
# The element whose properties and signals others have too.
BASE = "rtmp2serversrc"
ELEMENTS = [BASE, "rtmp2multiserversrc", "eflvdemux", "eflvlivedemux", "rtmp2serverbin", "rtmp2fallbacksink", "rtmp2recordsink"]
NUMBERS = {
    "guint": ("uint", 0, 2**32 - 1),
    "guint64": ("uint64", 0, 2**64 - 1),
    "gint64": ("int64", -(2**63), 2**63 - 1),
}
OTHERS = {
    "gboolean": "bool",
    "gchararray": "string",
    "GstStructure": "structure",
    "GStrv": "list of strings",
}
UNITS = re.compile(r" (ns|ms|s|bytes)(?=,|$)")


def names(cell):
    """Returns the names in backquotes in a cell of a table."""
    return re.findall(r"`([^`]+)`", cell)


def tables(section):
    """Yields (first header, rows) of each table; a row is a list of cells."""
    for block in re.findall(r"(?:^\|.*\|\n)+", section, re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        yield rows[0][0], rows[2:]


def documented(section, header):
    """Returns {name: the other cells} of all tables whose first column has this header."""
    found = {}
    for first, rows in tables(section):
        if first == header:
            for row in rows:
                for name in names(row[0]):
                    if name in found:
                        raise harness.Failure(f"{header} {name} is documented twice")
                    found[name] = row[1:]
    return found


def sections():
    """Returns {element: its section}."""
    parts = re.split(r"^## (\S+)\n", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def type_of(spec):
    """Returns the column "type", without the unit, which only the documentation has."""
    kind = spec.value_type.name
    if kind in NUMBERS:
        name, low, high = NUMBERS[kind]
        if spec.maximum < high:
            return f"{name}, {spec.minimum} to {spec.maximum}"
        return f"{name}, from {spec.minimum}" if spec.minimum > low else name
    if hasattr(spec, "enum_class"):
        values = spec.enum_class.__enum_values__
        return ", ".join(f"`{values[number].value_nick}`" for number in sorted(values))
    return OTHERS[kind]


def default_of(spec):
    """Returns the column "default"."""
    kind = spec.value_type.name
    if kind in ("GstStructure", "GStrv"):
        empty = {"GstStructure": "none", "GStrv": "empty"}
        return empty[kind] if spec.flags & GObject.ParamFlags.WRITABLE else ""
    default = spec.default_value
    if kind == "gboolean":
        return str(bool(default)).lower()
    if kind == "gchararray":
        return "none" if default is None else f"`{default}`"
    if hasattr(spec, "enum_class"):
        return f"`{default.value_nick}`"
    return str(default)


def set_of(spec):
    """Returns the column "set"."""
    if not spec.flags & GObject.ParamFlags.WRITABLE:
        return "read-only"
    when = "always" if int(spec.flags) & Gst.PARAM_MUTABLE_PLAYING else "stopped"
    return when if spec.flags & GObject.ParamFlags.READABLE else f"{when}, write-only"


def properties(element):
    """Returns {name: (type, default, set)} of the properties that the element's own class has."""
    owned = (spec for spec in element.list_properties() if spec.owner_type == element.__gtype__)
    return {spec.name: (type_of(spec), default_of(spec), set_of(spec)) for spec in owned}


def signals(element, actions):
    """Returns {name: number of arguments} of the signals, or of the actions, that the element's own class has."""
    queries = (GObject.signal_query(number) for number in GObject.signal_list_ids(element))
    return {
        query.signal_name: len(query.param_types)
        for query in queries
        if bool(query.signal_flags & GObject.SignalFlags.ACTION) == actions
    }


def fields(element):
    """Returns the fields of the element's statistics."""
    stats = element.get_property("stats")
    return {stats.nth_field_name(index) for index in range(stats.n_fields())}


def written_calls(section, header):
    """Returns {name: number of arguments} of signals or actions, written as `name(a, b) -> type`."""
    calls = (re.fullmatch(r"([a-z-]+)\((.*)\)(?: -> \w+)?", call) for call in documented(section, header))
    return {call.group(1): len(call.group(2).split(", ")) if call.group(2) else 0 for call in calls}


def compare(what, present, written):
    """Returns the differences between the names and values of an element and of its documentation."""
    problems = [f"{what} {name} is not documented" for name in sorted(present.keys() - written.keys())]
    problems += [f"{what} {name} is documented, and does not exist" for name in sorted(written.keys() - present.keys())]
    for name in sorted(present.keys() & written.keys()):
        if present[name] != written[name]:
            problems.append(f"{what} {name} is {present[name]}, and documented as {written[name]}")
    return problems


def normalised(cells):
    """Returns type, default and set of a documented property, without the unit."""
    kind, default, when = cells[:3]
    values = names(kind)
    return (", ".join(f"`{value}`" for value in values) if values else UNITS.sub("", kind), default, when)


def sorted_values(cells):
    """Returns the same, with the values of an enum sorted."""
    kind, *rest = cells
    return (", ".join(sorted(kind.split(", "))) if kind.startswith("`") else kind, *rest)


def check(name, element, section, base):
    """Returns the problems of one element's section. `base` has the parts that the section need not repeat."""
    written = documented(section, "property")
    written = {name: sorted_values(normalised(cells)) for name, cells in written.items()}
    inherited = re.search(rf"^All properties of {BASE}(?: but ([^.]*))?\.", section, re.MULTILINE)
    if inherited:
        left_out = set(names(inherited.group(1) or ""))
        unknown = left_out - base["properties"].keys()
        if unknown:
            return [f"{name}: {sorted(unknown)} are no properties of {BASE}"]
        written = {key: value for key, value in base["properties"].items() if key not in left_out} | written
    present = {key: sorted_values(value) for key, value in properties(element).items()}
    problems = compare("property", present, written)

    described = written_calls(section, "signal")
    actions = written_calls(section, "action")
    if re.search(rf"^All signals(?: and actions)? of {BASE}\b", section, re.MULTILINE):
        described = base["signals"] | described
    if re.search(rf"^All signals and actions of {BASE}\b", section, re.MULTILINE):
        actions = base["actions"] | actions
    problems += compare("signal", signals(element, False), described)
    problems += compare("action", signals(element, True), actions)
    problems += compare("pad property", pad_properties(element), dict.fromkeys(documented(section, "pad property")))

    counted = set(documented(section, "field"))
    if "`stats` also has" in section.replace("\n", " "):
        counted |= base["fields"]
    problems += compare("field of stats", dict.fromkeys(fields(element)), dict.fromkeys(counted))
    if name == BASE:
        base.update(properties=written, signals=described, actions=actions, fields=counted)
    return problems


def pad_properties(element):
    """Returns the properties that the class of an element's pads has."""
    names = set()
    for template in element.get_pad_template_list():
        kind = template.get_property("gtype")
        if kind.name.startswith("GstRTMP2"):
            names |= {spec.name for spec in GObject.list_properties(kind) if spec.owner_type == kind}
    return dict.fromkeys(names)


def events():
    """Returns the nicks of GstRTMP2StreamEvent, which is in messages only."""
    for path in SOURCE.rglob("*.rs"):
        found = re.search(r"pub enum StreamEvent \{(.*?)^\}", path.read_text(), re.MULTILINE | re.DOTALL)
        if found:
            return dict.fromkeys(re.findall(r'nick = "([a-z-]+)"', found.group(1)))
    raise harness.Failure("no enum StreamEvent in src")


def main():
    Gst.init(None)
    pages = sections()
    base = {}
    problems = []
    for name in ELEMENTS:
        element = Gst.ElementFactory.make(name)
        if element is None or name not in pages:
            raise harness.Failure(f"{name} is not in {harness.RELEASE}, or not in {PAGE.name}")
        found = check(name, element, pages[name], base)
        problems += [f"{name}: {problem}" for problem in found]
        print(f"elements: {name}: {'FAILED' if found else 'ok'}, {len(properties(element))} properties")
    written = documented(pages[BASE], "event")
    problems += compare("event", events(), dict.fromkeys(written))
    if problems:
        raise harness.Failure("\n".join(problems))


if __name__ == "__main__":
    try:
        main()
    except harness.Failure as failure:
        sys.exit(f"check_elements_doc: {failure}")
