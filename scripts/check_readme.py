#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Runs every pipeline in README.md, in docs, in the READMEs of programs and in the elements' documentation, with the README's own
ffmpeg line as the publisher, and checks the output.

It replaces only parts that a test machine cannot have: the port by a free one, displays and loudspeakers by sinks that count, and
servers by one on this machine. Code that a page quotes from an example has to be in the example. Arguments: parts of pipelines, to
run only those.
"""

import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap

import harness

README = harness.TOP / "README.md"
PAGES = [README, *sorted(harness.TOP.glob("docs/*.md")), *sorted(harness.TOP.glob("examples/*/README.md"))]
SECONDS = 3
FRAMES = 90
STOPPED = re.compile(r"\bstream-status = .*stopped")
SHOWN = re.compile(r"GstFakeSink:shown: last-message = chain .* pts: ([0-9:.]+)")


def blocks(text, language):
    """Returns the code blocks in a language, each with the line before it."""
    pattern = re.compile(rf"^([^\n]*)\n```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [(match.group(1), match.group(2)) for match in pattern.finditer(text)]


def can_run(before):
    """Returns false for a block that is marked as not run, or that needs an element which is not installed. Its first line is that
    before the block."""
    needed = re.fullmatch(r"<!-- needs (\w+) -->", before)
    if needed:
        return subprocess.run(["gst-inspect-1.0", "--exists", needed.group(1)], check=False).returncode == 0
    return before != "<!-- not run -->"


def commands(text):
    """Yields every command in the sh and bash blocks that can run, its lines joined."""
    for before, block in blocks(text, "(?:ba)?sh"):
        if not can_run(before):
            print(f"readme: skipped, {before}: {block.splitlines()[0]}")
            continue
        for line in block.replace("\\\n", " ").splitlines():
            yield " ".join(line.split())


def element_documentation():
    """Yields the module comments that have a SECTION for an element, as Markdown."""
    for path in sorted((harness.TOP / "src").glob("*/mod.rs")):
        lines = re.findall(r"^//!(?: (.*))?$", path.read_text(), re.MULTILINE)
        if any(line.startswith("SECTION:element-") for line in lines):
            yield "\n".join(lines) + "\n"


def without_devices(command):
    """Returns the words of a command, with other sinks in place of devices. Only one of them prints its buffers: gst-launch-1.0
    loses notifications that come from two at a time."""
    video, audio = "fakesink silent=false sync=true name=shown", "fakesink sync=true"
    if command.startswith("gst-play-1.0 "):
        sinks = [f"--videosink={video}", f"--audiosink={audio}"]
        return [*shlex.split(command), "--no-interactive", *sinks]
    return shlex.split(command.replace("autovideosink", video).replace("autoaudiosink", audio))


def listeners(words):
    """Returns the number of listening elements of a pipeline: at least one, since a URI creates one too."""
    return max(1, sum(words.count(name) for name in ("rtmp2serversrc", "rtmp2serverbin", "rtmp2multiserversrc")))


def on_a_free_port(words):
    # Elements that share a port can't all bind any free port.
    port = 0 if listeners(words) == 1 else harness.free_port()
    words = [re.sub(r"^port=\d+$", f"port={port}", word) for word in words]
    return [re.sub(r"^((?:location=rtmp|(?:uri=)?rtmpserver)://[^:]+):\d+", rf"\1:{port}", word) for word in words]


def holds_every_frame(counts, sent):
    if counts["video"] != sent or counts["audio"] == 0:
        raise harness.Failure(f"{sent} frames were sent, and {counts} came out")


def check_files(directory, words, sent):
    """Checks the recordings that the pipeline names."""
    if "multifilesink" in words:
        return check_snapshots(directory)
    if tracks(words) > 1:
        return check_tracks(directory, words, sent)
    if "hlssink2" not in words:
        names = [word.removeprefix("location=") for word in words if re.match(r"location=(?!rtmp)", word)]
        for name in names:
            holds_every_frame(harness.packets(directory / name), sent)
        return " and ".join(names)
    playlist = (directory / "live.m3u8").read_text()
    counts = {"video": 0, "audio": 0}
    for segment in re.findall(r"^[^#\s].*$", playlist, re.MULTILINE):
        decodes_alone(directory / segment)
        for kind, count in harness.packets(directory / segment).items():
            counts[kind] += count
    holds_every_frame(counts, sent)
    return f"live.m3u8, {playlist.count('#EXTINF')} segments"


def check_snapshots(directory):
    """Fails unless there is a picture for each second."""
    pictures = sorted(directory.glob("snapshot*.jpg"))
    for picture in pictures:
        decodes_alone(picture)
    if len(pictures) < SECONDS:
        raise harness.Failure(f"{SECONDS} s were sent, and there are {len(pictures)} snapshots")
    return f"{len(pictures)} snapshots"


def check_tracks(directory, words, sent):
    """Fails unless there is a file with every frame for each video track, and one with audio; and unless the configuration for
    OBS asks for as many."""
    names = [word.removeprefix("location=") for word in words if word.startswith("location=")]
    counts = [harness.packets(directory / name) for name in names]
    videos = [count["video"] for count in counts if count["video"]]
    if videos != [sent] * tracks(words) or not any(count["audio"] for count in counts):
        raise harness.Failure(f"{sent} frames were sent in each track, and {counts} came out")
    obs = json.loads((harness.TOP / "docs" / "obs-multitrack.json").read_text())
    if len(obs["encoder_configurations"]) != tracks(words):
        raise harness.Failure("obs-multitrack.json has another number of encoders than the pipeline has video tracks")
    return " and ".join(names)


def tracks(words):
    """Returns the number of video tracks that a pipeline names."""
    numbers = [re.fullmatch(r"\w+\.video_(\d+)", word) for word in words]
    return max([1] + [int(number.group(1)) + 1 for number in numbers if number])


def decodes_alone(segment):
    """Fails unless a segment can be decoded without those before it."""
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-nostdin", "-i", str(segment), "-f", "null", "-"],
        check=False, capture_output=True, text=True, timeout=60,
    )
    if done.returncode != 0 or done.stderr:
        raise harness.Failure(f"{segment.name} cannot be decoded alone: {done.stderr.strip()[:400]}")


def addresses(words, publisher, port):
    """Returns the address to publish to for each of a pipeline's elements: the README's own address, except for the parts that
    their properties change."""
    values = dict(word.split("=", 1) for word in words if "=" in word)
    scheme = "rtmps" if "certificate-file" in values else "rtmp"
    user = f"{values['username']}:{values['password']}@" if "authmod" in values else ""
    path = re.search(r" rtmp://[^/]+/(\S+)$", publisher).group(1)
    keys = [word.removeprefix("stream-key=") for word in words if word.startswith("stream-key=")]
    # A variable matches any value.
    paths = [re.sub(r"[^/]+$", re.sub(r"\{\w+\}", "1", key), path) for key in keys] or [path]
    # An element with pads has a publisher for each linked pad.
    pads = [word for word in words if re.fullmatch(r"\w+\.src_\d+", word)]
    paths = [f"{path}_{index}" for index in range(len(pads))] or paths
    return [f"{scheme}://{user}127.0.0.1:{port}/{path}" for path in paths]


def make_certificate(directory):
    """Makes the files that a pipeline with TLS names, signed by the authority that TEST_CA names, if any: clients that verify
    certificates trust it there."""
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    authority = os.environ.get("TEST_CA")
    signed_by = ["-CA", f"{authority}/ca.pem", "-CAkey", f"{authority}/ca-key.pem"] if authority else []
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *name, "-days", "2", *signed_by,
         "-out", "certificate.pem", "-keyout", "key.pem"],
        cwd=directory, check=True, capture_output=True,
    )


def publish(publisher, address, directory, count=1):
    """Runs the README's ffmpeg line to its end, and returns the number of frames sent. Several video tracks need a newer ffmpeg."""
    words = [address if word.startswith("rtmp://") else word for word in shlex.split(publisher)[1:]]
    program = "ffmpeg"
    if count > 1:
        program, maps = harness.NEW_FFMPEG, ["-map", "0:v"] * count + ["-map", "0:a"]
        words[words.index("-c") : words.index("-c")] = maps
    with harness.ffmpeg(words, cwd=directory, program=program) as process:
        process.finish(SECONDS + 30)
        return harness.frames_sent(process)


