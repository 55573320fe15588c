#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Prints the licences of all crates that are linked into a package of the workspace: scripts/licences.py PACKAGE

Most of them ask for their text and their notice of copyright beside a program. Texts that several crates share are printed once.
"""

import json
import pathlib
import subprocess
import sys

FILES = ("LICENSE*", "LICENCE*", "license*", "COPYING*", "COPYRIGHT*", "NOTICE*")


def linked(metadata: dict, name: str) -> list[dict]:
    """Returns the packages that a package of the workspace depends on at run time, those of others, by name."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    found: set[str] = set()
    waiting = [identity for identity in metadata["workspace_members"] if packages[identity]["name"] == name]
    while waiting:
        identity = waiting.pop()
        if identity in found:
            continue
        found.add(identity)
        for dependency in nodes[identity]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    others = [packages[identity] for identity in found - set(metadata["workspace_members"])]
    return sorted(others, key=lambda package: (package["name"], package["version"]))


def texts(package: dict) -> list[str]:
    folder = pathlib.Path(package["manifest_path"]).parent
    paths = sorted({path for pattern in FILES for path in folder.glob(pattern) if path.is_file()})
    return [path.read_text(errors="replace").strip() for path in paths]


def main() -> int:
    # For the system that it is built for.
    host = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    triple = next(line.removeprefix("host: ") for line in host.splitlines() if line.startswith("host: "))
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", triple]
    packages = linked(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout), sys.argv[1])
    if not packages:
        sys.exit(f"licences: {sys.argv[1]} has no dependencies, or is no package of the workspace")
    print("Crates that are linked in, with the licences that their authors chose:\n")
    by_text: dict[str, list[str]] = {}
    for package in packages:
        name = f"{package['name']} {package['version']}"
        authors = ", ".join(package["authors"])
        print(f"{name}: {package['license'] or 'see below'}" + (f", by {authors}" if authors else ""))
        for text in texts(package):
            by_text.setdefault(text, []).append(name)
    for text, names in by_text.items():
        print(f"\n{'=' * 80}\n{', '.join(names)}:\n\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
