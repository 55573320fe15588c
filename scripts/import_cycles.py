#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Fails on circles of imports among the files of a Rust crate, and on imports against the order of a folder's rooms.

The graph has a node for each file and an arrow for each import:

- An import is a `use` declaration, or a path in code that starts with `crate::`, `super::`, `self::` or a child module.
- The arrow goes to the file that defines the imported item, not to a file that re-exports it. An imported module counts as
  its own definition.
- `mod child;` is no arrow. A re-export is one only if the file also uses the name itself.
- Code under `#[cfg(test)]` does not count, nor does `glib::wrapper!`, where an element has to name its implementation.
"""

import argparse
import pathlib
import re
import sys

# Rooms of a folder from top to bottom. A file may import from its own room and from rooms below it. Files of the folder that
# are in no room are plain values, at the bottom. The folder's own mod.rs is at the top.
ROOMS = {
    "server": ("connection", "port", "routing", "stream", "transport"),
}

NOISE = re.compile(
    r"""//[^\n]*|/\*.*?\*/|b?r(?P<hash>\#*)".*?"(?P=hash)|b?"(?:\\.|[^"\\])*"|b?'(?:\\.[^']*|[^\\'])'""", re.S
)
TOKEN = re.compile(r"[A-Za-z_]\w*|::|\#!?\[|[^\s\w]")
DEFINING = {"struct", "enum", "union", "trait", "fn", "const", "static", "type", "mod", "macro_rules"}
ROOTS = {"crate", "super", "self"}
CLOSING = {"(": ")", "[": "]", "{": "}", "#[": "]", "#![": "]"}


class Import:
    """A path that a file names. `name` is the name under which a `use` brings it in, None for a path in code."""

    def __init__(self, path, name, is_public):
        self.path = path
        self.name = name
        self.is_public = is_public


class SourceFile:
    """Definitions, imports and child modules of one file, without its tests."""

    def __init__(self, path, module):
        self.path = path
        self.module = module
        self.children = set()
        self.test_children = set()
        self.defined = set()
        self.imports = []
        self.words = set()
        text = NOISE.sub(" ", path.read_text(encoding="utf-8"))
        self.tokens = TOKEN.findall(text)
        self.scan(0, len(self.tokens), module, 0)

    def end_of_group(self, at):
        """Returns the index after the bracket that closes the one at `at`."""
        expected = []
        while at < len(self.tokens):
            token = self.tokens[at]
            if token in CLOSING:
                expected.append(CLOSING[token])
            elif expected and token == expected[-1]:
                expected.pop()
                if not expected:
                    return at + 1
            at += 1
        return at

    def end_of_item(self, at):
        """Returns the index after an item: its semicolon, or its block."""
        while at < len(self.tokens):
            token = self.tokens[at]
            if token == ";":
                return at + 1
            if token == "{":
                return self.end_of_group(at)
            at = self.end_of_group(at) if token in CLOSING else at + 1
        return at

    def end_of_attributes(self, at):
        while at < len(self.tokens) and self.tokens[at] in ("#[", "#!["):
            at = self.end_of_group(at)
        return at

    def scan(self, at, end, module, depth):
        """Collects from the tokens of one module. `depth` counts the braces around them within that module."""
        tokens = self.tokens
        is_public = False
        while at < end:
            token = tokens[at]
            if token == "#[":
                after = self.end_of_group(at)
                if tokens[at + 1 : after - 1] == ["cfg", "(", "test", ")"]:
                    item = self.end_of_attributes(after)
                    after = self.end_of_item(item)
                    words = [word for word in tokens[item:after] if word not in ("pub", "(", ")", "crate")]
                    if words[:1] == ["mod"] and words[2:] == [";"]:
                        self.test_children.add(words[1])
                at = after
            elif tokens[at : at + 4] == ["glib", "::", "wrapper", "!"]:
                after = self.end_of_group(at + 4)
                self.defined.update(tokens[i + 1] for i in range(at, after) if tokens[i] == "struct")
                at = after
            elif token == "pub":
                is_public = True
                at = self.end_of_group(at + 1) if tokens[at + 1] == "(" else at + 1
                continue
            elif token == "use":
                after = self.end_of_item(at) if "{" not in tokens[at : tokens.index(";", at)] else tokens.index(";", at) + 1
                self.add_use(tokens[at + 1 : after - 1], module, is_public)
                at = after
            elif token == "mod" and tokens[at + 2] == ";":
                self.children.add(tokens[at + 1])
                at += 3
            elif token == "mod" and tokens[at + 2] == "{":
                if depth == 0 and module == self.module:
                    self.defined.add(tokens[at + 1])
                after = self.end_of_group(at + 2)
                self.scan(at + 3, after - 1, module + (tokens[at + 1],), 0)
                at = after
            elif token in DEFINING and depth == 0 and module == self.module:
                name = at + 2 if token == "macro_rules" else at + 1
                self.defined.add(tokens[name])
                at = name + 1
            elif token == "{":
                after = self.end_of_group(at)
                self.scan(at + 1, after - 1, module, depth + 1)
                at = after
            else:
                at = self.add_path(at, module)
            is_public = False

    def add_path(self, at, module):
        """Notes the path in code that starts at `at`, and returns the index after it."""
        tokens = self.tokens
        if not tokens[at][0].isidentifier() or (at > 0 and tokens[at - 1] == "::"):
            return at + 1
        path = [tokens[at]]
        self.words.add(tokens[at])
        while tokens[at + 1 : at + 2] == ["::"] and at + 2 < len(tokens) and tokens[at + 2][0].isidentifier():
            at += 2
            path.append(tokens[at])
        if len(path) > 1:
            self.imports.append(Import(self.absolute(path, module), None, False))
        return at + 1

    def add_use(self, tokens, module, is_public):
        """Notes each leaf of the tree of a `use` declaration."""

        def tree(at, prefix):
            path = list(prefix)
            while at < len(tokens):
                token = tokens[at]
                if token == "{":
                    at += 1
                    while tokens[at] != "}":
                        at = tree(at, path)
                        if tokens[at] == ",":
                            at += 1
                    return at + 1
                if token in (",", "}"):
                    break
                if token == "as":
                    self.imports.append(Import(self.absolute(path, module), tokens[at + 1], is_public))
                    return at + 2
                if token != "::":
                    path.append(token)
                at += 1
            if path[-1] == "self":
                path.pop()
            self.imports.append(Import(self.absolute(path, module), path[-1], is_public))
            return at

        tree(0, [])

    def absolute(self, path, module):
        """Returns the path from the crate's root, or None for another crate or a local name."""
        if path[0] == "crate":
            return tuple(path[1:])
        if path[0] in ("super", "self"):
            base = list(module)
            rest = list(path)
            if rest[0] == "self":
                rest.pop(0)
            while rest and rest[0] == "super":
                base.pop()
                rest.pop(0)
            return tuple(base + rest)
        if module == self.module:
            # A child module, if the file declares one of that name anywhere.
            return ("?", *module, *path)
        return None


