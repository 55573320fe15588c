#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Installs the packages in /debs and tries them, inside the system that scripts/compat.sh has made. Arguments: the target folder
of the build, and `full` or `short`. Writes /results.json: a result in words for each check.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import urllib.error
import urllib.request

import harness

ELEMENTS = [
    "rtmp2serversrc", "rtmp2serverbin", "rtmp2multiserversrc", "eflvdemux", "eflvlivedemux", "rtmp2fallbacksink",
    "rtmp2recordsink",
]
PACKAGES = ["gstreamer1.0-rtmp2server", "rtmp2-relay", "rtmp2-multicam"]
# Groups of the integration tests that need no other server, by their first words.
GROUPS = [
    "bin::", "cases::", "codecs::", "delivery_interval::", "direct_delivery::", "dropping::", "enhanced::", "fidelity::",
    "irregular_media::", "late_publisher::", "multi::", "output::", "pausing::", "recording::", "resume::", "state::",
    "stopping::", "successive_publishers::", "timestamps::",
]
# nginx is not there.
SKIPPED = ["--skip=from_nginx"]
SECONDS = 3


class Failure(harness.Failure):
    """A command that failed, with its whole output."""

    def __init__(self, text, output):
        super().__init__(text)
        self.output = output


def run(*command, seconds=120, env=None):
    """Runs a command, and returns its output. Fails unless it succeeds."""
    done = subprocess.run(
        [str(word) for word in command], check=False, capture_output=True, text=True, errors="replace", timeout=seconds,
        stdin=subprocess.DEVNULL, env=dict(os.environ) | (env or {}),
    )
    if done.returncode != 0:
        output = (done.stdout + done.stderr).strip()
        raise Failure(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{output[-3000:]}", output)
    return done.stdout


def files():
    """Returns all files of the system but those that a package manager and programs keep for themselves."""
    skipped = ["proc", "sys", "dev", "tmp", "run", "debs", "root", "results.json"]
    skipped = [f"/{name}" for name in skipped] + ["/var/lib/dpkg", "/var/lib/apt", "/var/cache", "/var/log"]
    # Of the authority that trusted_authority makes.
    skipped += ["/etc/ssl", "/usr/local/share/ca-certificates"]
    skipped += [str(harness.TOP), sys.argv[1]]
    found = set()
    for folder, folders, names in os.walk("/"):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in skipped]
        paths = [os.path.join(folder, name) for name in folders + names]
        found.update(path for path in paths if path not in skipped)
    return found


def version(command, pattern):
    return re.search(pattern, run(*command)).group(1)


def install():
    """Installs the packages, without a network."""
    debs = sorted(pathlib.Path("/debs").glob("*.deb"))
    debs = [deb for deb in debs if "-dbgsym_" not in deb.name]
    run("apt-get", "install", "-y", "--no-install-recommends", *debs, env={"DEBIAN_FRONTEND": "noninteractive"}, seconds=300)
    return "installed"


def inspect():
    """Inspects each element with warnings as errors. All are what the golden texts say."""
    # The first run also scans the plugins of others, which may warn.
    run("gst-inspect-1.0", ELEMENTS[0])
    for element in ELEMENTS:
        run("gst-inspect-1.0", element, env={"G_DEBUG": "fatal-warnings"})
    run("/usr/bin/python3", harness.TOP / "scripts/check_inspect.py")
    return f"{len(ELEMENTS)} elements"


def record(directory):
    """Records a publisher with gst-launch-1.0: every frame."""
    with harness.launch("rtmp2serversrc port=0 ! filesink location=out.flv", cwd=directory) as pipeline:
        sent = harness.publish(f"rtmp://127.0.0.1:{harness.port_of(pipeline)}/live/camera1", SECONDS)
        pipeline.finish()
    return all_of(sent, harness.packets(directory / "out.flv"))


def all_of(sent, counts):
    if counts["video"] != sent or counts["audio"] == 0:
        raise harness.Failure(f"{sent} frames were sent, and {counts} recorded")
    return f"{sent} of {sent} frames"


