#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Tests of check-layering.sh on copies of the sources, and of import_cycles.py on small crates."""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import import_cycles

TOP = pathlib.Path(__file__).resolve().parent.parent


def run(*command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)


class LayeringOfTheSources(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.top = pathlib.Path(self.folder.name)
        for name in ("src", "scripts"):
            shutil.copytree(TOP / name, self.top / name)

    def append(self, file, text):
        with open(self.top / "src" / file, "a", encoding="utf-8") as source:
            source.write(text)

    def check(self):
        return run(self.top / "scripts" / "check-layering.sh")

    def test_sources_pass(self):
        result = self.check()
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_added_circle_fails(self):
        # error.rs imports limits.rs.
        self.append("rtmp/limits.rs", "use super::Violation;\n")
        result = self.check()
        self.assertEqual(result.returncode, 1)
        self.assertIn("src/rtmp/error.rs -> src/rtmp/limits.rs -> src/rtmp/error.rs", result.stderr)

    def test_added_circle_across_folders_fails(self):
        self.append("memory.rs", "fn borrow(_: &crate::rate::BitrateMeter) {}\n")
        self.append("rate.rs", "use crate::memory::Memory;\n")
        result = self.check()
        self.assertEqual(result.returncode, 1)
        self.assertIn("src/memory.rs -> src/rate.rs -> src/memory.rs", result.stderr)

    def test_core_with_a_socket_fails(self):
        self.append("rtmp/limits.rs", "use std::net::TcpStream;\n")
        self.assertEqual(self.check().returncode, 1)


class ImportsOfSmallCrates(unittest.TestCase):
    def arrows(self, files):
        """Returns the arrows of a crate with these files, as {(from, to)} of file names."""
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder, "src")
            for name, text in files.items():
                path = source / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            crate = import_cycles.Crate(source.resolve())
            graph = crate.arrows()
            return {
                (crate.name(start).removeprefix("src/"), crate.name(end).removeprefix("src/"))
                for start, ends in graph.items()
                for end in ends
            }

    def test_use_trees_lead_to_every_leaf(self):
        arrows = self.arrows({
            "lib.rs": "mod a; mod b; mod c;",
            "a.rs": "use crate::{b::{B, self}, c::C as Other};",
            "b.rs": "pub struct B;",
            "c.rs": "pub enum C { X }",
        })
        self.assertEqual(arrows, {("a.rs", "b.rs"), ("a.rs", "c.rs")})

    def test_reexported_item_leads_to_the_file_that_defines_it(self):
        arrows = self.arrows({
            "lib.rs": "mod facade; mod user;",
            "facade/mod.rs": "mod inner; mod sibling; pub use inner::Item; pub use sibling::*;",
            "facade/inner.rs": "pub struct Item; pub use super::Other;",
            "facade/sibling.rs": "pub struct Other; use super::Item;",
            "user.rs": "use crate::facade::{Item, Other};",
        })
        self.assertEqual(
            arrows,
            {("facade/sibling.rs", "facade/inner.rs"), ("user.rs", "facade/inner.rs"), ("user.rs", "facade/sibling.rs")},
        )

    def test_reexport_that_the_file_uses_itself_is_an_arrow(self):
        arrows = self.arrows({
            "lib.rs": "mod a;",
            "a/mod.rs": "mod child; pub use child::Item; pub struct Own(Item);",
            "a/child.rs": "pub struct Item; use super::Own;",
        })
        self.assertEqual(arrows, {("a/mod.rs", "a/child.rs"), ("a/child.rs", "a/mod.rs")})

    def test_paths_in_code_are_imports(self):
        arrows = self.arrows({
            "lib.rs": "mod a; mod b;",
            "a/mod.rs": "mod child; fn f() { child::g(); let b = 1; b; }",
            "a/child.rs": "pub fn g() { crate::b::h(); }",
            "b.rs": "pub fn h() {}",
        })
        self.assertEqual(arrows, {("a/mod.rs", "a/child.rs"), ("a/child.rs", "b.rs")})

    def test_super_within_an_inline_module_is_the_file(self):
        arrows = self.arrows({
            "lib.rs": "mod a; mod b;",
            "a.rs": "struct A; mod inline { use super::A; use super::super::b::B; }",
            "b.rs": "pub struct B;",
        })
        self.assertEqual(arrows, {("a.rs", "b.rs")})

    def test_tests_comments_texts_and_wrappers_do_not_count(self):
        arrows = self.arrows({
            "lib.rs": "mod a; mod b;",
            "a.rs": """
                // use crate::b::B;
                /// [`crate::b::B`]
                const TEXT: &str = "crate::b::B"; const QUOTE: char = '"'; const RAW: &str = r#"crate::b::"B"#;
                #[cfg(test)] use crate::b::B;
                #[cfg(test)] mod tests { use crate::b::B; }
                #[cfg(test)] #[derive(Debug)] struct Double(crate::b::B);
            """,
            "b/mod.rs": "mod imp; #[cfg(test)] mod tests; glib::wrapper! { pub struct B(ObjectSubclass<imp::B>); }",
            "b/imp.rs": "use super::B;",
            "b/tests.rs": "use crate::a::TEXT;",
        })
        self.assertEqual(arrows, {("b/imp.rs", "b/mod.rs")})

    def test_circles_show_every_file_that_is_in_one(self):
        graph = {("a",): {("b",)}, ("b",): {("c",)}, ("c",): {("a",), ("d",)}, ("d",): {("c",)}, ("e",): {("a",)}}
        circles = import_cycles.circles(graph)
        self.assertEqual(circles, [[("c",), ("d",), ("c",)], [("a",), ("b",), ("c",), ("a",)]])

    def test_arrow_up_the_rooms_is_against_the_order(self):
        graph = {
            ("f",): {("f", "low")},
            ("f", "high"): {("f", "low"), ("f", "value")},
            ("f", "low"): {("f", "high"), ("other",)},
            ("f", "value"): {("f", "low")},
        }
        found = import_cycles.against_order(graph, "f", ("high", "low"))
        self.assertEqual(found, [(("f", "low"), ("f", "high")), (("f", "value"), ("f", "low"))])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "--quiet"])
