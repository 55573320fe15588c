#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# The plugin crate as it would be published holds neither the programs nor the tests, whose crates are never published.

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
echo "check-package: ok"
