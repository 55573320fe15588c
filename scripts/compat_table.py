#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Writes the table of docs/compatibility.md from the results of scripts/compat.sh: each cell is the result of a run."""

import json
import re
import sys

import harness

PAGE = harness.TOP / "docs" / "compatibility.md"
SUITES = ["bookworm", "trixie", "sid"]
ROWS = {
    "gstreamer": "GStreamer",
    "ffmpeg": "ffmpeg",
    "install": "packages install, without a network",
    "start": "the README's first steps on a system with nothing installed",
    "inspect": "`gst-inspect-1.0`, warnings fatal",
    "record": "ffmpeg recorded by `gst-launch-1.0`",
    "multitrack": "published by `eflvmux ! rtmp2sink`",
    "services": "services in their default configuration",
    "readme": "pipelines of the README and of docs",
    "integration": "integration tests",
    "upgrade": "upgrade",
    "remove": "removal and purge",
}
TABLE = re.compile(r"(?<=<!-- results -->\n).*?(?=<!-- end of results -->)", re.DOTALL)


def main():
    results = {}
    for suite in SUITES:
        path = harness.TARGET / "compat" / f"{suite}.json"
        if not path.exists():
            raise harness.Failure(f"{path} is missing: make compat SUITE={suite}")
        results[suite] = json.loads(path.read_text())
    lines = [f"| | {' | '.join(SUITES)} |", "|---|" + "---|" * len(SUITES)]
    for key, title in ROWS.items():
        # The short form leaves some out.
        if not all(key in results[suite] for suite in SUITES):
            print(f"compat_table: not every suite has a result for: {title}")
            continue
        lines.append(f"| {title} | " + " | ".join(results[suite][key] for suite in SUITES) + " |")
    text = PAGE.read_text()
    if not TABLE.search(text):
        raise harness.Failure(f"{PAGE} has no place for the results")
    PAGE.write_text(TABLE.sub(lambda _: "\n" + "\n".join(lines) + "\n\n", text))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except harness.Failure as failure:
        sys.exit(f"compat_table: {failure}")
