#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Builds the example programs, and runs each with a publisher."""

import concurrent.futures
import contextlib
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request

import harness
import prometheus_text

EXAMPLES = harness.TOP / "examples"
# Python's GStreamer binding belongs to the system's interpreter.
PYTHON = "/usr/bin/python3" if pathlib.Path("/usr/bin/python3").exists() else "python3"


def expect_epoch(program):
    """Fails unless the buffers carry one epoch, the first."""
    epochs = [match.group(1) for _, match in program.matches(re.compile(r"^epoch (\d+)$"))]
    if epochs != ["1"]:
        raise harness.Failure(f"epochs are {epochs} in {program}")


def recorded(name, with_epoch=False):
    """Returns a check that a file holds every frame, and audio."""

    def check(program, directory, sent):
        if with_epoch:
            expect_epoch(program)
        counts = harness.packets(directory / name)
        if counts["video"] != sent or counts["audio"] == 0:
            raise harness.Failure(f"{sent} frames were sent, and {name} holds {counts}")

    return check


def counted(program, directory, sent):
    """Fails unless the program itself has counted every frame."""
    expect_epoch(program)
    counts = program.matches(re.compile(r"^(\d+) frames$"))
    if not counts or int(counts[-1][1].group(1)) != sent:
        raise harness.Failure(f"{sent} frames were sent, and another number was counted by {program}")


def scrape(program):
    """Returns the program's metrics, parsed strictly: {(name, labels): value}."""
    url = program.matches(re.compile(r"^metrics on (http://\S+)$"))[0][1].group(1)
    with urllib.request.urlopen(url, timeout=20) as response:
        kind = response.headers["Content-Type"]
        if kind != "text/plain; version=0.0.4":
            raise harness.Failure(f"metrics are {kind}")
        text = response.read().decode()
    if "example" in text:
        raise harness.Failure(f"a stream key is in the metrics:\n{text}")
    try:
        return prometheus_text.parse(text)
    except prometheus_text.Malformed as malformed:
        raise harness.Failure(f"{malformed} in:\n{text}") from None


def expect(samples, expected):
    """Fails unless each of these samples exists, with a value that passes its check."""
    for (name, *labels), is_right in expected.items():
        value = samples.get((name, tuple(sorted(labels))))
        if value is None or not is_right(value):
            raise harness.Failure(f"{name} {labels} is {value}")


def equals(number):
    return lambda value: value == number


CAMERA = [("application", "live"), ("element", "camera")]
OTHER = [("application", "live"), ("element", "other")]


def scraped_meanwhile(program):
    """Checks the metrics while the first of two routes has a publisher."""
    expect(
        scrape(program),
        {
            ("rtmp2_publishing", *CAMERA): equals(1),
            ("rtmp2_publishing", *OTHER): equals(0),
            ("rtmp2_pipeline_running", *CAMERA): equals(1),
            ("rtmp2_connection_state", *OTHER): equals(0),
            ("rtmp2_stream_status", *OTHER): equals(4),
            ("rtmp2_publisher_uptime_seconds", *CAMERA): lambda value: value > 0,
            ("rtmp2_last_byte_age_seconds", *CAMERA): lambda value: value >= 0,
            ("rtmp2_process_elements",): equals(2),
            ("rtmp2_process_listeners",): equals(1),
            ("rtmp2_process_clients",): equals(1),
            ("rtmp2_process_publishing",): equals(1),
        },
    )


