#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Runs all programs with a publisher each, at the same time, and checks what they serve to those who operate them: the page, the same
metrics, /stat, pictures, the log as JSON, the end after a drain, and an error at the start."""

import concurrent.futures
import json
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree

import harness
import prometheus_text

PAGE_LINE = re.compile(r'"message":"page on (http://[^"]+)"')
LISTENING_LINE = re.compile(r'"message":"listening on .*:(\d+)/"')
TOKEN = "0123456789abcdef0123456789abcdef"
# Limit of each wait in seconds, also for a busy machine. Reached only if something is broken.
PATIENCE = 90
TEST_PICTURE = {"test": {"width": 320, "height": 180, "framerate": 10}}


class Case:
    """A program, the path that is published to it, and what becomes of it."""

    def __init__(self, directory, name):
        self.name = name
        self.directory = directory / name
        self.directory.mkdir()
        token = self.directory / "token"
        token.write_text(TOKEN)
        self.common = ["--token-file", token, "--log-format", "json"]
        # The stream on the page, and its application and name in /stat.
        self.path, self.stream, self.stat = "live/cam", "cam", ("live", "cam")
        # A path that is refused, and the reason.
        self.refused, self.reason = "live/other", "no-stream"
        # A stream with a picture.
        self.picture = None
        self.ends = False

    def command(self):
        return getattr(self, f"command_of_{self.name}")()

    def command_of_metrics(self):
        return [harness.RELEASE / "rtmp2-metrics", "--port", "0", "--metrics", "127.0.0.1:0", *self.common, "cam=live/cam"]

    def command_of_ingest(self):
        self.ends = True
        program = harness.RELEASE / "examples" / "ingest"
        return [program, "--port", "0", "--keys", "cam", "--folder", self.directory, "--http", "127.0.0.1:0", *self.common]

    def command_of_relay(self):
        self.path, self.stream, self.stat = "live/ann/cam", "live/ann/cam", ("live/ann", "cam")
        self.refused, self.reason = "live/ann/.cam", "denied"
        self.picture = self.stream
        addresses = ["--rtmp", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        return [harness.RELEASE / "rtmp2-relay", *addresses, "--directory", self.directory / "hls", *self.common]

    def command_of_multicam(self):
        self.stream, self.stat = "1/main", ("live", "1/main")
        self.picture = "test/main"
        camera = {"id": "1", "streams": [{"name": "main"}], "source": {"rtmp": {"application": "live", "stream_key": "cam"}}}
        picture = {"id": "test", "streams": [{"name": "main"}], "source": TEST_PICTURE}
        configuration = {
            "listen": {"host": "127.0.0.1", "port": 0},
            # Nothing listens there.
            "url_template": "rtmp://127.0.0.1:1/live/{camera_id}",
            "cameras": [camera, picture],
        }
        file = self.directory / "cameras.json"
        file.write_text(json.dumps(configuration))
        return [harness.RELEASE / "rtmp2-multicam", "--http", "127.0.0.1:0", *self.common, file]

    def run(self):
        """Returns the names of the common metrics."""
        with harness.Process(self.command(), cwd=self.directory) as self.process:
            try:
                return self.check()
            except harness.Failure as failure:
                raise harness.Failure(f"{self.name}: {failure}\n{self.process}") from None

    def fail(self):
        """Starts it with a page on an address that is taken: that is an error in its log."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            command = [str(argument) for argument in self.command()]
            option = "--metrics" if "--metrics" in command else "--http"
            command[command.index(option) + 1] = f"127.0.0.1:{taken.getsockname()[1]}"
            result = subprocess.run(command, cwd=self.directory, capture_output=True, text=True, timeout=PATIENCE)
        errors = [entry for entry in map(json.loads, result.stderr.splitlines()) if entry["event"] == "error"]
        if result.returncode != 1 or len(errors) != 1 or option not in errors[0]["message"]:
            raise harness.Failure(f"{self.name} with a taken address: {result}")

    def check(self):
        found = {}

        def both():
            lines = [line for _, line in self.process.lines]
            for pattern in (PAGE_LINE, LISTENING_LINE):
                found[pattern] = next((match for match in map(pattern.search, lines) if match), None)
            return all(found.values())

        self.until("its addresses", both)
        self.page, self.port = found[PAGE_LINE].group(1), int(found[LISTENING_LINE].group(1))
        with self.publish(self.path):
            self.until("a live stream", self.is_live)
            with self.publish(self.refused):
                self.until("a refusal", lambda: self.json("api/refusals")["counts"][self.reason] == 1)
            self.check_page()
            names = self.check_metrics()
            self.until("the publisher in /stat", self.is_in_stat)
            if self.picture:
                self.until("a picture", lambda: self.get(f"api/streams/{self.picture}/thumbnail", bytes)[:2] == b"\xff\xd8")
            self.drain()
        for event, count in (("connected", 1), ("refused", 1), ("ended", 1), ("draining", 1)):
            entries = self.entries(event)
            if len(entries) != count:
                raise harness.Failure(f"the log has {event} {len(entries)} times")
        if self.entries("ended")[0]["stream"] != self.stream:
            raise harness.Failure(f"the publisher has ended as {self.entries('ended')}")
        return names

    def publish(self, path):
        return harness.ffmpeg([*harness.generated(3600), "-f", "flv", f"rtmp://127.0.0.1:{self.port}/{path}"])

    def until(self, what, holds):
        deadline = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > deadline:
                raise harness.Failure(f"there is never {what}")
            time.sleep(0.2)

    def get(self, path, kind=str):
        try:
            with urllib.request.urlopen(self.page + path, timeout=PATIENCE) as response:
                body = response.read()
        except urllib.error.HTTPError as error:
            body = error.read()
        return body if kind is bytes else body.decode()

    def json(self, path):
        return json.loads(self.get(path))

    def streams(self):
        return {stream["name"]: stream for stream in self.json("api/streams")["streams"]}

    def is_live(self):
        stream = self.streams().get(self.stream)
        return stream and stream["state"] == "active" and stream["bitrate"] > 0 and stream["frame_rate"] == 30

    def entries(self, event):
        return [entry for entry in map(json.loads, [line for _, line in self.process.lines]) if entry["event"] == event]

    def check_page(self):
        text = self.get("")
        if "dashboard.js" not in text or ("page.js" in text) != (self.name == "relay"):
            raise harness.Failure(f"the page is {text}")

    def check_metrics(self):
        samples = prometheus_text.parse(self.get("metrics"))
        labels = dict(next(labels for name, labels in samples if name == "rtmp2_stream_info"))
        if labels["element"] != self.stream or labels["application"] != self.stat[0]:
            raise harness.Failure(f"the stream is described as {labels}")
        what = tuple(labels[name] for name in ("codec", "resolution", "audio_codec"))
        if what != ("H.264", "640x360", "AAC") or not labels["encoder"]:
            raise harness.Failure(f"what is published is described as {labels}")
        for reason, count in ((self.reason, 1), ("busy", 0)):
            if samples["rtmp2_rejected_total", (("reason", reason),)] != count:
                raise harness.Failure(f"{reason} is not counted {count} times: {samples}")
        return {name for name, _ in samples if name.startswith("rtmp2_")}

    def is_in_stat(self):
        document = xml.etree.ElementTree.fromstring(self.get("stat"))
        application, name = self.stat
        found = [
            stream
            for part in document.findall("./server/application")
            if part.findtext("name") == application
            for stream in part.findall("./live/stream")
            if stream.findtext("name") == name
        ]
        return len(found) == 1 and int(found[0].findtext("bw_video")) > 0

    def drain(self):
        headers = {"Authorization": f"Bearer {TOKEN}"}
        request = urllib.request.Request(self.page + "api/drain", method="POST", headers=headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            response.read()
        # ffmpeg cannot be asked to go elsewhere, so it is cut off in the end.
        self.until("an end of the publisher", lambda: self.entries("ended"))
        if self.entries("ended")[0]["reason"] != "drained":
            raise harness.Failure(f"the publisher has ended by {self.entries('ended')}")
        if self.ends:
            self.process.finish()
            return
        self.until("an end of the stream", lambda: self.streams()[self.stream]["state"] in ("stopped", "failed"))
        if not self.json("api/streams")["draining"]:
            raise harness.Failure("the page does not say that the program drains")


def main():
    names = ["ingest", "metrics", "multicam", "relay"]
    with tempfile.TemporaryDirectory() as directory, concurrent.futures.ThreadPoolExecutor() as pool:
        cases = [Case(pathlib.Path(directory), name) for name in names]
        list(pool.map(Case.fail, cases))
        served = dict(zip(names, pool.map(Case.run, cases)))
    for name, metrics in served.items():
        if metrics != served["metrics"]:
            raise harness.Failure(f"{name} and metrics differ in the metrics {sorted(metrics ^ served['metrics'])}")
    print(f"operating: ok, {len(served['metrics'])} metrics in each of {', '.join(names)}")


if __name__ == "__main__":
    try:
        main()
    except harness.Failure as failure:
        sys.exit(f"check_operating: {failure}")
