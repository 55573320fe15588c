#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Opens the operator's page of rtmp2-metrics in a headless Chromium, and compares what it shows and plots with the statistics while
a publisher is cut off, comes back, and is disconnected with a button.

Runs with the Python of .venv, which has selenium. --images FOLDER keeps pictures of the page there, for the documentation;
--seconds says for how long it is watched before the publisher is cut off.
"""

import argparse
import json
import pathlib
import re
import signal
import sys
import tempfile
import time
import urllib.request
import xml.etree.ElementTree

import browser
import harness
import prometheus_text

PROGRAM = harness.RELEASE / "rtmp2-metrics"
PAGE_LINE = re.compile(r'"message":"page on (http://[^"]+)"')
LISTENING_LINE = re.compile(r'"message":"listening on .*:(\d+)/"')
TOKEN = "0123456789abcdef0123456789abcdef"
# Limit of each wait in seconds, also for a busy machine. Reached only if something is broken.
PATIENCE = 60
ACTIVE, RECONFIGURING, PAUSED, STOPPED = 1, 2, 3, 4
ROUTES = {"studio": "live/studio-secret", "garden": "live/garden-secret", "gate": "live/gate-secret"}


class Program:
    """rtmp2-metrics with a JSON log."""

    def __init__(self, directory):
        token = directory / "token"
        token.write_text(TOKEN + "\n")
        routes = [f"{name}={path}" for name, path in ROUTES.items()]
        self.process = harness.Process(
            [PROGRAM, "--port", "0", "--metrics", "127.0.0.1:0", "--token-file", token, "--log-format", "json", *routes]
        )

    def __enter__(self):
        self.process.__enter__()
        self.page = self.process.wait_for(PAGE_LINE).group(1)
        self.port = int(self.process.wait_for(LISTENING_LINE).group(1))
        return self

    def __exit__(self, *arguments):
        self.process.__exit__(*arguments)

    def get(self, path):
        with urllib.request.urlopen(self.page + path, timeout=PATIENCE) as response:
            return response.read().decode()

    def json(self, path):
        return json.loads(self.get(path))

    def history(self, name):
        return self.json(f"api/streams/{name}/history")

    def publish(self, path, size="640x360", rate=30):
        arguments = harness.generated(3600, rate=rate, size=size)
        return harness.ffmpeg([*arguments, "-f", "flv", f"rtmp://127.0.0.1:{self.port}/{path}"])

    def log(self):
        """Returns all lines of the log, each of which has to be a JSON object."""
        entries = []
        for _, line in self.process.lines:
            try:
                entries.append(json.loads(line))
            except json.JSONDecodeError:
                raise harness.Failure(f"this line of the log is no JSON: {line!r}") from None
        return entries

    def wait_for_entry(self, event, **fields):
        """Waits for an entry of the log with these fields."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for entry in self.log():
                if entry["event"] == event and all(entry.get(name) == value for name, value in fields.items()):
                    return entry
            self.process.wait_for(re.compile(""), seconds=max(0.1, deadline - time.monotonic()))
        raise harness.Failure(f"no entry {event} with {fields} in the log: {self.log()}")


