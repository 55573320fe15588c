#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Renders README.md and docs/ as a book in target/book, and checks that each of its links has a target.

    scripts/book.py           render with mdbook, which scripts/setup.sh book installs
    scripts/book.py --links   check the links of these pages and of the programs' alone, without mdbook

mdbook copies everything beside the pages into the book, so it works on a copy of the pages and of the files they link.
"""

import html.parser
import os
import pathlib
import re
import shutil
import subprocess
import sys
import urllib.parse

TOP = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target"))
SUMMARY = TOP / "docs" / "SUMMARY.md"
LINK = re.compile(r"(?<!!)\[(?P<text>[^]\[]*(?:\[[^]]*\][^]\[]*)*)\]\((?P<target>[^)\s]+)\)")
IMAGE = re.compile(r"""!\[[^]]*\]\((?P<markdown>[^)\s]+)\)|(?:src|srcset)="(?P<html>[^"]+)\"""")
CODE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def is_external(target: str) -> bool:
    return bool(urllib.parse.urlsplit(target).scheme)


def pages() -> list[pathlib.Path]:
    """Returns the pages of the book in order, relative to the project's folder."""
    listed = LINK.findall(SUMMARY.read_text())
    return [pathlib.Path(os.path.normpath(pathlib.Path("docs") / target)) for _, target in listed]


def anchor(heading: str) -> str:
    """Returns the anchor of a heading, as mdbook and the usual forges make it."""
    plain = LINK.sub(lambda link: link["text"], heading)
    kept = "".join(c for c in plain.strip().lower() if c.isalnum() or c in "-_ ")
    return kept.replace(" ", "-")


def anchors(page: str) -> set[str]:
    return {anchor(heading) for heading in re.findall(r"^#{1,6} +(.*?)#*$", CODE.sub("", page), re.MULTILINE)}


def check_sources(names: list[pathlib.Path]) -> list[str]:
    """Returns what is wrong with the links and pictures of the pages, and with the list of pages."""
    faults = []
    for unlisted in sorted({path.relative_to(TOP) for path in (TOP / "docs").rglob("*.md")} - {*names, SUMMARY.relative_to(TOP)}):
        faults.append(f"docs/SUMMARY.md: {unlisted} is in no chapter")
    programs = sorted(path.relative_to(TOP) for path in TOP.glob("examples/*/*.md"))
    for name in [*names, *programs]:
        text = CODE.sub("", (TOP / name).read_text())
        targets = [link["target"] for link in LINK.finditer(text)]
        targets += [image["markdown"] or image["html"] for image in IMAGE.finditer(text)]
        for target in targets:
            if is_external(target):
                continue
            path, _, fragment = target.partition("#")
            file = (TOP / name.parent / path) if path else TOP / name
            if not file.exists():
                faults.append(f"{name}: {target}: no such file")
            elif fragment and file.suffix == ".md" and fragment not in anchors(file.read_text()):
                faults.append(f"{name}: {target}: no such heading")
    return faults


def stage(names: list[pathlib.Path], source: pathlib.Path) -> None:
    """Copies the pages, and the files that they link or show, to a folder in the same places."""
    shutil.rmtree(source, ignore_errors=True)
    for name in names:
        text = (TOP / name).read_text()

        def linked(link: re.Match[str]) -> str:
            target = link["target"]
            path = target.partition("#")[0]
            if is_external(target) or not path:
                return link[0]
            file = pathlib.Path(os.path.normpath(name.parent / path))
            if file in names:
                return link[0]
            # A folder has no page.
            if (TOP / file).is_dir():
                return link["text"]
            copy(file)
            return link[0]

        def copy(file: pathlib.Path) -> None:
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(TOP / file, source / file)

        for image in IMAGE.finditer(CODE.sub("", text)):
            target = image["markdown"] or image["html"]
            if not is_external(target):
                copy(pathlib.Path(os.path.normpath(name.parent / target)))
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(LINK.sub(linked, text))
    # The list stands beside the README in the book, so its links lose a step.
    summary = LINK.sub(lambda link: f"[{link['text']}]({os.path.normpath(pathlib.Path('docs') / link['target'])})", SUMMARY.read_text())
    (source / "SUMMARY.md").write_text(summary)


class Page(html.parser.HTMLParser):
    """The links and the anchors of a rendered page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key in ("id", "name") and value:
                self.ids.add(value)
            elif key in ("href", "src") and value:
                self.links.append(value)
            elif key == "srcset" and value:
                self.links += [part.split()[0] for part in value.split(",")]


def check_book(book: pathlib.Path) -> list[str]:
    """Returns the links of the rendered pages that lead nowhere."""
    rendered = {path: Page(path.read_text()) for path in book.rglob("*.html")}
    faults = []
    for path, page in rendered.items():
        # These have links for another place, or repeat all pages.
        if path.name in ("404.html", "print.html", "toc.html"):
            continue
        for link in page.links:
            if is_external(link) or link.startswith("//"):
                continue
            target, _, fragment = urllib.parse.unquote(link).partition("#")
            file = (path.parent / target).resolve() if target else path
            if file.is_dir():
                file = file / "index.html"
            if not file.is_file():
                faults.append(f"{path.relative_to(book)}: {link}: no such file")
            elif fragment and file in rendered and fragment not in rendered[file].ids:
                faults.append(f"{path.relative_to(book)}: {link}: no such heading")
    return faults


def render(names: list[pathlib.Path]) -> list[str]:
    root = TARGET / "book-source"
    stage(names, root / "src")
    shutil.copyfile(TOP / "docs" / "book.toml", root / "book.toml")
    mdbook = shutil.which("mdbook") or str(TARGET / "tools" / "bin" / "mdbook")
    book = (TARGET / "book").resolve()
    subprocess.run([mdbook, "build", "--dest-dir", str(book), str(root)], check=True, timeout=300)
    return check_book(book)


def main() -> int:
    names = pages()
    faults = check_sources(names)
    if not faults and "--links" not in sys.argv[1:]:
        faults = render(names)
    for fault in faults:
        print(f"book: {fault}", file=sys.stderr)
    if not faults:
        print(f"book: ok, {len(names)} pages")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
