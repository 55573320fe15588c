#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# Installs what is missing on Debian 12 or Ubuntu 24.04 (or newer), and nothing else.
#
#   scripts/setup.sh build    packages to compile the plugin
#   scripts/setup.sh demo     the same, and those of `make demo`
#   scripts/setup.sh deb      the same as for build, and those of `make deb` and `make compat`
#   scripts/setup.sh book     mdbook from crates.io, in target/tools, for `make book`
#   scripts/setup.sh test     the same, and those of `make test` (the default)
#
# If nothing is missing, this takes a moment and contacts no package registry.

set -euo pipefail
cd "$(dirname "$0")/.."

stage=${1:-test}
min_rust=1.92
selenium='selenium>=4.20'

build_packages=(
    build-essential
    ca-certificates
    pkg-config
    libgstreamer1.0-dev             # gstreamer-1.0, gstreamer-base-1.0, gstreamer-check-1.0
    libgstreamer-plugins-base1.0-dev # gstreamer-video-1.0
)
demo_packages=(
    python3
    ffmpeg
    gstreamer1.0-tools              # gst-launch-1.0, gst-inspect-1.0
    gstreamer1.0-plugins-base
    gstreamer1.0-plugins-good       # flvdemux, flvmux, mp4mux, matroskamux
    gstreamer1.0-plugins-bad        # h264parse, mpegtsmux, srtsink, hlssink2, rtmp2sink, rtmpsink
)
test_packages=(
    git
    gdb                             # shows where a hanging test waits
    gstreamer1.0-plugins-ugly       # x264enc
    gstreamer1.0-libav              # avdec_h264, avdec_aac
    iproute2                        # network namespaces of the tests
    util-linux
    gstreamer1.0-plugins-base-apps  # gst-play-1.0
    nginx
    libnginx-mod-rtmp
    haproxy
    glib-networking                 # RTMPS in rtmp2sink
    openssl
    python3-venv
    python3-gi
    python3-numpy                   # examples/cameras.py
    gir1.2-gstreamer-1.0
    meson
    ninja-build
    shellcheck
)
deb_packages=(
    debhelper
    dpkg-dev
    lintian
    mmdebstrap
)
# A browser for the page of examples/relay. On Ubuntu it is a snap only, which no script should install: see check_browser.
browser_packages=(
    chromium
    chromium-driver
)

log() { printf 'setup: %s\n' "$*"; }
die() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

case $stage in
    build) packages=("${build_packages[@]}") ;;
    demo) packages=("${build_packages[@]}" "${demo_packages[@]}") ;;
    deb) packages=("${build_packages[@]}" "${deb_packages[@]}") ;;
    test)
        packages=("${build_packages[@]}" "${demo_packages[@]}" "${test_packages[@]}")
        if grep -qsx 'ID=debian' /etc/os-release; then
            packages+=("${browser_packages[@]}")
        fi
        ;;
    book) packages=(build-essential python3) ;;
    *) die "unknown stage '$stage': build, demo, deb, book or test" ;;
esac
if [[ $stage == deb || $stage == test ]]; then
    # Any npm will do, and Debian's depends on hundreds of packages.
    command -v npm >/dev/null || packages+=(npm)
fi

installed() {
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

install_packages() {
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        log "not a Debian or Ubuntu: install the equivalents of these yourself:" "${packages[@]}"
        return
    fi
    local missing=() package
    for package in "${packages[@]}"; do
        installed "$package" || missing+=("$package")
    done
    if ((${#missing[@]} == 0)); then
        return
    fi
    log "installing" "${missing[@]}"
    local root=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null || die "packages are missing, and there is neither root nor sudo to install them: ${missing[*]}"
        root=(sudo)
    fi
    "${root[@]}" apt-get update -q
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "${missing[@]}"
}

# The distributions' compilers are too old for GStreamer's Rust bindings, so the toolchain is checked, not installed.
check_rust() {
    local have=""
    if command -v rustc >/dev/null && command -v cargo >/dev/null; then
        have=$(rustc --version 2>/dev/null | awk '{ print $2 }')
    fi
    if [[ -z $have ]] || [[ $(printf '%s\n' "$min_rust" "$have" | sort -V | head -n 1) != "$min_rust" ]]; then
        die "Rust $min_rust or newer is needed, and ${have:-none} is installed." \
            "Debian 12's and Ubuntu 24.04's own cargo is too old. Install the current stable one with rustup:" \
            "  Ubuntu 24.04:  sudo apt-get install rustup && rustup default stable" \
            "  Debian 12:     follow https://rustup.rs, then open a new shell" \
            "and an existing rustup is brought up to date with: rustup update stable"
    fi
    if [[ $stage == test ]]; then
        cargo fmt --version >/dev/null 2>&1 || die "rustfmt is missing: rustup component add rustfmt"
        cargo clippy --version >/dev/null 2>&1 || die "clippy is missing: rustup component add clippy"
    fi
}

# Installs the newest ffmpeg as .venv/bin/ffmpeg, a client of the tests, and selenium, which drives the browser.
make_venv() {
    if [[ -x .venv/bin/ffmpeg ]] && .venv/bin/ffmpeg -version >/dev/null 2>&1; then
        # It may be older than the need for selenium.
        if ! .venv/bin/python -c 'import selenium' 2>/dev/null; then
            log "adding selenium to .venv"
            .venv/bin/python -m pip install --quiet --disable-pip-version-check "$selenium"
        fi
        return
    fi
    log "making .venv with imageio-ffmpeg and selenium"
    local python=python3
    [[ -x /usr/bin/python3 ]] && python=/usr/bin/python3
    # An interrupted run may have left a broken one.
    "$python" -m venv --clear .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check 'imageio-ffmpeg>=0.8.1' "$selenium"
    local exe
    exe=$(.venv/bin/python -c 'import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())')
    ln -sfn "$exe" .venv/bin/ffmpeg
    .venv/bin/ffmpeg -version | head -n 1
}

# Installs the npm packages of a page, in the versions of its package-lock.json.
install_page() {
    local page=$1
    # npm removes the folder first, and this file with it.
    local done=$page/node_modules/installed-lock.json
    if cmp -s "$page/package-lock.json" "$done"; then
        return
    fi
    log "fetching the npm packages of $page"
    npm ci --prefix "$page" --ignore-scripts --no-audit --no-fund --loglevel=error
    cp "$page/package-lock.json" "$done"
}

check_browser() {
    if command -v chromedriver >/dev/null || command -v chromium.chromedriver >/dev/null || [[ -n ${CHROMEDRIVER:-} ]]; then
        return
    fi
    log "no Chromium with its driver, which the step 'relay' of the tests needs. On Ubuntu: snap install chromium." \
        "Or name any with CHROMIUM and CHROMEDRIVER."
}

# Installs mdbook, which renders docs, in a version that is known to fit docs/book.toml.
install_mdbook() {
    local tools=${CARGO_TARGET_DIR:-$PWD/target}/tools
    if command -v mdbook >/dev/null || [[ -x $tools/bin/mdbook ]]; then
        return
    fi
    log "building mdbook in $tools"
    cargo install --locked --root "$tools" --target-dir "$tools/target" --version '^0.5' mdbook
    rm -rf "$tools/target"
}

install_packages
check_rust
if [[ $stage == book ]]; then
    install_mdbook
fi
if [[ $stage == test ]]; then
    make_venv
    check_browser
fi
if [[ $stage == deb || $stage == test ]]; then
    install_page examples/dashboard/page
    install_page examples/relay/page
fi
log "ready to $stage"
