# SPDX-License-Identifier: MPL-2.0
"""The text format of Prometheus, version 0.0.4, read more strictly than Prometheus does: a metric has a help and a type, in this
order and once; its samples follow in one block; and a counter has the name and the value of one."""

import math
import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
HELP = re.compile(rf"# HELP ({NAME}) (\S.*)")
TYPE = re.compile(rf"# TYPE ({NAME}) (counter|gauge)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\["\\n])*)"')
SAMPLE = re.compile(rf"({NAME})(?:\{{(.+)\}})? (\S+)")


class Malformed(Exception):
    """The error of a text, in a sentence."""


def labels_of(text):
    """Returns (name, value) of each label, in order of their names."""
    labels, at = {}, 0
    while text:
        match = LABEL.match(text, at)
        if not match or match.group(1) in labels:
            raise Malformed(f"labels {text!r}")
        labels[match.group(1)] = match.group(2)
        at = match.end()
        if at == len(text):
            break
        if text[at] != ",":
            raise Malformed(f"labels {text!r}")
        at += 1
    return tuple(sorted(labels.items()))


def sample_of(line, metric, kind):
    match = SAMPLE.fullmatch(line)
    if not match or match.group(1) != metric:
        raise Malformed(f"line {line!r} after the type of {metric}")
    try:
        value = float(match.group(3))
    except ValueError:
        raise Malformed(f"value in {line!r}") from None
    if kind == "counter" and not (value >= 0 and math.isfinite(value)):
        raise Malformed(f"counter {line!r}")
    return (metric, labels_of(match.group(2) or "")), value


def parse(text):
    """Returns {(name, ((label, value), ...)): value}."""
    if not text.endswith("\n"):
        raise Malformed("no end of the last line")
    samples, seen = {}, set()
    helped = metric = kind = None
    for line in text.splitlines():
        if match := HELP.fullmatch(line):
            helped = match.group(1)
            if helped in seen:
                raise Malformed(f"{helped} occurs twice")
            seen.add(helped)
            metric = None
        elif match := TYPE.fullmatch(line):
            metric, kind = match.groups()
            if metric != helped:
                raise Malformed(f"{metric} has no help")
            if (kind == "counter") != metric.endswith("_total"):
                raise Malformed(f"{metric} is called a {kind}")
        else:
            key, value = sample_of(line, metric, kind)
            if key in samples:
                raise Malformed(f"{key} occurs twice")
            samples[key] = value
    empty = seen - {name for name, _ in samples}
    if empty:
        raise Malformed(f"no samples of {sorted(empty)}")
    return samples
