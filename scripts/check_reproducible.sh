#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# Builds everything a second time, in another target folder, and compares the packages with those of scripts/make_deb.sh.

set -euo pipefail
cd "$(dirname "$0")/.."

first=${CARGO_TARGET_DIR:-$PWD/target}
second=$(mktemp -d "$first/second.XXXXXX")
trap 'rm -rf "$second"' EXIT

CARGO_TARGET_DIR=$second scripts/make_deb.sh
status=0
for package in "$second"/deb/*.deb; do
    cmp "$package" "$first/deb/$(basename "$package")" || status=1
done
((status == 0)) && echo "check-reproducible: ok"
exit "$status"
