#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# Checks the library with the bindings of the newest GStreamer that a feature names. Their build asks for that GStreamer, which
# need not be there to check the code: so it is not asked. Also that no dependency needs a newer Rust than the crate says, and,
# where rustup has the oldest Rust (rustup toolchain install 1.92), that the library compiles with it.

set -euo pipefail
cd "$(dirname "$0")/.."

newest=$(sed -n 's/^\(v1_[0-9]*\) = .*/\1/p' Cargo.toml | tail -n 1)
for library in GSTREAMER GSTREAMER_BASE GSTREAMER_VIDEO; do
    name=$(tr 'A-Z_' 'a-z-' <<<"${library}_1.0")
    export "SYSTEM_DEPS_${library}_1_0_NO_PKG_CONFIG=1" "SYSTEM_DEPS_${library}_1_0_LIB=$name"
done
cargo check --release --locked --lib --features "$newest"
echo "check-features: ok with $newest"

oldest=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
cargo metadata --format-version 1 --locked | python3 -c '
import json, sys
def version(text):
    return [int(part) for part in text.split(".")]
packages = [package for package in json.load(sys.stdin)["packages"] if package["rust_version"]]
newer = [package for package in packages if version(package["rust_version"]) > version(sys.argv[1])]
for package in newer:
    print("check-features:", package["name"], "needs Rust", package["rust_version"], file=sys.stderr)
sys.exit(bool(newer))' "$oldest"
if toolchain=$(rustup toolchain list 2>/dev/null | grep -o "^${oldest//./\\.}[-.][^ ]*" | head -n 1) && [[ -n $toolchain ]]; then
    CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/oldest cargo "+$toolchain" check --release --locked --workspace --lib --bins
    echo "check-features: ok with Rust $oldest"
else
    echo "check-features: Rust $oldest is left out, rustup does not have it"
fi
