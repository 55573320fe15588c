#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# Compares the output of gst-inspect-1.0 for each element with the text in tests/inspect, so that no property, default,
# range or pad template changes unnoticed.
#
#   scripts/check-inspect.sh            compare
#   scripts/check-inspect.sh --update   keep the present output

set -euo pipefail
cd "$(dirname "$0")/.."

elements=(rtmp2serversrc rtmp2multiserversrc eflvdemux eflvlivedemux rtmp2serverbin rtmp2fallbacksink rtmp2recordsink)
golden=tests/inspect
target=${CARGO_TARGET_DIR:-$PWD/target}
export GST_PLUGIN_PATH=$target/release GST_INSPECT_NO_COLORS=1

# The plugin's path, version and date change with each build, and the properties of GStreamer's base classes with its
# version.
inspect() {
    gst-inspect-1.0 --no-colors "$1" | awk '
        /^Plugin Details:/ { skip = 1 }
        /^GObject$|^Pad Templates:/ { skip = 0 }
        /^  [a-z]/ { skip = /^  (async|async-handling|blocksize|do-timestamp|enable-last-sample|last-sample|max-bitrate|message-forward|name|num-buffers|parent|processing-deadline|qos|render-delay|sync|throttle-time|ts-offset|typefind) +:/ }
        skip { next }
        { sub(/[ \t]+$/, "") }
        { print }
    '
}

status=0
mkdir -p "$golden"
for element in "${elements[@]}"; do
    now=$(inspect "$element") || {
        echo "check-inspect: $element was not found in $GST_PLUGIN_PATH" >&2
        exit 1
    }
    if [[ ${1:-} == --update ]]; then
        printf '%s\n' "$now" >"$golden/$element.txt"
    elif ! diff -u "$golden/$element.txt" <(printf '%s\n' "$now"); then
        echo "check-inspect: $element differs; if that is intended, run $0 --update" >&2
        status=1
    fi
done
((status == 0)) && echo "check-inspect: ok"
exit "$status"