class Page:
    """The page in the browser."""

    # Everything that the card of a stream shows, and the data that its plots are drawn from.
    CARD = """
        const element = document.querySelector(`.board-card[data-name="${arguments[0]}"]`);
        if (!element) return null;
        const plots = element.card.plots;
        return {
            state: element.querySelector('.board-state').textContent,
            code: element.dataset.state,
            bitrate: element.querySelector('.board-bitrate').textContent,
            frameRate: element.querySelector('.board-frame-rate').textContent,
            facts: element.querySelector('.board-facts').textContent,
            hidden: element.hidden,
            plotted: plots && { time: plots.rate.data[0], bitrate: plots.rate.data[1], frame_rate: plots.rate.data[2],
                                stateTime: plots.state.data[0], state: plots.state.data[1] },
            drawn: [...element.querySelectorAll('canvas')].map((canvas) => canvas.width * canvas.height),
        };
    """

    def __init__(self, driver, address):
        from selenium.webdriver.common.by import By
        from selenium.webdriver.common.keys import Keys

        self.by, self.keys = By, Keys
        self.driver = driver
        driver.get(address)

    def card(self, name):
        return self.driver.execute_script(self.CARD, name)

    def text(self):
        return self.driver.execute_script("return document.body.innerText")

    def until(self, what, holds):
        from selenium.common.exceptions import TimeoutException
        from selenium.webdriver.support.wait import WebDriverWait

        try:
            return WebDriverWait(self.driver, PATIENCE, 0.2).until(lambda _: holds())
        except TimeoutException:
            raise harness.Failure(f"the page never shows {what}; {self.text()}; {self.console()}") from None

    def until_state(self, name, code):
        def holds():
            card = self.card(name)
            return card if card and card["code"] == code and card["plotted"] else None

        return self.until(f"{name} as {code}", holds)

    def find(self, selector):
        return self.driver.find_element(self.by.CSS_SELECTOR, selector)

    def button(self, name, text):
        self.find(f'.board-card[data-name="{name}"] button[aria-label^="{text}"]').click()

    def confirm(self, token=None):
        """Answers the dialog with yes."""
        if token is not None:
            self.find("#board-token").send_keys(token)
        self.find("#board-dialog-yes").click()

    def notice(self):
        return self.find("#board-notice").text

    def appear(self, scheme, width, height):
        """Sets the colours that the user prefers, and the size of the window."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def keep(self, path):
        """Keeps a picture, once all plots are drawn for the present size."""
        script = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 50)))"
        self.driver.execute_async_script(script)
        if not self.driver.save_screenshot(str(path)) or path.stat().st_size < 10_000:
            raise harness.Failure(f"the picture {path} is empty")

    def console(self):
        # The browser reports each answer that is an error, also the one to a wrong token.
        entries = [entry for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]
        return [entry for entry in entries if "status of 401" not in entry["message"]]


def check_plots(program, page, name):
    """Fails unless each plotted value is the sample that the program has for that time."""
    plotted = page.card(name)["plotted"]
    history = program.history(name)
    samples = {
        moment: values
        for moment, *values in zip(history["time"], history["bitrate"], history["frame_rate"], history["state"])
    }
    if not plotted["time"] or plotted["time"] != plotted["stateTime"]:
        raise harness.Failure(f"the plots of {name} have no common times: {plotted}")
    shown = zip(plotted["time"], plotted["bitrate"], plotted["frame_rate"], plotted["state"])
    for moment, *values in shown:
        if samples.get(moment) != values:
            raise harness.Failure(f"at {moment} the plots of {name} have {values}, and the program {samples.get(moment)}")
    return len(plotted["time"])


def check_statistics(program, name):
    """Fails unless the samples around a scrape have the values of the element's statistics at that time."""
    labels = (("application", "live"), ("element", name))
    started = time.time()
    samples = prometheus_text.parse(program.get("metrics"))
    ended = time.time()
    state = samples["rtmp2_stream_status", labels]
    # The statistics keep the frame rate of a publisher that is silent or gone.
    frame_rate = samples["rtmp2_frames_per_second", labels] if state == ACTIVE else None
    found = {"bitrate": samples["rtmp2_received_bytes_per_second", labels] * 8, "frame_rate": frame_rate, "state": state}
    deadline = time.monotonic() + PATIENCE
    while (history := program.history(name))["time"][-1] <= ended:
        if time.monotonic() > deadline:
            raise harness.Failure(f"there is no sample of {name} any more")
        time.sleep(0.1)
    # The statistics change once a second, as the samples do.
    around = [index for index, moment in enumerate(history["time"]) if started - 2.5 < moment < ended + 2.5]
    for kind, value in found.items():
        near = [history[kind][index] for index in around]
        if value not in near:
            raise harness.Failure(f"{kind} of {name} is {value} in the statistics, and {near} in the history")