def multitrack(directory):
    """Publishes two video tracks and two audio tracks with GStreamer's own eflvmux, which came with 1.28."""
    if subprocess.run(["gst-inspect-1.0", "--exists", "eflvmux"], check=False).returncode != 0:
        return "no eflvmux"
    tracks = ["video_0", "video_1", "audio_0", "audio_1"]
    sinks = " ".join(f"s.{track} ! queue ! filesink async=false location={track}.bin" for track in tracks)
    with harness.launch(f"rtmp2serverbin name=s port=0 {sinks}", cwd=directory) as pipeline:
        port = harness.port_of(pipeline)
        video = "x264enc tune=zerolatency key-int-max=25 ! h264parse ! queue"
        publisher = (
            f"eflvmux name=mux streamable=true ! rtmp2sink location=rtmp://127.0.0.1:{port}/live/camera1"
            f" videotestsrc num-buffers=75 is-live=true ! video/x-raw,width=320,height=180,framerate=25/1 ! {video} ! mux.video"
            f" videotestsrc num-buffers=75 is-live=true pattern=ball ! video/x-raw,width=320,height=180,framerate=25/1 ! {video} ! mux.video_1"
            " audiotestsrc num-buffers=150 is-live=true ! avenc_aac ! aacparse ! queue ! mux.audio"
            " audiotestsrc num-buffers=150 is-live=true wave=ticks ! avenc_aac ! aacparse ! queue ! mux.audio_1"
        )
        # Its exit code says nothing: rtmp2sink calls it an error that the server closes first, at the end.
        with harness.launch(publisher):
            pipeline.finish(60)
    empty = [track for track in tracks if (directory / f"{track}.bin").stat().st_size == 0]
    if empty:
        raise harness.Failure(f"nothing came on {', '.join(empty)}")
    return "2 video, 2 audio tracks"


def notified(directory):
    """Returns a socket that a program notifies as systemd's, and its environment."""
    path = directory / "notify"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(path))
    listener.settimeout(30)
    return listener, {"NOTIFY_SOCKET": str(path)}


def unit_command(package):
    """Returns the command of a package's unit, with the options of its default configuration."""
    unit = next(pathlib.Path("/").glob(f"*/lib/systemd/system/{package}.service"), None)
    unit = unit or pathlib.Path(f"/usr/lib/systemd/system/{package}.service")
    line = re.search(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE).group(1)
    options = re.search(r'^OPTIONS="(.*)"$', pathlib.Path(f"/etc/default/{package}").read_text(), re.MULTILINE).group(1)
    return line.replace("$OPTIONS", options).replace("%S", "/tmp/state").split()


def services(directory):
    """Starts both programs as their units do, in their default configuration: multicam sends its test picture to the relay."""
    listener, env = notified(directory)
    os.environ.update(env)
    try:
        with harness.Process(unit_command("rtmp2-relay")) as relay:
            ready(listener, "rtmp2-relay")
            with harness.Process(unit_command("rtmp2-multicam")) as multicam:
                ready(listener, "rtmp2-multicam")
                relay_has_segments()
                player = play("http://127.0.0.1:8080/")
                multicam.signal(signal.SIGTERM)
                multicam.finish()
            relay.signal(signal.SIGTERM)
            relay.finish()
    finally:
        del os.environ["NOTIFY_SOCKET"]
    return f"multicam to relay, HLS, page{player}"


