#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# Installs the packages of `make deb` on a fresh Debian in a folder, and tries them there:
#
#   scripts/compat.sh SUITE [short]     SUITE is bookworm, trixie or sid
#
# Needs root, mmdebstrap, and a mirror (MIRROR) for the first run of a suite: the installed system is kept as
# target/compat/SUITE.tar. `short` leaves out what takes minutes. The results are in target/compat/SUITE.json (SUITE-short.json
# for the short form), and scripts/compat_table.py writes those of all suites into docs/compatibility.md.
#
# The full form first does what the README says on a system with nothing installed, which takes a mirror each time; its
# transcript is target/compat/SUITE-start.txt.

set -euo pipefail
cd "$(dirname "$0")/.."

suite=${1:?usage: scripts/compat.sh SUITE [short]}
form=${2:-full}
mirror=${MIRROR:-http://deb.debian.org/debian}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
folder=$CARGO_TARGET_DIR/compat
debs=$CARGO_TARGET_DIR/deb
packages=(
    # Of the packages under test, so that these are installed without a network.
    gstreamer1.0-plugins-{base,good,bad,ugly} gstreamer1.0-libav
    # Of what is run there.
    gstreamer1.0-tools gstreamer1.0-plugins-base-apps ffmpeg python3 python3-gi gir1.2-gstreamer-1.0
    openssl ca-certificates glib-networking iproute2 procps adduser chromium chromium-driver
)

die() {
    echo "compat: $*" >&2
    exit 1
}

((EUID == 0)) || die "run it as root: it mounts folders and changes the root directory"
command -v mmdebstrap >/dev/null || die "mmdebstrap is missing: scripts/setup.sh deb"
compgen -G "$debs/*.deb" >/dev/null || die "there are no packages in $debs: make deb"

mkdir -p "$folder"
include=$(IFS=,; echo "${packages[*]}")
if [[ ! -s $folder/$suite.tar || $(cat "$folder/$suite.packages" 2>/dev/null) != "$include" ]]; then
    echo "compat: installing Debian $suite"
    # A mirror may be behind: the packages are as signed then. A slow one is given up.
    timeout 900 mmdebstrap --aptopt='Acquire::Check-Valid-Until "false"' --variant=minbase --mode=root --include="$include" \
        "$suite" "$folder/$suite.part.tar" "$mirror" >"$folder/$suite.log" 2>&1 || {
        tail -n 20 "$folder/$suite.log" >&2
        die "Debian $suite could not be installed, see $folder/$suite.log"
    }
    mv "$folder/$suite.part.tar" "$folder/$suite.tar"
    echo "$include" >"$folder/$suite.packages"
fi

# start SUITE: what the README says, on a system that has nothing but a package manager. Prints the result.
start() {
    if [[ ! -s $folder/$suite-minimal.tar ]]; then
        mmdebstrap --aptopt='Acquire::Check-Valid-Until "false"' --variant=minbase --mode=root --include=ca-certificates \
            "$suite" "$folder/$suite-minimal.part.tar" "$mirror" >"$folder/$suite.log" 2>&1 || return
        mv "$folder/$suite-minimal.part.tar" "$folder/$suite-minimal.tar"
    fi
    local minimal
    minimal=$(mktemp -d "$folder/start.XXXXXX")
    tar -x -f "$folder/$suite-minimal.tar" -C "$minimal"
    cp "$debs"/gstreamer1.0-rtmp2server_*.deb "$minimal/root/"
    cp /etc/resolv.conf /etc/hosts "$minimal/etc/"
    # Its end ends all processes and mounts.
    local result=0
    unshare --mount --pid --ipc --fork --kill-child bash -s "$minimal" "$folder/$suite-start.txt" <<'START' || result=$?
set -e
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
scripts/compat_start.py "$1" "$2"
START
    rm -rf --one-file-system "$minimal"
    return "$result"
}

status=0
started=""
if [[ $form == full ]]; then
    if started=$(start); then
        echo "compat: start: $started"
    else
        echo "compat: start: FAILED, see $folder/$suite-start.txt" >&2
        started=FAILED
        status=1
    fi
fi

# Below the target folder, since it needs the space.
root=$(mktemp -d "$folder/root.XXXXXX")
trap 'rm -rf --one-file-system "$root"' EXIT
tar -x -f "$folder/$suite.tar" -C "$root"
# At their own paths, which the tests were built with.
mkdir -p "$root/debs" "$root$PWD" "$root$CARGO_TARGET_DIR"
# Chromium's driver looks for its browser by this name.
echo '127.0.0.1 localhost' >"$root/etc/hosts"
cp "$debs"/*.deb "$root/debs/"

# In namespaces of its own, whose end ends all processes and mounts: what runs there cannot reach this system or the
# network.
unshare --mount --net --pid --ipc --fork --kill-child bash -s "$root" "$PWD" "$CARGO_TARGET_DIR" "$form" <<'INSIDE' || status=$?
set -euo pipefail
root=$1 top=$2 target=$3 form=$4
ip link set lo up
for folder in "$top" "$target"; do
    mkdir -p "$root$folder"
    mount --bind "$folder" "$root$folder"
    mount -o remount,bind,ro "$root$folder"
done
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/dev/shm" 2>/dev/null || true
for device in null zero full random urandom tty; do
    [[ -e $root/dev/$device ]] || touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
# The scripts there try the plugin of the package, not the one of the target folder.
env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 CARGO_TARGET_DIR=/nonexistent \
    chroot "$root" python3 "$top/scripts/compat_inside.py" "$target" "$form" </dev/null
INSIDE
if [[ -e $root/results.json ]]; then
    results=$folder/$suite.json
    [[ $form == full ]] || results=$folder/$suite-$form.json
    STARTED=$started python3 - "$root/results.json" "$results" <<'ADD'
import json, os, sys
results = json.load(open(sys.argv[1]))
if os.environ["STARTED"]:
    results["start"] = os.environ["STARTED"]
json.dump(results, open(sys.argv[2], "w"), indent=2)
ADD
fi
exit "$status"