def scraped(program, directory, sent):
    """Checks the metrics after the publisher has left, and that the program ends cleanly."""
    program.wait_for(re.compile(r"^camera: .* is gone$"))
    samples = scrape(program)
    tags = {kind: samples["rtmp2_tags_total", (*CAMERA, ("kind", kind))] for kind in ("audio", "video", "script")}
    expect(
        samples,
        {
            # The sequence header and the end of sequence are counted too.
            ("rtmp2_tags_total", *CAMERA, ("kind", "video")): lambda value: sent < value <= sent + 2,
            ("rtmp2_tags_total", *CAMERA, ("kind", "audio")): lambda value: value > 50,
            ("rtmp2_tag_bytes_total", *CAMERA, ("kind", "video")): lambda value: value > 10_000,
            ("rtmp2_keyframes_total", *CAMERA): equals(2),
            ("rtmp2_gop_frames", *CAMERA): equals(30),
            ("rtmp2_gop_duration_seconds", *CAMERA): equals(1),
            ("rtmp2_frames_per_second", *CAMERA): equals(30),
            ("rtmp2_received_bytes_total", *CAMERA): lambda value: value > 10_000,
            ("rtmp2_received_average_bytes_per_second", *CAMERA): lambda value: value > 1000,
            ("rtmp2_dropped_tags_total", *CAMERA, ("reason", "queue-full")): equals(0),
            ("rtmp2_publishers_total", *CAMERA): equals(1),
            ("rtmp2_publishers_total", *OTHER): equals(0),
            ("rtmp2_reconnects_total", *CAMERA): equals(0),
            ("rtmp2_publishing", *CAMERA): equals(0),
            ("rtmp2_outage_seconds", *CAMERA): lambda value: value > 0,
            ("rtmp2_downtime_seconds_total", *CAMERA): lambda value: value > 0,
            ("rtmp2_downtime_seconds_total", *OTHER): equals(0),
            ("rtmp2_process_tags_total",): equals(sum(tags.values())),
            ("rtmp2_process_publishers_total",): equals(1),
        },
    )
    program.signal(signal.SIGINT)
    program.finish()


def recorded_all(program, directory, sent):
    """Fails unless the program has recorded every frame by the end of the publisher, and ends cleanly."""
    program.wait_for(re.compile(r"event=\(string\)finished, path=\(string\)rec/live/example\.mp4"))
    program.signal(signal.SIGINT)
    program.finish()
    recorded("rec/live/example.mp4")(program, directory, sent)


def seen(program, directory, sent):
    """Fails unless every picture of two cameras was decoded, and each camera has reported a rate and a brightness."""
    ended = program.matches(re.compile(r"^live/(\w+): ended after (\d+) pictures$"))
    counts = {match.group(1): int(match.group(2)) for _, match in ended}
    if counts != {"example": sent, "second": sent}:
        raise harness.Failure(f"{sent} frames were sent to each, and {counts} were decoded by {program}")
    for name in counts:
        line = re.compile(rf"^live/{name}: \d+\.\d fps, \d+ skipped, 640x360, brightness +\d+\.\d$")
        if not program.matches(line):
            raise harness.Failure(f"{name} has reported nothing in {program}")