class Browser:
    """A headless Chromium, by the protocol of its driver (W3C WebDriver)."""

    def __init__(self, port):
        self.address = f"http://127.0.0.1:{port}/session"
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--autoplay-policy=no-user-gesture-required"]
        options = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": arguments}}}}
        self.address += "/" + self._post("", options)["sessionId"]

    def _post(self, path, body):
        request = urllib.request.Request(self.address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise harness.Failure(f"the browser says: {error.read().decode(errors='replace')[:1000]}") from None

    def open(self, url):
        self._post("/url", {"url": url})

    def run(self, script):
        """Runs the body of an asynchronous function, and returns what it passes on to `arguments[0]`."""
        self._post("/timeouts", {"script": 60000})
        return self._post("/execute/async", {"script": script, "args": []})

    def close(self):
        urllib.request.urlopen(urllib.request.Request(self.address, method="DELETE"), timeout=30).close()


# Chooses the first stream as soon as it is listed, and answers when two seconds of it were played.
WATCH = """
const answer = arguments[0];
setInterval(() => {
    const video = document.querySelector("video");
    if (video && video.currentTime > 2 && video.videoWidth > 0) answer(`${video.videoWidth}x${video.videoHeight}`);
    else if (!video || video.readyState === 0) document.querySelector("#streams button:enabled")?.click();
}, 500);
"""


def play(url):
    """Plays the first stream of the relay's page in Chromium, where the suite has it. Returns what to say about it."""
    if shutil.which("chromedriver") is None:
        return " (no Chromium)"
    with harness.Process(["chromedriver", "--port=0"]) as driver:
        port = driver.wait_for(re.compile(r"started successfully on port (\d+)")).group(1)
        browser = Browser(port)
        browser.open(url)
        size = browser.run(WATCH)
        browser.close()
    return f" played by Chromium, {size}"


def ready(listener, program):
    while True:
        try:
            message = listener.recv(4096)
        except TimeoutError:
            raise harness.Failure(f"{program} did not report that it is ready") from None
        if b"READY=1" in message:
            return


def relay_has_segments():
    """Waits until the stream of multicam has a segment that ffprobe reads: the relay's list of streams says when."""
    command = ["ffprobe", "-v", "error", "-count_packets", "-show_entries", "stream=codec_name,nb_read_packets", "-of", "json"]
    url = "http://127.0.0.1:8080/hls/live/test/index.m3u8"
    with harness.ffmpeg(["-reconnect_on_http_error", "404", "-reconnect_delay_max", "30", "-i", url, "-t", "2", "-f", "null", "-"]) as player:
        player.finish(90)
    streams = json.loads(run(*command, "-read_intervals", "%+2", url))["streams"]
    if sorted(stream["codec_name"] for stream in streams) != ["aac", "h264"]:
        raise harness.Failure(f"the relay serves {streams}")


def trusted_authority():
    """Makes a certificate authority that this system trusts: ffmpeg 9 verifies certificates. Returns its folder."""
    folder = pathlib.Path("/root/ca")
    if folder.exists():
        return folder
    folder.mkdir()
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "2",
        "-addext", "basicConstraints=critical,CA:TRUE", "-out", folder / "ca.pem", "-keyout", folder / "ca-key.pem")
    trusted = pathlib.Path("/usr/local/share/ca-certificates/test.crt")
    trusted.write_bytes((folder / "ca.pem").read_bytes())
    run("update-ca-certificates")
    return folder


def readme():
    """Runs the lines of the README and of the documentation."""
    env = {"TEST_CA": str(trusted_authority())}
    output = run(sys.executable, harness.TOP / "scripts/check_readme.py", seconds=900, env=env)
    return f"{len(re.findall(r'^    ok', output, re.MULTILINE))} pipelines"


def integration():
    """Runs the groups of the integration tests that need no server beside them."""
    folder = pathlib.Path(sys.argv[1]) / "release/deps"
    binaries = [path for path in folder.glob("integration-*") if not path.suffix and os.access(path, os.X_OK)]
    with_groups = [path for path in binaries if "direct_delivery::" in run(path, "--list")]
    newest = max(with_groups, key=lambda path: path.stat().st_mtime)
    os.chdir(harness.TOP)
    env = {"TEST_CA": str(trusted_authority())}
    try:
        output = run(newest, *GROUPS, *SKIPPED, "--test-threads=4", seconds=1200, env=env)
    except Failure as failure:
        failed = re.findall(r"^    (\S+::\S+)$", failure.output, re.MULTILINE)
        reasons = failure.output.partition("\nfailures:\n")[2][:4000]
        raise harness.Failure(f"failed: {', '.join(sorted(set(failed)))}\n{reasons or failure}") from None
    return re.search(r"test result: ok\. (\d+) passed", output).group(1) + " tests"


