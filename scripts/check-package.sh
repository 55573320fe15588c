#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# The version is the same everywhere, and its sections of the changelogs have dates. The plugin crate as it would be published
# holds neither the programs nor the tests, whose crates are never published, and compiles from its own files.

set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
if [[ $(sed -n '1s/.*(\(.*\)-[^-]*).*/\1/p' debian/changelog) != "$version" ]]; then
    echo "check-package: debian/changelog does not begin with $version" >&2
    exit 1
fi
if ! grep -m 1 '^## \[[0-9]' CHANGELOG.md | grep -qF "## [$version] - "; then
    echo "check-package: the newest released version in CHANGELOG.md is not $version" >&2
    exit 1
fi
if grep -n '^## ' CHANGELOG.md examples/*/CHANGELOG.md | grep -vE ':## \[(Unreleased\]|[0-9.]+\] - [0-9]{4}-[0-9]{2}-[0-9]{2})$'; then
    echo "check-package: sections of the changelogs are versions with dates, but for [Unreleased]" >&2
    exit 1
fi
if grep -n '^version = ' examples/*/Cargo.toml tests/*/Cargo.toml; then
    echo "check-package: crates of the workspace have its version: version.workspace = true" >&2
    exit 1
fi

packed=$(cargo package --list --allow-dirty --quiet)
if strays=$(grep -E '^(examples/[^/]+/|tests/|benches/|fuzz/|scripts/)' <<<"$packed"); then
    printf 'check-package: these files do not belong into the package:\n%s\n' "$strays" >&2
    exit 1
fi
for file in build.rs src/lib.rs examples/record.rs; do
    grep -qxF "$file" <<<"$packed" || {
        echo "check-package: $file is missing in the package" >&2
        exit 1
    }
done

# As the verification of `cargo package` does, but in the target folder, which has the dependencies.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
# Offline, since it would ask the registry for each dependency.
cargo package --locked --offline --allow-dirty --no-verify --quiet
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -x -f "$CARGO_TARGET_DIR/package/gst-plugin-rtmp2server-$version.crate" -C "$work" --strip-components=1
cargo check --release --locked --lib --examples --manifest-path "$work/Cargo.toml"
echo "check-package: ok"
