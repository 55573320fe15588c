#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# The core (amf0, memory, rtmp, flv, feed) does no I/O, starts no thread, reads no clock and knows no GStreamer. A layer names
# only layers below it: elements -> server -> rtmp, feed; feed -> flv; rtmp, flv -> amf0, memory. No imports form a circle.

set -euo pipefail
cd "$(dirname "$0")/.."

status=0

# forbid LAYER PATTERN WHY: fails if a line of code (comments aside) under src/LAYER matches PATTERN.
forbid() {
    local layer=$1 pattern=$2 why=$3 files=() hits
    [[ -d src/$layer ]] && files+=("src/$layer")
    [[ -f src/$layer.rs ]] && files+=("src/$layer.rs")
    if ((${#files[@]} == 0)); then
        echo "check-layering: src/$layer does not exist" >&2
        status=1
        return
    fi
    hits=$(grep -rnE --include='*.rs' "$pattern" "${files[@]}" | grep -vE '^[^:]+:[0-9]+:[[:space:]]*//' || true)
    if [[ -n $hits ]]; then
        printf 'check-layering: %s %s:\n%s\n' "$layer" "$why" "$hits" >&2
        status=1
    fi
}

outside='\b(gst|gst_base|gst_video|glib|rustix|libc)::|use (gst|glib)\b|std::(net|os|thread|fs|io::(stdin|stdout))\b|std::\{[^}]*\b(net|thread|fs)\b'
clock='\b(Instant|SystemTime)\b'
for layer in amf0 memory rtmp flv feed; do
    forbid "$layer" "$outside" "does I/O, starts a thread or knows GStreamer"
    forbid "$layer" "$clock" "reads a clock"
    forbid "$layer" 'crate::(server|rtmp2\w*|eflv\w+)\b' "names a layer above it"
done
forbid memory 'crate::' "names another layer"
forbid amf0 'crate::(rtmp|flv|feed)\b' "names a layer above it"
forbid rtmp 'crate::(flv|feed)\b' "names its sibling"
forbid feed 'crate::rtmp\b' "names its sibling"
forbid flv 'crate::(rtmp|feed)\b' "names its sibling, or a layer above it"
forbid server 'crate::(rtmp2\w*|eflv\w+)\b' "names a layer above it"

scripts/import_cycles.py src || status=1

# Programs and examples use nothing but the plugin's public interface: its registration, element types and enums.
hits=$(grep -rnE --include='*.rs' 'gstrtmp2server::(\{[^}]*)?(amf0|eflv\w+|feed|flv|internal|memory|rtmp|rtmp2\w*|server)\b' examples/*.rs examples/*/src || true)
if [[ -n $hits ]]; then
    printf 'check-layering: examples use internals of the plugin:\n%s\n' "$hits" >&2
    status=1
fi

((status == 0)) && echo "check-layering: ok"
exit "$status"
