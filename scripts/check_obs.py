#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Publishes from OBS Studio, once as usual and once with several tracks by docs/obs-multitrack.json: every frame arrives on its
track, up to the last that OBS sends.

    scripts/check_obs.py             test, or say that there is no OBS
    scripts/check_obs.py --install   first make a Debian sid with OBS in target/compat/obs, which takes root, mmdebstrap and a mirror

OBS runs under Xvfb, in a change of root, so the test takes root too.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import harness

ROOT = harness.TARGET / "compat" / "obs"
MIRROR = os.environ.get("MIRROR", "http://deb.debian.org/debian")
OVERRIDE = harness.TOP / "docs" / "obs-multitrack.json"
# Of that file.
TRACKS = ["video_0", "video_1", "video_2"]
AUDIO = ["audio_0", "audio_1"]
# Of publishing, and at most until it begins.
SECONDS = 8
START_SECONDS = 90
PUBLISHED = re.compile(r" from 127\.0\.0\.1: ")
FRAME_RATE = 30
# OBS counts frames of a track that it does not send any more when it stops: this many at most.
UNSENT = 3
# Of OBS's log: all tracks together.
TOTAL = re.compile(r"Total frames output: (\d+)")


def install():
    packages = "obs-studio,xvfb,xauth,libgl1-mesa-dri"
    part = ROOT.with_name("obs.part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    command = ["mmdebstrap", "--aptopt=Acquire::Check-Valid-Until \"false\"", "--variant=minbase", "--mode=root", f"--include={packages}"]
    subprocess.run([*command, "sid", str(part), MIRROR], check=True, timeout=1800)
    part.rename(ROOT)


def settings(port, has_tracks):
    """Returns the files of OBS's configuration: a still scene, sent to a custom server."""
    stream = ["[Stream1]", "IgnoreRecommended=true"]
    if has_tracks:
        override = json.loads(OVERRIDE.read_text())
        for endpoint in override["ingest_endpoints"]:
            endpoint["url_template"] = endpoint["url_template"].replace(":1935/", f":{port}/")
        # As OBS's own dialogue writes it.
        wrapped = json.dumps({"text": json.dumps(override)}).replace("\\", "\\\\")
        stream += ["EnableMultitrackVideo=true", "MultitrackVideoConfigOverrideEnabled=true", f"MultitrackVideoConfigOverride={wrapped}"]
    profile = [
        "[General]", "Name=test",
        "[Output]", "Mode=Simple", "Reconnect=false",
        "[SimpleOutput]", "VBitrate=1000", "StreamEncoder=x264", "StreamAudioEncoder=aac", "UseAdvanced=true", "Preset=ultrafast",
        f"VodTrackEnabled={str(has_tracks).lower()}",
        *stream,
        "[Video]", "BaseCX=1280", "BaseCY=720", "OutputCX=1280", "OutputCY=720", "FPSType=0", f"FPSCommon={FRAME_RATE}",
    ]
    user = [
        "[General]", "FirstRun=true", "EnableAutoUpdates=false", "ConfirmOnExit=false", "EnableCustomServerVodTrack=true",
        "[Basic]", "Profile=test", "ProfileDir=test", "SceneCollection=test", "SceneCollectionFile=test",
    ]
    colour, scene = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
    item = {"name": "colour", "source_uuid": colour, "id": 1, "visible": True}
    sources = [
        {"id": "color_source_v3", "versioned_id": "color_source_v3", "name": "colour", "uuid": colour, "settings": {}},
        {"id": "scene", "name": "scene", "uuid": scene, "settings": {"items": [item], "id_counter": 1}},
    ]
    scenes = {"name": "test", "current_scene": "scene", "current_program_scene": "scene", "scene_order": [{"name": "scene"}], "sources": sources}
    server = {"type": "rtmp_custom", "settings": {"server": f"rtmp://127.0.0.1:{port}/live", "key": "camera1"}}
    return {
        "global.ini": "[General]\nFirstRun=true\nPre31Migrated=true\n",
        "user.ini": "\n".join(user) + "\n",
        "basic/profiles/test/basic.ini": "\n".join(profile) + "\n",
        "basic/profiles/test/service.json": json.dumps(server),
        "basic/scenes/test.json": json.dumps(scenes),
    }