def start_as_systemd():
    """Makes the folders that systemd makes for the units: of their dynamic users, with links to them."""
    for folder in ("/var/lib", "/var/cache"):
        for package in PACKAGES[1:]:
            own = pathlib.Path(folder, "private", package)
            own.mkdir(parents=True)
            (own / "file").touch()
            pathlib.Path(folder, package).symlink_to(own)


def remove(before):
    """Removes the packages: their configuration stays. Then removes that too: nothing of them is left."""
    start_as_systemd()
    run("dpkg", "--remove", *PACKAGES)
    if not pathlib.Path("/etc/rtmp2-multicam/multicam.json").exists():
        raise harness.Failure("the configuration was removed, not only the package")
    run("dpkg", "--purge", *PACKAGES)
    caches = {str(path) for path in pathlib.Path("/var/cache").rglob("*rtmp2*")}
    left = sorted((files() - before - {"/var/lib/private"}) | caches)
    if left:
        raise harness.Failure(f"left behind: {', '.join(left[:20])}")
    return "nothing left"


def older(deb, directory):
    """Makes a package of an older version, with the same files."""
    folder = directory / deb.stem
    run("dpkg-deb", "--raw-extract", deb, folder)
    control = folder / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*", "Version: 0.1.0-1", control.read_text(), flags=re.MULTILINE))
    run("dpkg-deb", "--build", "-Znone", folder, f"{folder}.deb")
    return f"{folder}.deb"


def upgrade(directory):
    """Installs the packages over those of an older version, with a changed configuration file, which stays."""
    debs = [deb for deb in sorted(pathlib.Path("/debs").glob("*.deb")) if "-dbgsym_" not in deb.name]
    run("dpkg", "--install", *[older(deb, directory) for deb in debs])
    path = pathlib.Path("/etc/default/rtmp2-relay")
    path.write_text(path.read_text() + "# changed\n")
    run("dpkg", "--install", *debs)
    if "# changed" not in path.read_text():
        raise harness.Failure(f"{path} was overwritten")
    versions = set(run("dpkg-query", "--show", "--showformat=${Version}\n", *PACKAGES).split())
    if len(versions) != 1 or "0.1.0-1" in versions:
        raise harness.Failure(f"the packages have the versions {versions}")
    return "configuration kept"


def main():
    is_full = sys.argv[2] == "full"
    results = {
        "gstreamer": version(["gst-launch-1.0", "--version"], r"GStreamer (\S+)"),
        "ffmpeg": version(["ffmpeg", "-version"], r"ffmpeg version (\d+[.\d]*)"),
    }
    before = files()
    checks = [("install", install), ("inspect", inspect), ("record", record), ("multitrack", multitrack), ("services", services)]
    if is_full:
        checks += [("readme", readme), ("integration", integration)]
    checks += [("upgrade", upgrade), ("remove", lambda: remove(before))]
    failed = False
    for name, check in checks:
        with tempfile.TemporaryDirectory() as directory:
            try:
                takes_directory = check.__code__.co_varnames[: check.__code__.co_argcount] == ("directory",)
                result = check(pathlib.Path(directory)) if takes_directory else check()
            except (harness.Failure, OSError, subprocess.TimeoutExpired, AttributeError) as failure:
                failed = True
                result = "FAILED"
                traceback.print_exc()
                print(f"compat: {name}: FAILED: {failure}", flush=True)
            else:
                print(f"compat: {name}: {result}", flush=True)
        results[name] = result
    pathlib.Path("/results.json").write_text(json.dumps(results, indent=2) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
