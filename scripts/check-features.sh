#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# Checks the library with the bindings of the newest GStreamer that a feature names. Their build asks for that GStreamer, which
# need not be there to check the code: so it is not asked.

set -euo pipefail
cd "$(dirname "$0")/.."

newest=$(sed -n 's/^\(v1_[0-9]*\) = .*/\1/p' Cargo.toml | tail -n 1)
for library in GSTREAMER GSTREAMER_BASE GSTREAMER_VIDEO; do
    name=$(tr 'A-Z_' 'a-z-' <<<"${library}_1.0")
    export "SYSTEM_DEPS_${library}_1_0_NO_PKG_CONFIG=1" "SYSTEM_DEPS_${library}_1_0_LIB=$name"
done
cargo check --release --locked --lib --features "$newest"
echo "check-features: ok with $newest"
