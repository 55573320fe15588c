#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# Runs cargo for meson: meson-cargo.sh TOOL SOURCE BUILD OUTPUT. TOOL is cargo or cargo-cbuild. Artefacts are under BUILD,
# unless CARGO_TARGET_DIR names another folder.

set -euo pipefail

tool=$1 source=$2 build=$3 output=$4
target=${CARGO_TARGET_DIR:-$build/target}

case $tool in
    cargo)
        cargo build --release --locked --lib --manifest-path "$source/Cargo.toml" --target-dir "$target"
        cp "$target/release/libgstrtmp2server.so" "$output"
        ;;
    cargo-cbuild)
        triple=$(rustc -vV | sed -n 's/^host: //p')
        cargo cbuild --release --locked --library-type cdylib --target "$triple" \
            --manifest-path "$source/Cargo.toml" --target-dir "$target"
        cp "$target/$triple/release/libgstrtmp2server.so" "$output"
        ;;
    *)
        echo "meson-cargo: unknown tool $tool" >&2
        exit 1
        ;;
esac
