#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Runs a command. Once it prints nothing for too long, prints what its processes are doing, and ends them.

Without this, a test that waits forever would end a whole run, and nothing would show which test it was, and where it waits."""

import argparse
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path


def processes(session):
    """Returns the process ids of a session, in the order of their start."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            # The name of the program, in parentheses, may contain any character.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            found.append((int(fields[19]), int(entry.name)))
    return [process for _, process in sorted(found)]


def describe(process):
    """Prints the command of a process, and where each of its threads is."""
    folder = Path("/proc", str(process))
    try:
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        print(f"\n--- {process}: {command}", flush=True)
        for thread in sorted((folder / "task").iterdir(), key=lambda path: int(path.name)):
            name = (thread / "comm").read_text().strip()
            fields = (thread / "stat").read_text().rpartition(")")[2].split()
            seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            waits = (thread / "wchan").read_text()
            print(f"{thread.name:>9} {name:16} {fields[0]} {seconds:8.2f} s of CPU, in {waits}", flush=True)
    except OSError as error:
        print(error, flush=True)
        return
    if shutil.which("gdb"):
        arguments = ["gdb", "-nx", "-batch", "-p", str(process), "-ex", "thread apply all backtrace 40"]
        try:
            subprocess.run(arguments, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)
        except subprocess.TimeoutExpired:
            print("gdb takes too long")


def read(stream, lines):
    for line in stream:
        lines.put(line)
    lines.put(None)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float, help="for how long it may print nothing")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    # In a session of its own, which identifies all its processes.
    child = subprocess.Popen(
        options.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.killpg(child.pid, number))
    lines = queue.Queue()
    threading.Thread(target=read, args=(child.stdout, lines), daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=options.seconds)
        except queue.Empty:
            print(f"\nNothing was printed for {options.seconds:.0f} s. These are running:", flush=True)
            left = processes(child.pid)
            for process in left:
                describe(process)
            for process in left:
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            sys.exit(124)
        if line is None:
            sys.exit(child.wait() if child.poll() is None or child.returncode >= 0 else 1)
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
