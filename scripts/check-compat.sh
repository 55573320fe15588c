#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# Makes the packages and tries them on the newest Debian, by the short form of scripts/compat.sh, where this system can do that.
# The first run takes some minutes to install that Debian, which target/compat keeps for the next ones.

set -euo pipefail
cd "$(dirname "$0")/.."

# The exit code of scripts/compat.sh where there is no system to try the packages on.
no_system=75

left_out() {
    echo "check-compat: left out: $*"
    exit 0
}

((EUID == 0)) || left_out "it mounts folders and changes the root directory, which takes root"
for tool in mmdebstrap dh help2man lintian; do
    command -v "$tool" >/dev/null || left_out "there is no $tool (scripts/setup.sh deb installs it)"
done
unshare --mount --net --pid --ipc --fork true 2>/dev/null || left_out "it may not make namespaces"

scripts/make_deb.sh
result=0
scripts/compat.sh sid short || result=$?
((result == no_system)) && left_out "Debian sid could not be installed"
((result == 0)) && echo "check-compat: ok"
exit "$result"
