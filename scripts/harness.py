# SPDX-License-Identifier: MPL-2.0
"""Helpers that the scripts share: pipelines, publishers, and the packets of recordings.

Every wait is for a line that the other side prints, with a limit; nothing here sleeps, and every port is a free one.
"""

import json
import os
import pathlib
import queue
import re
import shlex
import socket
import subprocess
import threading
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target"))
RELEASE = TARGET / "release"
# The newer ffmpeg of the virtual environment, which sends Enhanced FLV.
NEW_FFMPEG = TOP / ".venv" / "bin" / "ffmpeg"
PORT_LINE = re.compile(r"\bcurrent-port = (\d+)")
LISTENING_LINE = re.compile(r"^listening on .*:(\d+)\b")


class Failure(Exception):
    """A check that did not hold, in a sentence."""


def environment():
    """Returns the environment in which GStreamer finds the plugin that was built here."""
    env = dict(os.environ)
    paths = [str(RELEASE)]
    if env.get("GST_PLUGIN_PATH"):
        paths.append(env["GST_PLUGIN_PATH"])
    env["GST_PLUGIN_PATH"] = os.pathsep.join(paths)
    return env


class Process:
    """A child process whose output is kept, line by line, with the time of each line."""

    def __init__(self, arguments, cwd=None):
        self.arguments = [str(argument) for argument in arguments]
        self.lines = []
        self._fresh = queue.Queue()
        self.started = time.monotonic()
        self._child = subprocess.Popen(
            self.arguments,
            cwd=cwd,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()
        self._reader.join()

    def _read(self):
        for line in self._child.stdout:
            entry = (time.monotonic(), line.rstrip("\n"))
            self.lines.append(entry)
            self._fresh.put(entry)
        self._fresh.put(None)

    def wait_for(self, pattern, seconds=20):
        """Waits for the next line with the pattern, and returns the match. Lines before it are not waited for again."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                entry = self._fresh.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise Failure(f"no line with {pattern.pattern!r} in {seconds} s from {self}") from None
            if entry is None:
                self._fresh.put(None)
                raise Failure(f"ended without a line with {pattern.pattern!r}: {self}")
            match = pattern.search(entry[1])
            if match:
                return match

    def finish(self, seconds=30):
        """Waits until the process ends, and fails unless it succeeds."""
        try:
            code = self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"still running after {seconds} s: {self}") from None
        self._reader.join()
        if code != 0:
            raise Failure(f"exit code {code} from {self}")
        return self

    def signal(self, number):
        self._child.send_signal(number)

    def matches(self, pattern):
        """Returns (time, match) of every line so far that has the pattern."""
        found = ((when, pattern.search(line)) for when, line in self.lines)
        return [(when, match) for when, match in found if match]

    def __str__(self):
        tail = "\n".join("    " + line[:400] for _, line in self.lines[-15:])
        return shlex.join(self.arguments) + ("\n" + tail if tail else "")


def launch(description, cwd=None, options=("-e", "-v")):
    """Starts gst-launch-1.0 with a pipeline description, given as one string or as arguments."""
    words = shlex.split(description) if isinstance(description, str) else description
    return Process(["gst-launch-1.0", *options, *words], cwd=cwd)


def port_of(pipeline):
    """Returns the port that rtmp2serversrc has bound."""
    return int(pipeline.wait_for(PORT_LINE).group(1))


def free_port(kind=socket.SOCK_STREAM):
    """Returns a port that is free now, for programs that do not support port 0."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def generated(seconds, rate=30, size="640x360", encoder="libx264"):
    """Returns ffmpeg's arguments for a moving picture and a tone, encoded for live use."""
    return shlex.split(
        f"-re -f lavfi -i testsrc=size={size}:rate={rate}"
        f" -re -f lavfi -i sine=frequency=440:sample_rate=48000 -t {seconds}"
        f" -c:v {encoder} -preset ultrafast -tune zerolatency -pix_fmt yuv420p -g {rate} -c:a aac"
    )


def ffmpeg(arguments, cwd=None, program="ffmpeg"):
    """Starts ffmpeg, which prints its progress."""
    quiet = ["-hide_banner", "-nostdin", "-loglevel", "error", "-nostats", "-progress", "pipe:1"]
    return Process([program, *quiet, *arguments], cwd=cwd)


def frames_sent(publisher):
    """Returns the number of video frames that a finished ffmpeg has sent."""
    counts = publisher.matches(re.compile(r"^frame=\s*(\d+)"))
    if not counts:
        raise Failure(f"no frame count from {publisher}")
    return int(counts[-1][1].group(1))


def publish(url, seconds=2, cwd=None, meanwhile=None, encoder="libx264"):
    """Publishes a generated stream to its end, and returns the number of video frames sent. Calls `meanwhile` after the first."""
    program = "ffmpeg" if encoder == "libx264" else NEW_FFMPEG
    with ffmpeg([*generated(seconds, encoder=encoder), "-f", "flv", url], cwd=cwd, program=program) as publisher:
        if meanwhile:
            publisher.wait_for(re.compile(r"^frame=\s*[1-9]"))
            meanwhile()
        publisher.finish(seconds + 30)
        return frames_sent(publisher)


def packets(path):
    """Returns the packets of each kind in a recording, as {"video": n, "audio": n}."""
    probe = subprocess.run(
        ["ffprobe", "-v", "error", "-count_packets", "-of", "json", "-show_entries",
         "stream=codec_type,nb_read_packets", str(path)],
        check=False, capture_output=True, text=True,
    )
    if probe.returncode != 0:
        raise Failure(f"ffprobe cannot read {path}: {probe.stderr.strip()}")
    counts = {"video": 0, "audio": 0}
    for stream in json.loads(probe.stdout).get("streams", []):
        kind = stream.get("codec_type")
        if kind in counts:
            counts[kind] += int(stream.get("nb_read_packets", 0))
    return counts
