#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Counts the instructions that eflvdemux and flvdemux take for the same file, with valgrind's callgrind.

The figures are user-space instructions of the whole pipeline for each byte of the file, filesrc included: the difference of
a long and a short file, so that starting and stopping do not count. They do not depend on how busy the machine is, and depend
on it very little besides. The callgrind files stay for callgrind_annotate. Build the plugin first (make build).
"""

import argparse
import os
import pathlib
import subprocess
import sys

import harness

DEMUXERS = {"flvdemux": ("video", "audio"), "eflvdemux": ("video_0", "audio_0")}
# In pull mode the demuxer reads by itself. A queue makes filesrc push buffers of its block size.
MODES = {
    "pull": [],
    "push, 4 KiB": ["!", "queue"],
    "push, 64 KiB": ["!", "queue"],
}
BLOCK_SIZES = {"push, 64 KiB": 65536}
# A usual stream, and one of small tags, which shows the cost of each tag.
STREAMS = {
    "1080p, 6 Mbit/s": "testsrc2=size=1920x1080:rate=30 -b:v 6M -minrate 6M -maxrate 6M -bufsize 6M -nal-hrd cbr",
    "360p, 500 kbit/s": "testsrc2=size=640x360:rate=30 -b:v 500k -minrate 500k -maxrate 500k -bufsize 500k -nal-hrd cbr",
}
SHORT, LONG = 10, 40


def make(folder, index, stream, seconds):
    """Returns a file of H.264 and AAC of this length, made once."""
    path = folder / f"stream-{index}-{seconds}.flv"
    if not path.exists():
        partial = path.with_suffix(".part")
        source, *rate = stream.split()
        command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", source]
        command += ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-t", str(seconds)]
        command += ["-c:v", "libx264", "-preset", "ultrafast", "-g", "60", *rate]
        command += ["-c:a", "aac", "-b:a", "128k", "-f", "flv", str(partial)]
        subprocess.run(command, check=True)
        partial.rename(path)
    return path


def environment(folder):
    """Returns the environment with a registry of its own, which exists after the first run."""
    return harness.environment() | {"GST_REGISTRY": str(folder / "registry.bin")}


def instructions(demuxer, mode, path, out):
    """Returns the instructions of one run of the pipeline, from start to end."""
    source = ["filesrc", f"location={path}"]
    if mode in BLOCK_SIZES:
        source.append(f"blocksize={BLOCK_SIZES[mode]}")
    pipeline = source + MODES[mode] + ["!", demuxer, "name=d"]
    for pad in DEMUXERS[demuxer]:
        pipeline += [f"d.{pad}", "!", "fakesink", "sync=false", "async=false"]
    # The search for plugins does not count.
    env = environment(out.parent) | {"GST_REGISTRY_UPDATE": "no"}
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "gst-launch-1.0", "-q", *pipeline]
    run = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise harness.Failure(f"{' '.join(command)}: {run.stderr}")
    for line in out.read_text(errors="replace").splitlines():
        if line.startswith(("totals:", "summary:")):
            return int(line.split()[1])
    raise harness.Failure(f"{out} has no totals")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=pathlib.Path, default=harness.TARGET / "instructions")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    found = subprocess.run(["gst-inspect-1.0", "eflvdemux"], env=environment(options.output), capture_output=True, check=False)
    if found.returncode != 0:
        raise harness.Failure("there is no eflvdemux: run make build first")

    print("| instructions a byte | " + " | ".join(DEMUXERS) + " | eflvdemux for each of flvdemux's |")
    print("|---|" + "---|" * len(DEMUXERS) + "---|")
    for index, (stream, source) in enumerate(STREAMS.items()):
        short, long = (make(options.output, index, source, seconds) for seconds in (SHORT, LONG))
        size = os.path.getsize(long) - os.path.getsize(short)
        for number, mode in enumerate(MODES):
            figures = []
            for demuxer in DEMUXERS:
                name = f"{demuxer}-{index}-{number}"
                counts = [
                    instructions(demuxer, mode, path, options.output / f"callgrind.{name}.{length}")
                    for path, length in ((short, "short"), (long, "long"))
                ]
                figures.append((counts[1] - counts[0]) / size)
            cells = " | ".join(f"{figure:.3f}" for figure in figures)
            print(f"| {stream}, {mode} | {cells} | {figures[1] / figures[0]:.2f} |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except harness.Failure as failure:
        sys.exit(f"instructions: {failure}")