def check_pipeline(command, publisher, directory):
    words = on_a_free_port(without_devices(command))
    environment = [word for word in words if re.match(r"[A-Z_]+=", word)]
    program, *words = words[len(environment) :]
    if "multifilesink" in words:
        # A pipeline that ends has written its last picture.
        words = [word for word in words if word != "keep-listening=true"]
    if any(word.startswith("certificate-file=") for word in words):
        make_certificate(directory)
    options = [word for word in words if word == "-e"] + ["-v"]
    words = [word for word in words if word != "-e"]
    receiver = None
    for index, word in enumerate(words):
        if word.startswith("uri=srt://"):
            receiver = harness.free_port(socket.SOCK_DGRAM)
            words[index] = f"uri=srt://:{receiver}"

    with harness.Process(["env", *environment, program, *options, *words], cwd=directory) as pipeline:
        for _ in range(listeners(words)):
            port = harness.port_of(pipeline)
        if receiver is None:
            targets = addresses(words, publisher, port)
            # All at the same time.
            with concurrent.futures.ThreadPoolExecutor() as pool:
                counts = set(pool.map(lambda target: publish(publisher, target, directory, tracks(words)), targets))
            (sent,) = counts
            if "keep-listening=true" in words:
                (target,) = targets
                # The stream stays open, so the check waits for the pictures.
                return shown_twice(pipeline, sent, publisher, target, directory)
            pipeline.finish()
            if any("name=shown" in word for word in words):
                return shown_once(pipeline, sent)
            return f"{check_files(directory, words, sent)}, {sent} frames"
        return received(pipeline, receiver, publisher, port, directory)