def check_stat(program):
    """Reads /stat as programs do that were written for nginx-rtmp."""
    document = xml.etree.ElementTree.fromstring(program.get("stat"))
    streams = {
        stream.findtext("name"): stream
        for application in document.findall("./server/application")
        if application.findtext("name") == "live"
        for stream in application.findall("./live/stream")
    }
    if set(streams) != {"studio", "garden"}:
        raise harness.Failure(f"/stat has the streams {sorted(streams)}")
    studio = streams["studio"]
    for path in ("bw_in", "bw_video", "bytes_in", "time", "meta/video/frame_rate"):
        if not float(studio.findtext(path) or 0) > 0:
            raise harness.Failure(f"/stat has {studio.findtext(path)} as {path}")
    meta = {path: studio.findtext(f"meta/{path}") for path in ("video/width", "video/height", "video/codec", "audio/codec", "audio/sample_rate")}
    if list(meta.values()) != ["640", "360", "H264", "AAC", "48000"]:
        raise harness.Failure(f"/stat describes studio as {meta}")
    if studio.find("publishing") is None or studio.find("active") is None:
        raise harness.Failure("/stat does not say that studio is active")


def check_appearance(page, images):
    """Keeps pictures in light and dark, and fails where a telephone would have to scroll sideways."""
    for scheme in ("light", "dark"):
        page.appear(scheme, 1200, 660)
        background = page.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        brightness = sum(int(number) for number in re.findall(r"\d+", background)[:3])
        if (brightness > 380) != (scheme == "light"):
            raise harness.Failure(f"the background in {scheme} is {background}")
        page.keep(images / f"dashboard-{scheme}.png")
    page.appear("light", 390, 844)
    overflow = page.driver.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
    if overflow > 0:
        raise harness.Failure(f"a telephone has to scroll sideways by {overflow} pixels")
    page.keep(images / "dashboard-phone.png")
    page.appear("light", 1200, 900)


def check_keyboard(page):
    """Filters, changes cards and the wall with keys alone."""
    from selenium.webdriver.common.action_chains import ActionChains

    def press(keys):
        ActionChains(page.driver).send_keys(keys).perform()

    press("/")
    press("gar")
    if [page.card(name)["hidden"] for name in ROUTES] != [True, False, True]:
        raise harness.Failure("the filter does not show garden alone")
    press(page.keys.ESCAPE)
    if any(page.card(name)["hidden"] for name in ROUTES):
        raise harness.Failure("the filter is not cleared")
    page.driver.execute_script("""document.querySelector('.board-card[data-name="studio"]').focus()""")
    press(page.keys.ARROW_RIGHT)
    focused = page.driver.execute_script("return document.activeElement.dataset.name")
    if focused != "garden":
        raise harness.Failure(f"the arrow leads from studio to {focused}")
    for is_on in (True, False):
        press("w")
        if page.driver.execute_script("return document.body.classList.contains('wall')") != is_on:
            raise harness.Failure("the key for the wall has no effect")


