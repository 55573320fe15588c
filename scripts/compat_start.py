#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Does what the README says to somebody who has a package and a fresh system: installs it, starts the first recorder, and publishes.
Every command is the README's. Arguments: the root folder of the system, which has the packages in /root, and the file for the
transcript. Prints the result in words. scripts/compat.sh calls this.
"""

import pathlib
import re
import subprocess
import sys
import threading
import time

import harness

README = harness.TOP / "README.md"
FRAMES = 90
# Of the README's promise, in seconds.
LIMIT = 300


def line(pattern):
    """Returns the first command of the README with a pattern, its lines joined, without its comment."""
    for block in re.findall(r"^```sh\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL):
        for command in block.replace("\\\n", " ").splitlines():
            if re.search(pattern, command):
                return " ".join(command.partition(" #")[0].split())
    raise harness.Failure(f"README.md has no line with {pattern}")


def input_file():
    """Returns the README's command for a file to publish, which becomes a short one."""
    command = re.search(r"`(ffmpeg [^`]* input\.mp4)`", README.read_text())
    if command is None:
        raise harness.Failure("README.md does not say how to make input.mp4")
    return command.group(1).replace(" -t 60 ", f" -t {FRAMES / 30} ")


class Terminal:
    """Runs commands in the system, and writes them down with what they print."""

    def __init__(self, root, transcript):
        self.root = root
        self.transcript = transcript
        self.started = time.monotonic()

    def seconds(self):
        return round(time.monotonic() - self.started)

    def note(self, text):
        self.transcript.write(f"{text}\n")
        self.transcript.flush()

    def start(self, command):
        self.note(f"[{self.seconds():3} s] $ {command}")
        # The system has one user, root.
        inside = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "DEBIAN_FRONTEND=noninteractive", "sh", "-c"]
        return subprocess.Popen(
            ["chroot", self.root, *inside, f"cd /root && exec {command.removeprefix('sudo ')}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )

    def run(self, command, shown=20):
        """Runs a command to its end. The transcript has its last lines."""
        child = self.start(command)
        timer = threading.Timer(LIMIT, child.kill)
        timer.start()
        lines = child.stdout.read().splitlines()
        timer.cancel()
        if len(lines) > shown:
            self.note("...")
        self.note("\n".join(lines[-shown:]))
        if child.wait() != 0:
            raise harness.Failure(f"exit code {child.returncode} of: {command}")
        return "\n".join(lines)


def record(terminal):
    """Starts the first recorder of the README, publishes to it once it listens, and waits for its end."""
    recorder = terminal.start(line(r"^gst-launch-1\.0 -e rtmp2serverbin .*mp4mux"))
    timer = threading.Timer(LIMIT, recorder.kill)
    timer.start()
    printed = []
    for text in recorder.stdout:
        printed.append(text.rstrip())
        if "Listening: " in text:
            terminal.run(line(r"^ffmpeg -re -i input\.mp4 "), shown=3)
    timer.cancel()
    terminal.note("[the recorder]\n" + "\n".join(printed))
    if recorder.wait() != 0:
        raise harness.Failure(f"exit code {recorder.returncode} of the recorder")


def main():
    root, path = sys.argv[1], pathlib.Path(sys.argv[2])
    with path.open("w") as transcript:
        terminal = Terminal(root, transcript)
        terminal.run(line(r"apt update"), shown=4)
        terminal.run(line(r"apt install .*rtmp2server_") + " -y", shown=4)
        terminal.run(input_file(), shown=3)
        record(terminal)
        seconds = terminal.seconds()
        found = terminal.run("ffprobe -v error -count_packets -show_entries stream=codec_name,nb_read_packets -of csv=p=0 out.mp4")
    if f"h264,{FRAMES}" not in found or "aac," not in found:
        raise harness.Failure(f"the recording has {found.split()}")
    if seconds > LIMIT:
        raise harness.Failure(f"it took {seconds} s")
    print(f"{FRAMES} of {FRAMES} frames after {seconds} s")


if __name__ == "__main__":
    try:
        main()
    except harness.Failure as failure:
        sys.exit(f"compat_start: {failure}")
