#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# Makes the Debian packages, in target/deb: scripts/make_deb.sh
# Expects scripts/setup.sh deb to have run. The packages are checked with lintian, whose errors are errors here.
#
# The same sources in the same folder, with the same compiler and system, give the same bytes: scripts/check_reproducible.sh
# compares two builds.

set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
output=${1:-$CARGO_TARGET_DIR/deb}

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
packaged=$(dpkg-parsechangelog -S Version)
if [[ ${packaged%-*} != "$version" ]]; then
    echo "make-deb: debian/changelog has version $packaged, and Cargo.toml $version" >&2
    exit 1
fi

# The time of the changelog's entry, also for what cargo builds.
SOURCE_DATE_EPOCH=$(dpkg-parsechangelog -S Timestamp)
export SOURCE_DATE_EPOCH

rm -rf "$output"
mkdir -p "$output"
debian/rules clean
OUTPUT=$output debian/rules binary
debian/rules clean
lintian --fail-on error "$output"/*.deb
ls -l "$output"
