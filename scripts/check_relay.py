#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Runs the relay of examples/relay with a publisher, a receiver of its notifications, and a headless Chromium on its page, which
plays the stream while its publisher is killed and returns.

Runs with the Python of .venv, which has selenium.
"""

import hashlib
import hmac
import http.server
import json
import pathlib
import queue
import re
import secrets
import signal
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import browser
import harness
import prometheus_text

RELAY = harness.RELEASE / "rtmp2-relay"
PAGE_LINE = re.compile(r"^page on (http://\S+/)")
STREAM = "live/ann/cam"
SIZE = (640, 360)
# A stream without a user.
OTHER = "live/plain"
OTHER_SIZE = (320, 180)
SEGMENT_SECONDS = 2
# Limit of each wait in seconds, also for a busy machine. Reached only if something is broken.
PATIENCE = 120
NAMES = ["application", "stream", "user"]


def is_signed(headers, body, secret):
    """Returns true for a notification with a valid signature. Each receiver has to check that first."""
    timestamp = headers["X-Relay-Timestamp"]
    mac = hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256)
    is_fresh = abs(time.time() - int(timestamp)) < 300
    return is_fresh and hmac.compare_digest("sha256=" + mac.hexdigest(), headers["X-Relay-Signature"])


class Receiver:
    """An HTTP server that answers 503 to the first notification, and 204 to all others. It keeps those that it accepted."""

    def __init__(self):
        self.secret = secrets.token_hex(32)
        self.attempts = []
        self.wrong = []
        self._accepted = queue.Queue()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver.receive(self.headers, body)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def receive(self, headers, body):
        """Handles a notification like a receiver in production, and returns the status of the answer."""
        if not is_signed(headers, body, self.secret.encode()):
            self.wrong.append(f"signature of {body!r}, {headers['X-Relay-Timestamp']}")
            return 401
        notification = json.loads(body)
        if notification["id"] != headers["X-Relay-Id"]:
            self.wrong.append(f"two ids: {headers['X-Relay-Id']} and {notification['id']}")
        self.attempts.append(notification)
        if len(self.attempts) == 1:
            return 503
        self._accepted.put(notification)
        return 204

    def expect(self, event, stream):
        """Waits for the next accepted notification, and fails unless it is this one."""
        try:
            notification = self._accepted.get(timeout=PATIENCE)
        except queue.Empty:
            raise harness.Failure(f"no notification that {stream} is {event}; attempts: {self.attempts}") from None
        name = "/".join(part for part in (notification["application"], notification["user"], notification["stream"]) if part)
        if (notification["event"], name) != (event, stream) or self.wrong:
            raise harness.Failure(f"instead of {event} of {stream} came {notification}; wrong: {self.wrong}")
        return notification

    def finish(self):
        if not self._accepted.empty() or self.wrong:
            raise harness.Failure(f"more notifications than expected: {list(self._accepted.queue)}; wrong: {self.wrong}")


class Relay:
    def __init__(self, directory, receiver):
        secret = directory / "secret"
        secret.write_text(receiver.secret + "\n")
        self.directory = directory / "hls"
        self.process = harness.Process(
            [RELAY, "--rtmp", "127.0.0.1:0", "--http", "127.0.0.1:0", "--directory", self.directory,
             "--notify", receiver.url, "--notify-secret-file", secret],
        )

    def __enter__(self):
        self.process.__enter__()
        self.page = self.process.wait_for(PAGE_LINE).group(1)
        self.port = int(self.process.wait_for(harness.LISTENING_LINE).group(1))
        return self

    def __exit__(self, *arguments):
        self.process.__exit__(*arguments)

    def ask(self, method, path):
        """Sends a request, and returns (status, headers, body)."""
        request = urllib.request.Request(self.page + path, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def get(self, path):
        """Gets a page, and returns (status, headers, text)."""
        status, headers, body = self.ask("GET", path)
        return status, headers, body.decode()

    def json(self, path):
        status, _, text = self.get(path)
        if status != 200:
            raise harness.Failure(f"/{path} answers {status}: {text}")
        return json.loads(text)

    def metrics(self):
        status, headers, text = self.get("metrics")
        if status != 200 or headers["Content-Type"] != "text/plain; version=0.0.4":
            raise harness.Failure(f"/metrics answers {status} {headers['Content-Type']}: {text}")
        try:
            return prometheus_text.parse(text)
        except prometheus_text.Malformed as malformed:
            raise harness.Failure(f"{malformed} in:\n{text}") from None


# About 12 frames a second at a variable rate, and groups of pictures of one frame and of 5 s.
DIRTY = [
    *("-vf", r"select=gt(random(1)\,0.6)", "-fps_mode", "vfr", "-g", "600", "-sc_threshold", "0"),
    *("-force_key_frames", "expr:lt(mod(n,60),2)", "-ar", "44100", "-ac", "1"),
]


def publisher(relay, stream, size=SIZE, more=()):
    """Starts a publisher that continues until it is stopped."""
    arguments = harness.generated(3600, size="{}x{}".format(*size))
    return harness.ffmpeg([*arguments, *more, "-f", "flv", f"rtmp://127.0.0.1:{relay.port}/{stream}"])


class Player:
    """The page in the browser."""

    STATE = """
        const quality = video.getVideoPlaybackQuality();
        const buffered = [...Array(video.buffered.length).keys()].map((i) => [video.buffered.start(i), video.buffered.end(i)]);
        return {
            time: video.currentTime, ended: video.ended, width: video.videoWidth, height: video.videoHeight, paused: video.paused,
            frames: quality.totalVideoFrames, dropped: quality.droppedVideoFrames, buffered,
            sound: video.webkitAudioDecodedByteCount, text: document.body.innerText,
            segments: window.segments?.length ?? 0,
            continuity: window.segments?.at(-1) ?? null,
        };
    """
    # Keeps the number of discontinuities before each segment that is played.
    WATCH = """
        window.segments = [];
        hls.on(Hls.Events.FRAG_CHANGED, (_, change) => window.segments.push(change.frag.cc));
    """

    def __init__(self, driver, page):
        from selenium.webdriver.common.by import By

        self.by = By
        self.driver = driver
        driver.get(page)

    def state(self):
        return self.driver.execute_script(self.STATE)

    def until(self, what, holds):
        """Waits until `holds` is true of the state of the page, and returns that state."""
        from selenium.common.exceptions import TimeoutException
        from selenium.webdriver.support.wait import WebDriverWait

        state = {}

        def look(_):
            state.update(self.state())
            return holds(state)

        try:
            WebDriverWait(self.driver, PATIENCE, 0.2).until(look)
        except TimeoutException:
            raise harness.Failure(f"the page never shows {what}; {state}; {self.console()}") from None
        return state

    def choose(self, name):
        """Clicks the stream in the list, as soon as its button is enabled."""
        from selenium.common.exceptions import TimeoutException
        from selenium.webdriver.support.wait import WebDriverWait

        def can_be_clicked(driver):
            buttons = driver.find_elements(self.by.CSS_SELECTOR, "#streams button:enabled")
            return next((button for button in buttons if name in button.text.splitlines()), None)

        try:
            WebDriverWait(self.driver, PATIENCE, 0.2).until(can_be_clicked).click()
        except TimeoutException:
            raise harness.Failure(f"no {name} in the list: {self.state()}; {self.console()}") from None
        self.watch()

    def watch(self):
        self.driver.execute_script(self.WATCH)

    def plays(self, segments, size=SIZE):
        """Waits until so many more segments have been played."""
        before = self.state()
        seconds = (segments - 1) * SEGMENT_SECONDS

        def holds(state):
            return (
                state["time"] >= before["time"] + seconds
                and state["frames"] > before["frames"]
                and state["segments"] >= before["segments"] + segments
            )

        state = self.until(f"{segments} segments more than {before}", holds)
        if (state["width"], state["height"]) != size or not state["sound"] or state["paused"]:
            raise harness.Failure(f"the player does not play the stream that was sent: {state}")
        return state

    def console(self):
        entries = [entry for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]
        # A stream may end between its place in the list and its picture.
        return [entry for entry in entries if not ("/thumbnail?" in entry["message"] and " 404 " in entry["message"])]

    def finish(self):
        """Fails if the console has a warning or an error."""
        console = self.console()
        if console:
            raise harness.Failure(f"the console of the page has {console}")


def check_served(relay, notification):
    """Checks everything that is served beside the page, while there is a stream."""
    health = relay.json("health")
    if health != {"status": "ok"}:
        raise harness.Failure(f"health is {health}")
    (stream,) = relay.json("streams")["streams"]
    if not stream["ready"] or stream["playlist"] != notification["playlist"] or not notification["playlist"].startswith(relay.page):
        raise harness.Failure(f"the notification was {notification}, and the list has {stream}")
    playlist = stream["path"]
    status, headers, text = relay.get(playlist)
    expected = {
        "Content-Type": "application/vnd.apple.mpegurl",
        "Cache-Control": "no-cache",
        "Access-Control-Allow-Origin": "*",
    }
    if status != 200 or any(headers[name] != value for name, value in expected.items()):
        raise harness.Failure(f"{playlist} answers {status} {dict(headers)}")
    segment = re.findall(r"^[^#\s].*$", text, re.MULTILINE)[-1]
    status, headers, _ = relay.ask("HEAD", playlist.rsplit("/", 1)[0] + "/" + segment)
    if status != 200 or headers["Content-Type"] != "video/mp2t" or "immutable" not in headers["Cache-Control"]:
        raise harness.Failure(f"{segment} answers {status} {dict(headers)}")
    for hidden in ("hls/", "hls/live/", "hls/../secret", "hls/%2e%2e/secret"):
        if relay.get(hidden)[0] != 404:
            raise harness.Failure(f"{hidden} is served")
    labels = tuple(zip(NAMES, ("live", "cam", "ann")))
    samples = relay.metrics()
    for name, is_right in {
        ("relay_stream_ready", labels): lambda value: value == 1,
        ("relay_stream_uptime_seconds", labels): lambda value: value > 0,
        ("relay_stream_segments_total", labels): lambda value: value >= 2,
        ("relay_stream_frames_written_total", labels): lambda value: value >= 60,
        ("relay_streams", ()): lambda value: value == 1,
        ("relay_healthy", ()): lambda value: value == 1,
        ("relay_notifications_total", (("outcome", "delivered"),)): lambda value: value == 1,
        ("relay_notifications_total", (("outcome", "retried"),)): lambda value: value == 1,
    }.items():
        if name not in samples or not is_right(samples[name]):
            raise harness.Failure(f"{name} is {samples.get(name)}")


def check_unhealthy(relay):
    """Fails unless a relay without its directory reports that it is unhealthy."""
    elsewhere = relay.directory.with_name("elsewhere")
    relay.directory.rename(elsewhere)
    status, _, text = relay.get("health")
    if status != 503 or "is not writable" not in json.loads(text)["problems"]["disk"]:
        raise harness.Failure(f"health is {status} {text}")
    if relay.metrics()["relay_healthy", ()] != 0:
        raise harness.Failure("the metrics report a healthy relay")
    elsewhere.rename(relay.directory)


def check(directory):
    with Receiver() as receiver, Relay(directory, receiver) as relay, browser.chromium() as driver:
        try:
            watch(relay, receiver, driver)
        except harness.Failure as failure:
            raise harness.Failure(f"{failure}\n{relay.process}") from None


def watch(relay, receiver, driver):
    if relay.json("streams") != {"streams": []}:
        raise harness.Failure("there are streams without a publisher")
    player = Player(driver, relay.page)
    player.until("no streams", lambda state: "No streams." in state["text"])
    with publisher(relay, STREAM, more=DIRTY) as first:
        ready = receiver.expect("ready", STREAM)
        if receiver.attempts[0] != receiver.attempts[1]:
            raise harness.Failure(f"the second attempt differs from the first: {receiver.attempts}")
        player.choose(STREAM)
        before = player.plays(4)
        check_served(relay, ready)
        first.signal(signal.SIGKILL)
    with publisher(relay, STREAM) as second:
        player.until("media after the gap", lambda state: state["continuity"] > before["continuity"])
        after = player.plays(4)
        with publisher(relay, OTHER, OTHER_SIZE) as other:
            receiver.expect("ready", OTHER)
            player.choose(OTHER)
            player.plays(2, OTHER_SIZE)
            other.signal(signal.SIGTERM)
            receiver.expect("gone", OTHER)
        # This one unpublishes before it ends.
        second.signal(signal.SIGTERM)
        receiver.expect("gone", STREAM)
    # ffprobe plays it too.
    counts = harness.packets(ready["playlist"])
    if counts["video"] < 120 or counts["audio"] == 0:
        raise harness.Failure(f"ffprobe finds {counts} in {ready['playlist']}")
    player.until("an empty list", lambda state: "No streams." in state["text"])
    player.until("the end", lambda state: state["ended"] and "The stream has ended" in state["text"])
    check_unhealthy(relay)
    with publisher(relay, OTHER, OTHER_SIZE):
        receiver.expect("ready", OTHER)
        # The page plays by itself, without a click.
        player.until("the return", lambda state: not state["ended"] and state["frames"] > 0)
        player.watch()
        player.plays(2, OTHER_SIZE)
        player.finish()
        relay.process.signal(signal.SIGTERM)
        receiver.expect("gone", OTHER)
        relay.process.finish()
    receiver.finish()
    print(
        f"relay: ok, played {after['time']:.1f} s in {after['segments']} segments, {after['frames']} frames of which"
        f" {after['dropped']} were dropped, over {after['continuity'] - before['continuity']} discontinuity"
    )


def main():
    if not RELAY.exists():
        raise harness.Failure(f"{RELAY} is missing: cargo build --release --package rtmp2-relay")
    with tempfile.TemporaryDirectory() as directory:
        check(pathlib.Path(directory))


if __name__ == "__main__":
    try:
        main()
    except harness.Failure as failure:
        sys.exit(f"check_relay: {failure}")