class Crate:
    """All files of a crate, by module path, and the arrows among them."""

    def __init__(self, source):
        self.source = source
        self.files = {}
        self.load(source / "lib.rs", (), source)

    def load(self, path, module, folder):
        file = SourceFile(path, module)
        self.files[module] = file
        for child in sorted(file.children - file.test_children):
            for candidate in (folder / f"{child}.rs", folder / child / "mod.rs"):
                if candidate.exists():
                    self.load(candidate, (*module, child), folder / child)

    def module_of(self, path):
        """Returns the longest module that a path starts with, and the item after it."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.files:
                return path[:length], path[length] if length < len(path) else None
        return (), None

    def resolve(self, file, path, seen=frozenset()):
        """Returns the module whose file defines the item of a path, or None."""
        if path is None or (file.module, path) in seen:
            return None
        seen = seen | {(file.module, path)}
        if path[:1] == ("?",):
            path = path[1:]
            if path[len(file.module)] not in file.children:
                return None
        module, item = self.module_of(path)
        owner = self.files[module]
        if item is None or item == "*" or item in owner.defined:
            return module
        for entry in owner.imports:
            if entry.name == item:
                found = self.resolve(owner, entry.path, seen)
                if found is not None:
                    return found
        for entry in owner.imports:
            if entry.name == "*" and entry.path:
                target = self.resolve(owner, entry.path, seen)
                if target is not None and target != module:
                    found = self.resolve(self.files[target], (*target, item), seen)
                    if found is not None:
                        return found
        # For example a name that a macro makes: it is defined somewhere in that file.
        return module if module else None

    def arrows(self):
        """Returns {module: {module, ...}}."""
        graph = {module: set() for module in self.files}
        for module, file in self.files.items():
            for entry in file.imports:
                if entry.is_public and entry.name not in file.words:
                    continue
                target = self.resolve(file, entry.path)
                if target is not None and target != module:
                    graph[module].add(target)
        return graph

    def name(self, module):
        return str(self.files[module].path.relative_to(self.source.parent))


def shortest_circle(graph, start):
    """Returns the shortest way from a node back to itself, or None."""
    ways = [[start]]
    seen = set()
    for way in ways:
        for target in sorted(graph.get(way[-1], ())):
            if target == start:
                return [*way, start]
            if target not in seen:
                seen.add(target)
                ways.append([*way, target])
    return None


def circles(graph):
    """Returns circles that together show every node that is in one, the shortest first."""
    found = [circle for circle in (shortest_circle(graph, node) for node in sorted(graph)) if circle]
    shown, result = set(), []
    for circle in sorted(found, key=len):
        if not shown.issuperset(circle):
            shown.update(circle)
            result.append(circle)
    return result


def against_order(graph, folder, rooms):
    """Returns the arrows of a folder that go up its order of rooms."""

    def level(module):
        if len(module) == 1:
            return -1
        return rooms.index(module[1]) if module[1] in rooms else len(rooms)

    inside = [module for module in graph if module[:1] == (folder,)]
    return [(module, target) for module in sorted(inside) for target in sorted(graph[module])
            if target[:1] == (folder,) and level(target) < level(module)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=pathlib.Path, default=pathlib.Path("src"), help="folder with lib.rs")
    options = parser.parse_args()
    crate = Crate(options.source.resolve())
    graph = crate.arrows()
    problems = []
    for circle in circles(graph):
        problems.append("circle of imports: " + " -> ".join(crate.name(module) for module in circle))
    for folder, rooms in ROOMS.items():
        for module, target in against_order(graph, folder, rooms):
            problems.append(f"import against the order of src/{folder}: {crate.name(module)} -> {crate.name(target)}")
    for problem in problems:
        print(f"import_cycles: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
