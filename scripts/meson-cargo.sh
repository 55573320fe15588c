#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# Runs cargo for meson: meson-cargo.sh TOOL SOURCE BUILD SHARED STATIC. TOOL is cargo or cargo-cbuild. SHARED and STATIC are the
# libraries to write. Artefacts are under BUILD,
# unless CARGO_TARGET_DIR names another folder.

set -euo pipefail

tool=$1 source=$2 build=$3 shared=$4 static=$5
target=${CARGO_TARGET_DIR:-$build/target}

case $tool in
    cargo)
        cargo rustc --release --locked --lib --crate-type cdylib,staticlib \
            --manifest-path "$source/Cargo.toml" --target-dir "$target"
        built=$target/release
        ;;
    cargo-cbuild)
        triple=$(rustc -vV | sed -n 's/^host: //p')
        cargo cbuild --release --locked --target "$triple" \
            --manifest-path "$source/Cargo.toml" --target-dir "$target"
        built=$target/$triple/release
        ;;
    *)
        echo "meson-cargo: unknown tool $tool" >&2
        exit 1
        ;;
esac
cp "$built/libgstrtmp2server.so" "$shared"
cp "$built/libgstrtmp2server.a" "$static"
