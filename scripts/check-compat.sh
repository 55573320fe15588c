#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# Makes the packages and tries them on the newest Debian, by the short form of scripts/compat.sh, where this system can do that
# and a run of `make compat SUITE=sid` has installed that Debian, which target/compat keeps.

set -euo pipefail
cd "$(dirname "$0")/.."

left_out() {
    echo "check-compat: left out: $*"
    exit 0
}

((EUID == 0)) || left_out "it mounts folders and changes the root directory, which takes root"
for tool in mmdebstrap dh lintian; do
    command -v "$tool" >/dev/null || left_out "there is no $tool (scripts/setup.sh deb installs it)"
done
[[ -s ${CARGO_TARGET_DIR:-$PWD/target}/compat/sid.tar ]] || left_out "make compat SUITE=sid installs the system that it takes"
unshare --mount --net --pid --ipc --fork true 2>/dev/null || left_out "it may not make namespaces"

scripts/make_deb.sh
scripts/compat.sh sid short
echo "check-compat: ok"
