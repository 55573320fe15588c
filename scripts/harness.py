# SPDX-License-Identifier: MPL-2.0
"""What the scripts here share: pipelines, publishers, and a look at what was recorded.

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
PORT_LINE = re.compile(r"\bcurrent-port = (\d+)")
LISTENING_LINE = re.compile(r"^listening on .*:(\d+)\b")


class Failure(Exception):
    """A check that did not hold, in a sentence."""


def environment():
    """The environment in which GStreamer finds the plugin that was built here."""
    env = dict(os.environ)
    paths = [str(RELEASE)]
    if env.get("GST_PLUGIN_PATH"):
        paths.append(env["GST_PLUGIN_PATH"])
    env["GST_PLUGIN_PATH"] = os.pathsep.join(paths)
    return env


class Process:
    """A child whose output is kept, line by line, with the time at which each line came."""

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
        """The match of the first line, of those not waited for yet, that has the pattern."""
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
        """Waits for the end, which has to be a success."""
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
        """(time, match) of every line so far that has the pattern."""
        found = ((when, pattern.search(line)) for when, line in self.lines)
        return [(when, match) for when, match in found if match]

    def __str__(self):
        tail = "\n".join("    " + line[:400] for _, line in self.lines[-15:])
        return shlex.join(self.arguments) + ("\n" + tail if tail else "")


def launch(description, cwd=None, options=("-e", "-v")):
    """gst-launch-1.0 with a pipeline description, given as one string or as arguments."""
    words = shlex.split(description) if isinstance(description, str) else description
    return Process(["gst-launch-1.0", *options, *words], cwd=cwd)


def port_of(pipeline):
    """The port that rtmp2serversrc says it bound."""
    return int(pipeline.wait_for(PORT_LINE).group(1))


def free_port(kind=socket.SOCK_STREAM):
    """A port that is free now, for those who can't take port 0."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def generated(seconds, rate=30, size="640x360"):
    """ffmpeg's arguments for a picture that moves and a tone, encoded for live use."""
    return shlex.split(
        f"-re -f lavfi -i testsrc=size={size}:rate={rate}"
        f" -re -f lavfi -i sine=frequency=440:sample_rate=48000 -t {seconds}"
        f" -c:v libx264 -preset ultrafast -tune zerolatency -pix_fmt yuv420p -g {rate} -c:a aac"
    )


def ffmpeg(arguments, cwd=None):
    """ffmpeg, telling its progress."""
    quiet = ["-hide_banner", "-nostdin", "-loglevel", "error", "-nostats", "-progress", "pipe:1"]
    return Process(["ffmpeg", *quiet, *arguments], cwd=cwd)


def frames_sent(publisher):
    """How many video frames a finished ffmpeg says that it sent."""
    told = publisher.matches(re.compile(r"^frame=\s*(\d+)"))
    if not told:
        raise Failure(f"no frame count from {publisher}")
    return int(told[-1][1].group(1))


def publish(url, seconds=2, cwd=None, meanwhile=None):
    """Publishes a generated stream to its end. The number of video frames sent. `meanwhile` is called once some of it was."""
    with ffmpeg([*generated(seconds), "-f", "flv", url], cwd=cwd) as publisher:
        if meanwhile:
            publisher.wait_for(re.compile(r"^frame=\s*[1-9]"))
            meanwhile()
        publisher.finish(seconds + 30)
        return frames_sent(publisher)


def packets(path):
    """How many packets of each kind a recording holds, as {"video": n, "audio": n}."""
    told = subprocess.run(
        ["ffprobe", "-v", "error", "-count_packets", "-of", "json", "-show_entries",
         "stream=codec_type,nb_read_packets", str(path)],
        check=False, capture_output=True, text=True,
    )
    if told.returncode != 0:
        raise Failure(f"ffprobe cannot read {path}: {told.stderr.strip()}")
    counts = {"video": 0, "audio": 0}
    for stream in json.loads(told.stdout).get("streams", []):
        kind = stream.get("codec_type")
        if kind in counts:
            counts[kind] += int(stream.get("nb_read_packets", 0))
    return counts