def watch(program, page, images, seconds):
    page.until("no stream", lambda: all((card := page.card(name)) and card["code"] == "stopped" for name in ROUTES))
    garden = program.publish(ROUTES["garden"], size="320x180", rate=25)
    with garden, program.publish(ROUTES["studio"]) as first:
        page.until_state("garden", "active")
        card = page.until_state("studio", "active")
        if "● Live" not in card["state"] or min(card["drawn"]) == 0:
            raise harness.Failure(f"the card of studio shows {card}")
        page.until("the frame rates", lambda: (page.card("studio")["frameRate"], page.card("garden")["frameRate"]) == ("30 fps", "25 fps"))
        # In its first second a publisher's bitrate is its average so far, which changes all the time.
        page.until("three seconds", lambda: page.card("studio")["plotted"]["state"].count(ACTIVE) > 3)
        for name in ("studio", "garden", "gate"):
            check_statistics(program, name)
        for text in ("127.0.0.1:", "H.264", "640x360 30 fps", "AAC 48 kHz"):
            page.until(text, lambda text=text: text in page.card("studio")["facts"])
        check_stat(program)
        # One who does not know the key.
        with harness.ffmpeg([*harness.generated(1), "-f", "flv", f"rtmp://127.0.0.1:{program.port}/live/studio-guessed"]):
            page.until("the refusal", lambda: "live/stu…ed" in page.text() and "no-stream" in page.text())
        # One that falls silent, and goes on.
        garden.signal(signal.SIGSTOP)
        program.wait_for_entry("stalled", stream="garden")
        page.until_state("garden", "paused")
        garden.signal(signal.SIGCONT)
        program.wait_for_entry("resumed", stream="garden")
        page.until_state("garden", "active")
        time.sleep(seconds)
        # Cut off without a word: the element waits for it, and then gives it up.
        first.signal(signal.SIGKILL)
        paused = page.until_state("studio", "paused")
        if paused["frameRate"] != "–" or "‖ Interrupted" not in paused["state"]:
            raise harness.Failure(f"a publisher that was cut off is shown as {paused}")
        check_appearance(page, images)
        check_keyboard(page)
        page.until_state("studio", "stopped")
        with program.publish(ROUTES["studio"]):
            page.until_state("studio", "active")
            states = page.card("studio")["plotted"]["state"]
            changes = [state for index, state in enumerate(states) if index == 0 or state != states[index - 1]]
            steady = [state for state in changes if state != RECONFIGURING]
            if steady != [STOPPED, ACTIVE, PAUSED, STOPPED, ACTIVE]:
                raise harness.Failure(f"the states of studio were plotted as {changes}")
            count = check_plots(program, page, "studio") + check_plots(program, page, "garden")
            page.button("studio", "Disconnect")
            page.confirm("a wrong token of some length")
            page.until("a wrong token", lambda: "Authorization" in page.notice())
            page.button("studio", "Disconnect")
            page.confirm(TOKEN)
            page.until("the end of studio", lambda: "studio was disconnected" in page.notice())
            program.wait_for_entry("ended", stream="studio", reason="disconnected")
    console = page.console()
    if console:
        raise harness.Failure(f"the console of the page has {console}")
    return count


def check_log(program):
    """Fails unless the log has each event once that happened once."""
    entries = program.log()
    for event, fields, count in (
        ("connected", {"stream": "garden"}, 1),
        ("connected", {"stream": "studio"}, 2),
        ("refused", {"stream-key": "stu…ed", "reason": "no-stream"}, 1),
        ("stalled", {"stream": "garden"}, 1),
        ("resumed", {"stream": "garden"}, 1),
        ("ended", {"stream": "studio", "reason": "closed"}, 1),
        ("ended", {"stream": "studio", "reason": "disconnected"}, 1),
        ("operator-disconnects", {"stream": "studio"}, 1),
    ):
        found = [e for e in entries if e["event"] == event and all(e.get(name) == value for name, value in fields.items())]
        if len(found) != count:
            raise harness.Failure(f"the log has {event} with {fields} {len(found)} times: {entries}")
    for path in ROUTES.values():
        if any(path.split("/")[1] in json.dumps(entry) for entry in entries):
            raise harness.Failure("a stream key is in the log")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=pathlib.Path)
    parser.add_argument("--seconds", type=int, default=0)
    options = parser.parse_args()
    if not PROGRAM.exists():
        raise harness.Failure(f"{PROGRAM} is missing: cargo build --release --package rtmp2-metrics")
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        with Program(directory) as program, browser.chromium() as driver:
            try:
                count = watch(program, Page(driver, program.page), options.images or directory, options.seconds)
                check_log(program)
                program.process.signal(signal.SIGTERM)
                program.process.finish()
            except harness.Failure as failure:
                raise harness.Failure(f"{failure}\n{program.process}") from None
    print(f"dashboard: ok, {count} plotted samples equal those of the program")


if __name__ == "__main__":
    try:
        main()
    except harness.Failure as failure:
        sys.exit(f"check_dashboard: {failure}")