def check_fallback(command, publisher, directory):
    """Checks a pipeline that sends to servers: the first one is on this machine, and gets every frame."""
    with harness.launch("rtmp2serversrc port=0 ! filesink location=received.flv", cwd=directory) as server:
        target = f"rtmp://127.0.0.1:{harness.port_of(server)}/"
        words = [word.replace("rtmp://first.example/", target) for word in on_a_free_port(shlex.split(command))[1:]]
        # A source without an end gets a number of buffers.
        words = [part for word in words for part in ([word, f"num-buffers={FRAMES}"] if word == "videotestsrc" else [word])]
        with harness.launch(words, cwd=directory) as pipeline:
            sent = FRAMES
            if "rtmp2serversrc" in words:
                (source,) = addresses(words, publisher, harness.port_of(pipeline))
                sent = publish(publisher, source, directory)
            if "keep-listening=true" in words:
                pipeline.wait_for(STOPPED)
                pipeline.signal(signal.SIGINT)
            pipeline.finish()
            server.finish()
    counts = harness.packets(directory / "received.flv")
    if counts["video"] != sent:
        raise harness.Failure(f"{sent} frames were sent, and {counts} received")
    return f"received.flv, {sent} frames"


def check_recording(command, publisher, directory):
    """Checks a pipeline that records with rtmp2recordsink: its files have every frame."""
    words = on_a_free_port(shlex.split(command))[1:]
    with harness.launch(words, cwd=directory) as pipeline:
        (target,) = addresses(words, publisher, harness.port_of(pipeline))
        sent = publish(publisher, target, directory)
        if "keep-listening=true" in words:
            pipeline.wait_for(STOPPED)
            pipeline.signal(signal.SIGINT)
        pipeline.finish()
    files = [path for path in directory.rglob("*.*") if path.is_file() and path.name != "input.mp4"]
    recorded = [harness.packets(path) for path in files]
    holds_every_frame({kind: sum(counts[kind] for counts in recorded) for kind in ("video", "audio")}, sent)
    return f"{', '.join(str(path.relative_to(directory)) for path in files)}, {sent} frames"


def shown_once(pipeline, sent):
    """Fails unless every picture was shown."""
    shown = {match.group(1) for _, match in pipeline.matches(SHOWN)}
    if len(shown) != sent:
        raise harness.Failure(f"{sent} frames were sent, and {len(shown)} shown by {pipeline}")
    return f"{sent} frames shown"


def shown_twice(pipeline, sent, publisher, target, directory):
    """Waits until every picture is shown, and those of a second publisher too."""
    shown = set()

    def wait_for_frames(expected):
        while len(shown) < expected:
            shown.add(pipeline.wait_for(SHOWN).group(1))

    wait_for_frames(sent)
    sent_again = publish(publisher, target, directory)
    wait_for_frames(sent + sent_again)
    return f"{sent} and {sent_again} frames shown"


