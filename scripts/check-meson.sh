#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# Builds, tests and installs with meson, into a directory that is removed afterwards.

set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

meson setup "$work/build" --prefix=/usr
meson compile -C "$work/build"
meson test -C "$work/build" --print-errorlogs
DESTDIR=$work/root meson install -C "$work/build" --no-rebuild
installed=$(find "$work/root" -path '*/gstreamer-1.0/libgstrtmp2server.so')
[[ -n $installed ]] || {
    echo "check-meson: the plugin was not installed" >&2
    exit 1
}
GST_PLUGIN_PATH=$(dirname "$installed") gst-inspect-1.0 rtmp2serversrc >"$work/inspect.txt"

# The installed description has all that a program needs that links the plugin in, also beside the shared library.
sed "s|^prefix=.*|prefix=$work/root/usr|" "$(find "$work/root" -name gstrtmp2server.pc)" >"$work/gstrtmp2server.pc"
flags=$(PKG_CONFIG_PATH=$work pkg-config --static --cflags --libs gstrtmp2server)
# shellcheck disable=SC2086 # The flags are several words.
cc -o "$work/static" tests/static/main.c $flags
if ldd "$work/static" | grep gstrtmp2server; then
    echo "check-meson: the program has the shared library" >&2
    exit 1
fi
"$work/static"
echo "check-meson: ok"
