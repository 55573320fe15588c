#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# The plugin crate as it would be published holds neither the programs nor the tests, whose crates are never published, and
# compiles from its own files.

set -euo pipefail
cd "$(dirname "$0")/.."

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
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -x -f "$CARGO_TARGET_DIR/package/gst-plugin-rtmp2server-$version.crate" -C "$work" --strip-components=1
cargo check --release --locked --lib --examples --manifest-path "$work/Cargo.toml"
echo "check-package: ok"
