#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Builds the example programs, and runs each with a publisher."""

import pathlib
import re
import subprocess
import sys
import tempfile

import harness

EXAMPLES = harness.TOP / "examples"
# Python's GStreamer binding belongs to the system's interpreter.
PYTHON = "/usr/bin/python3" if pathlib.Path("/usr/bin/python3").exists() else "python3"


def recorded(name):
    """A check that a file holds every frame, and audio."""

    def check(program, directory, sent):
        counts = harness.packets(directory / name)
        if counts["video"] != sent or counts["audio"] == 0:
            raise harness.Failure(f"{sent} frames were sent, and {name} holds {counts}")

    return check


def counted(program, directory, sent):
    """A check that the program itself counted every frame."""
    told = program.matches(re.compile(r"^(\d+) frames$"))
    if not told or int(told[-1][1].group(1)) != sent:
        raise harness.Failure(f"{sent} frames were sent, and otherwise counted by {program}")


# What runs each example on a free port, and what has to be true of it then.
PROGRAMS = {
    "record.c": ([harness.RELEASE / "examples" / "c" / "record", "0", "out.flv"], recorded("out.flv")),
    "frames.py": ([PYTHON, EXAMPLES / "frames.py", "--port", "0", "--once"], counted),
    "ingest.rs": (
        [harness.RELEASE / "examples" / "ingest", "--port", "0", "--keys", "example", "--once"],
        recorded("example.flv"),
    ),
    "record.rs": ([harness.RELEASE / "examples" / "record", "0", "out.flv"], recorded("out.flv")),
    "remux.rs": ([harness.RELEASE / "examples" / "remux", "0", "out.ts"], recorded("out.ts")),
}


def run(arguments, check):
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        with harness.Process(arguments, cwd=directory) as program:
            port = int(program.wait_for(harness.LISTENING_LINE).group(1))
            try:
                sent = harness.publish(f"rtmp://127.0.0.1:{port}/live/example")
                program.finish()
            except harness.Failure as failure:
                raise harness.Failure(f"{failure}\n{program}") from None
            check(program, directory, sent)
            return sent


def main():
    there = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".c", ".py", ".rs")}
    if there != set(PROGRAMS):
        raise harness.Failure(f"not checked, or not there: {sorted(there ^ set(PROGRAMS))}")
    subprocess.run(["make", "-s", "examples"], cwd=harness.TOP, check=True)
    failed = 0
    for name, (arguments, check) in PROGRAMS.items():
        try:
            print(f"example {name}: ok, {run(arguments, check)} frames", flush=True)
        except harness.Failure as failure:
            print(f"example {name}: FAILED: {failure}", flush=True)
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (harness.Failure, subprocess.CalledProcessError) as failure:
        sys.exit(f"check_examples: {failure}")
