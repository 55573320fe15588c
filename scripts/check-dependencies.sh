#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# Checks licences and advisories of the dependencies, and that the public face changes only as its version says: each with its
# tool, where that is installed (cargo install cargo-deny cargo-semver-checks).

set -euo pipefail
cd "$(dirname "$0")/.."

if cargo deny --version >/dev/null 2>&1; then
    deny=(cargo deny --all-features)
    checks=(advisories bans licenses sources)
    if ! cargo deny fetch db >/dev/null 2>&1; then
        deny+=(--offline)
        if compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/*/crates" >/dev/null; then
            echo "check-dependencies: advisories could not be fetched, so those of the last time count"
        else
            echo "check-dependencies: advisories could not be fetched, and are left out"
            checks=(bans licenses sources)
        fi
    fi
    "${deny[@]}" check "${checks[@]}" || exit
else
    echo "check-dependencies: left out, cargo-deny is not installed"
fi

released=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null || true)
if ! cargo semver-checks --version >/dev/null 2>&1; then
    echo "check-dependencies: the public face is left out, cargo-semver-checks is not installed"
elif [[ -z $released ]]; then
    echo "check-dependencies: the public face is left out, nothing was released yet"
else
    cargo semver-checks --package gst-plugin-rtmp2server --baseline-rev "$released"
fi
