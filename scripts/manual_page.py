#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Writes the manual page of a program from what its --help says: scripts/manual_page.py PROGRAM SUMMARY FILE

Indented lines stay as they are, such as configurations and tables: a filled JSON file would be of no use.
"""

import datetime
import os
import pathlib
import re
import subprocess
import sys

# An option or an argument. Its description is indented further.
OPTION = re.compile(r" {2,6}(-|<)\S")


def escaped(text: str) -> str:
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{text}" if text.startswith((".", "'")) else text


def is_verbatim(line: str) -> bool:
    return line.startswith((" ", "{", "}"))


def body(lines: list[str]) -> list[str]:
    """Returns paragraphs, filled unless their lines are indented."""
    page = []
    verbatim = False
    for index, line in enumerate(lines):
        if not line.strip():
            page.append("" if verbatim else ".PP")
            continue
        if is_verbatim(line) != verbatim:
            verbatim = not verbatim
            page.append(".nf" if verbatim else ".fi")
        # A few words of their own between two empty lines.
        is_heading = not verbatim and len(line) < 30 and not line.endswith((".", ":")) and lines[index + 1 : index + 2] == [""]
        page.append(f".SS {escaped(line)}" if is_heading else escaped(line))
    return [*page, ".fi"] if verbatim else page


def options(lines: list[str]) -> list[str]:
    """Returns the options or arguments, each with its description."""
    page = []
    for line in lines:
        text = line.strip()
        if OPTION.match(line):
            page += [".TP", rf".B {escaped(text)}"]
        elif not text:
            # Separates paragraphs of one description.
            page.append(".IP")
        elif text.startswith("- "):
            page += [".br", escaped(text)]
        else:
            page.append(escaped(text))
    # Nothing to separate.
    kept = [line for line, following in zip(page, [*page[1:], ".TP"], strict=True) if line != ".IP" or following not in (".IP", ".TP")]
    return kept


def manual_page(program: str, version: str, summary: str, help_text: str, date: datetime.date) -> str:
    before, _, after = help_text.partition("\nUsage: ")
    usage, *rest = after.splitlines()
    sections: dict[str, list[str]] = {}
    current = sections.setdefault("", [])
    for line in rest:
        if line in ("Arguments:", "Options:"):
            current = sections.setdefault(line.rstrip(":").upper(), [])
        elif line and not line.startswith(" ") and "NOTES" not in sections:
            current = sections.setdefault("NOTES", [""])
            current.append(line)
        else:
            current.append(line.rstrip())
    page = [
        rf'.TH {program.upper()} 1 {date.isoformat()} "rtmp2server {version}" "User Commands"',
        ".SH NAME", rf"{escaped(program)} \- {escaped(summary)}",
        ".SH SYNOPSIS", rf".B {escaped(usage)}",
        ".SH DESCRIPTION", *body(before.splitlines()),
    ]
    for name in ("ARGUMENTS", "OPTIONS"):
        if name in sections:
            page += [f".SH {name}", *options(sections[name])]
    if "NOTES" in sections:
        page += [".SH NOTES", *body(sections["NOTES"])[1:]]
    return "\n".join(page) + "\n"


def main() -> int:
    program, summary, output = sys.argv[1:]
    run = [subprocess.run([program, option], check=True, capture_output=True, text=True).stdout for option in ("--help", "--version")]
    version = run[1].split()[-1]
    # The same sources make the same bytes.
    date = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.timezone.utc).date()
    pathlib.Path(output).write_text(manual_page(pathlib.Path(program).name, version, summary, run[0], date))
    return 0


if __name__ == "__main__":
    sys.exit(main())
