#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# Runs every check and every test of the project in turn, also after one has failed.
# Expects scripts/setup.sh to have run. Arguments: the names of single steps, to run only those.

set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
only=("$@")
passed=0
failed=0
report=()

wanted() {
    ((${#only[@]} == 0)) && return
    local name
    for name in "${only[@]}"; do
        [[ $name == "$1" ]] && return
    done
    return 1
}

# step NAME COMMAND...: runs one step, and notes its result.
step() {
    local name=$1 start=$SECONDS result=ok
    shift
    wanted "$name" || return 0
    printf '\n==> %s: %s\n' "$name" "$*"
    if "$@" </dev/null; then
        passed=$((passed + 1))
    else
        result=FAILED
        failed=$((failed + 1))
    fi
    report+=("$(printf '%-12s %-6s %4d s' "$name" "$result" $((SECONDS - start)))")
}

step format cargo fmt --all --check
step format-fuzz cargo fmt --check --manifest-path fuzz/Cargo.toml
step layering scripts/check-layering.sh
step layers-test scripts/test_layering.py
step shellcheck shellcheck scripts/*.sh .ci/run
step links scripts/book.py --links
step clippy cargo clippy --release --locked --workspace --all-targets -- -D warnings
# The fuzz targets are a workspace of their own that takes in the sources by path: a module that moves breaks only them.
step check-fuzz cargo check --release --locked --manifest-path fuzz/Cargo.toml --bins
# For developers of the crate, with private items: links to them are intended.
step doc env RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' \
    cargo doc --release --locked --workspace --no-deps --document-private-items
step package scripts/check-package.sh
step features scripts/check-features.sh
step dependencies scripts/check-dependencies.sh
# The tests and scripts load the plugin's own file, which `cargo test` does not write. With the whole workspace and the
# examples, the dependencies have the same features as for the tests, and are built once for both.
step build cargo build --release --locked --workspace --lib --bins --examples
# Tests with failing networks and servers run dozens of processes at once, and tests with a thousand publishers two thousand
# threads. They would starve the others, and the others them.
heavy=(fallback_failover:: network:: scaling:: soak::)
step tests cargo test --release --locked --workspace --no-run
# No test prints nothing for this long, even on a busy machine. One that does waits forever, and the output shows for what.
watched=(scripts/watched.py 300)
step test "${watched[@]}" cargo test --release --locked --workspace --no-fail-fast -- "${heavy[@]/#/--skip=}"
step network "${watched[@]}" cargo test --release --locked --workspace --test integration -- --test-threads=1 "${heavy[@]}"
step inspect scripts/check_inspect.py
step examples scripts/check_examples.py
step relay .venv/bin/python scripts/check_relay.py
step dashboard .venv/bin/python scripts/check_dashboard.py
step operating scripts/check_operating.py
step elements scripts/check_elements_doc.py
step readme scripts/check_readme.py
step demo scripts/demo.py --seconds 3
step obs scripts/check_obs.py
step meson scripts/check-meson.sh
step compat scripts/check-compat.sh
step fuzz scripts/fuzz.sh "${FUZZ_SECONDS:-20}"

printf '\n'
printf '%s\n' "${report[@]}"
printf '\n%d passed, %d failed\n' "$passed" "$failed"
((failed == 0))