# Its end ends the display too. OBS ends as it does when its window is closed, and then logs what it has sent.
SCRIPT = f"""
mkfifo "$HOME/display" "$HOME/stop"
Xvfb -displayfd 3 -screen 0 1280x720x24 -nolisten local 3>"$HOME/display" 2>/dev/null &
read -r number <"$HOME/display"
DISPLAY=:$number timeout --signal=TERM --kill-after=20 {START_SECONDS + SECONDS + 20} \
    obs --startstreaming --multi --disable-shutdown-check --profile test --collection test 2>&1 &
read -r _ <"$HOME/stop"
kill $!
wait $! || true
"""


def obs(pipeline, has_tracks):
    """Publishes from OBS for some seconds, and returns its log."""
    port = harness.port_of(pipeline)
    with tempfile.TemporaryDirectory(dir=ROOT / "root") as home:
        for name, text in settings(port, has_tracks).items():
            path = pathlib.Path(home) / ".config/obs-studio" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        inside = f"/root/{pathlib.Path(home).name}"
        env = ["env", "-i", "PATH=/usr/bin:/bin", f"HOME={inside}", f"XDG_RUNTIME_DIR={inside}", "LIBGL_ALWAYS_SOFTWARE=1", "QT_QPA_PLATFORM=xcb"]
        mounts = 'mount -t proc proc "$0/proc"; mount --rbind /dev "$0/dev"; exec chroot "$0" "$@"'
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        with harness.Process([*namespaces, "sh", "-c", mounts, str(ROOT), *env, "sh", "-c", SCRIPT]) as process:
            try:
                pipeline.wait_for(PUBLISHED, START_SECONDS)
            except harness.Failure as failure:
                raise harness.Failure(f"{failure}\nOBS does not publish: {process}") from None
            time.sleep(SECONDS)
            (pathlib.Path(home) / "stop").write_text("\n")
            process.finish(60)
    return "\n".join(text for _, text in process.lines)


def times(directory, track):
    """Returns the time of each frame of a track of the recording, in seconds."""
    parser = "h264parse" if track.startswith("video") else "aacparse"
    description = f"filesrc location=out.flv ! eflvdemux name=demux demux.{track} ! {parser} ! mp4mux ! filesink location={track}.mp4"
    with harness.launch(description, cwd=directory, options=["-q"]) as pipeline:
        pipeline.finish(60)
    command = ["ffprobe", "-v", "error", "-show_entries", "packet=dts_time", "-of", "csv=p=0", str(directory / f"{track}.mp4")]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return sorted(float(line.rstrip(",")) for line in output.split())


def check(has_tracks):
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        with harness.launch("rtmp2serversrc port=0 ! filesink location=out.flv", cwd=directory) as pipeline:
            log = obs(pipeline, has_tracks)
            sent = TOTAL.search(log)
            if not sent or int(sent.group(1)) == 0:
                raise harness.Failure("OBS has sent nothing:\n" + "\n".join(log.splitlines()[-30:]))
            pipeline.finish(60)
        video = {track: times(directory, track) for track in (TRACKS if has_tracks else TRACKS[:1])}
        audio = {track: len(times(directory, track)) for track in (AUDIO if has_tracks else AUDIO[:1])}
    counts = {track: len(frames) for track, frames in video.items()}
    total, arrived = int(sent.group(1)), sum(counts.values())
    # OBS sends a steady rate, so a lost frame leaves a hole.
    holes = [track for track, frames in video.items() if any(b - a > 1.5 / FRAME_RATE for a, b in zip(frames, frames[1:]))]
    if holes or not 0 <= total - arrived <= UNSENT * len(counts) or 0 in audio.values():
        raise harness.Failure(f"OBS has made {total} frames, and {counts} and {audio} arrived, with holes in {holes}")
    unsent = f" ({total - arrived} at its end were not sent)" if arrived < total else ""
    print(f"obs: {arrived} of {total} frames{unsent} on {len(counts)} video tracks without a hole, with {len(audio)} of audio: ok", flush=True)


def main():
    if "--install" in sys.argv[1:]:
        install()
    if not (ROOT / "usr/bin/obs").exists() or os.geteuid() != 0:
        print(f"obs: left out, there is no OBS in {ROOT}, or this is not root (scripts/check_obs.py --install)")
        return
    check(has_tracks=False)
    check(has_tracks=True)


if __name__ == "__main__":
    try:
        main()
    except harness.Failure as failure:
        sys.exit(f"check_obs: {failure}")