def received(pipeline, srt_port, publisher, port, directory):
    """Fails unless an SRT receiver gets every frame, except for the last moment: when srtsink closes its socket, it drops the
    frames that SRT's latency of 125 ms still holds back."""
    words = f"srtsrc uri=srt://127.0.0.1:{srt_port} ! filesink location=received.ts"
    with harness.launch(words, cwd=directory) as receiver:
        (target,) = addresses([], publisher, port)
        sent = publish(publisher, target, directory)
        pipeline.finish()
        # srtsrc would try to reconnect forever.
        receiver.wait_for(re.compile("WARNING.*SRT socket"))
        receiver.signal(signal.SIGINT)
        receiver.finish()
    counts = harness.packets(directory / "received.ts")
    if not sent - 15 <= counts["video"] <= sent or counts["audio"] == 0:
        raise harness.Failure(f"{sent} frames were sent, and {counts} received")
    return f"received.ts, {counts['video']} of {sent} frames"


def check_command(command, _publisher, directory):
    """Runs a command that is no pipeline."""
    done = subprocess.run(
        shlex.split(command), cwd=directory, env=harness.environment(), check=False, capture_output=True, text=True, timeout=60,
    )
    if done.returncode != 0:
        raise harness.Failure(f"exit code {done.returncode}: {done.stderr.strip()[:400]}")
    return "it succeeds"


def check_excerpts(page):
    """Fails unless quoted code equals the example that the page names, line for line. A line "..." stands for omitted lines."""

    def normal(code):
        return [line.strip() for line in code.splitlines() if line.strip()]

    for language in ("c", "python", "rust"):
        for before, code in blocks(page.read_text(), language):
            match = re.fullmatch(r"<!-- from (\S+) -->", before)
            if not match:
                raise harness.Failure(f"{page.name}: no '<!-- from FILE -->' before:\n{textwrap.indent(code, '    ')}")
            example = normal((harness.TOP / match.group(1)).read_text())
            for part in re.split(r"^\.\.\.$", code, flags=re.MULTILINE):
                wanted = normal(part)
                windows = [example[start : start + len(wanted)] for start in range(len(example))]
                if wanted not in windows:
                    raise harness.Failure(f"{page.name}: not in {match.group(1)}:\n{textwrap.indent(part, '    ')}")
                example = example[windows.index(wanted) + len(wanted) :]
            print(f"readme: excerpt of {match.group(1)}: ok")


def main():
    for page in PAGES:
        check_excerpts(page)
    publishers = [command for command in commands(README.read_text()) if command.startswith("ffmpeg ")]
    texts = [page.read_text() for page in PAGES] + list(element_documentation())
    everything = [command for text in texts for command in commands(text)]
    ours = re.compile(r"([A-Z_]+=\S+ )*(gst-launch-1\.0|gst-play-1\.0) .*(rtmp2(server(src|bin)|multiserversrc|fallbacksink)|rtmps?server://)")
    others = re.compile(r"openssl req |gst-inspect-1\.0 ")
    pipelines = list(dict.fromkeys(command for command in everything if ours.match(command) or others.match(command)))
    if len(publishers) != 1 or not pipelines:
        raise harness.Failure("README.md should have one ffmpeg line, and pipelines")
    wanted = sys.argv[1:] or [""]
    failed = 0
    for command in pipelines:
        if not any(part in command for part in wanted):
            continue
        with tempfile.TemporaryDirectory() as directory:
            directory = pathlib.Path(directory)
            make = [*harness.generated(SECONDS), str(directory / "input.mp4")]
            if "hlssink2" in command:
                # Players begin at any segment, and B-frames are usual.
                make = [*make[: make.index("-tune")], "-bf", "2", *make[make.index("-tune") + 2 :]]
            with harness.ffmpeg([word for word in make if word != "-re"]) as maker:
                maker.finish()
            try:
                checks = {"rtmp2fallbacksink": check_fallback, "rtmp2recordsink": check_recording}
                check = next((check for name, check in checks.items() if name in command), check_pipeline)
                if others.match(command):
                    check = check_command
                print(f"readme: {command}\n    ok: {check(command, publishers[0], directory)}", flush=True)
            except harness.Failure as failure:
                print(f"readme: {command}\n    FAILED: {failure}", flush=True)
                failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (harness.Failure, subprocess.CalledProcessError) as failure:
        sys.exit(f"check_readme: {failure}")