# Stands in for OpenCV, which needs a screen: runs an example with windows whose content {show} handles.
WINDOWS = """
import runpy, sys, types
sys.modules["cv2"] = cv2 = types.ModuleType("cv2")
def imshow(name, picture):
    {show}
cv2.imshow, cv2.waitKey, cv2.destroyWindow = imshow, lambda _: None, lambda name: None
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def cameras_with_windows(show):
    script = WINDOWS.format(show=show)
    return [PYTHON, "-c", script, EXAMPLES / "cameras.py", "--port", "0", "--once", "--show"]


def shown(program, directory, sent):
    seen(program, directory, sent)
    windows = {match.group(1) for _, match in program.matches(re.compile(r"^window live/(\w+) \(360, 640, 3\)$"))}
    if windows != {"example", "second"}:
        raise harness.Failure(f"there were windows of {windows} in {program}")


def check_failing_windows():
    """Fails unless an error of the code that looks at pictures ends the program."""
    with harness.Process(cameras_with_windows("raise OSError('no screen')")) as program:
        port = program.wait_for(harness.LISTENING_LINE).group(1)
        with contextlib.suppress(harness.Failure):
            harness.publish(f"rtmp://127.0.0.1:{port}/live/example")
        program.wait_for(re.compile("^OSError: no screen$"))
        try:
            program.finish()
        except harness.Failure as failure:
            if not str(failure).startswith("exit code 1 "):
                raise
            return
        raise harness.Failure(f"success of {program}")


# The command that runs each example on a free port, the check of its result, and a check while it has a publisher.
PROGRAMS = {
    "record.c": ([harness.RELEASE / "examples" / "c" / "record", "0", "out.flv"], recorded("out.flv", with_epoch=True)),
    "cameras.py": ([PYTHON, EXAMPLES / "cameras.py", "--port", "0", "--once"], seen, None, ["example", "second"]),
    "cameras.py with windows": (
        cameras_with_windows("sys.stdout.write(f'window {name} {picture.shape}\\n')"), shown, None, ["example", "second"],
    ),
    "frames.py": ([PYTHON, EXAMPLES / "frames.py", "--port", "0", "--once"], counted),
    "frames.py with HEVC": (
        [PYTHON, EXAMPLES / "frames.py", "--port", "0", "--once"], counted, None, ["example"], "libx265",
    ),
    "ingest.rs": (
        [harness.RELEASE / "examples" / "ingest", "--port", "0", "--keys", "example", "--once"],
        recorded("example.flv"),
    ),
    "metrics": (
        [harness.RELEASE / "rtmp2-metrics", "--port", "0", "--metrics", "127.0.0.1:0", "camera=live/example",
         "other=live/other"],
        scraped,
        scraped_meanwhile,
    ),
    "record_all.py": (
        [PYTHON, EXAMPLES / "record_all.py", "0", "rec/{application}/{stream-key}.mp4"],
        recorded_all,
        lambda program: None,
    ),
    "record.rs": ([harness.RELEASE / "examples" / "record", "0", "out.flv"], recorded("out.flv", with_epoch=True)),
    "remux.rs": ([harness.RELEASE / "examples" / "remux", "0", "out.ts"], recorded("out.ts")),
}


def run(arguments, check, meanwhile=None, names=("example",), encoder="libx264"):
    """Publishes to an example under all names at once, and checks it. One with a check `meanwhile` does not end by itself:
    `check` ends it."""
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        with harness.Process(arguments, cwd=directory) as program:
            port = int(program.wait_for(harness.LISTENING_LINE).group(1))
            look = meanwhile and (lambda: meanwhile(program))
            try:
                urls = [f"rtmp://127.0.0.1:{port}/live/{name}" for name in names]
                with concurrent.futures.ThreadPoolExecutor() as pool:
                    (sent,) = set(pool.map(lambda url: harness.publish(url, meanwhile=look, encoder=encoder), urls))
                if not meanwhile:
                    program.finish()
                check(program, directory, sent)
            except harness.Failure as failure:
                raise harness.Failure(f"{failure}\n{program}") from None
            return sent


def main():
    found = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".c", ".py", ".rs")} | {"metrics"}
    checked = {name.split(" ")[0] for name in PROGRAMS}
    if found != checked:
        raise harness.Failure(f"not checked, or missing: {sorted(found ^ checked)}")
    subprocess.run(["make", "-s", "examples"], cwd=harness.TOP, check=True)
    failed = 0
    for name, program in PROGRAMS.items():
        try:
            print(f"example {name}: ok, {run(*program)} frames", flush=True)
        except harness.Failure as failure:
            print(f"example {name}: FAILED: {failure}", flush=True)
            failed += 1
    try:
        check_failing_windows()
        print("example cameras.py without a screen: ok", flush=True)
    except harness.Failure as failure:
        print(f"example cameras.py without a screen: FAILED: {failure}", flush=True)
        failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (harness.Failure, subprocess.CalledProcessError) as failure:
        sys.exit(f"check_examples: {failure}")
