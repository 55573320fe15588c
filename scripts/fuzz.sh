#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# Runs each fuzz target: scripts/fuzz.sh SECONDS [TARGET...]
#
# Works with the stable compiler and without cargo-fuzz: these are the flags that libfuzzer-sys documents for building by
# hand. There is no address sanitizer, which needs a nightly compiler and has nothing to find in safe code.
#
# New inputs of interest are kept under the target folder, and inputs that make a target fail in fuzz/artifacts.

set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:?usage: scripts/fuzz.sh SECONDS [TARGET...]}
shift
targets=("$@")
if ((${#targets[@]} == 0)); then
    for source in fuzz/fuzz_targets/*.rs; do
        targets+=("$(basename "$source" .rs)")
    done
fi

target_dir=${CARGO_TARGET_DIR:-$PWD/target}
triple=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"

# With --target the flags do not reach build scripts, and the artefacts stay apart from the plugin's.
cargo build --release --locked --manifest-path fuzz/Cargo.toml --bins --target "$triple" --target-dir "$target_dir"

status=0
for target in "${targets[@]}"; do
    found=$target_dir/fuzz-corpus/$target
    artifacts=fuzz/artifacts/$target
    log=$found.log
    mkdir -p "$found" "$artifacts"
    printf 'fuzz %s for %s s\n' "$target" "$seconds"
    if "$target_dir/$triple/release/$target" "$found" "fuzz/corpus/$target" \
        -max_total_time="$seconds" -max_len=20000 -timeout=10 -rss_limit_mb=2048 \
        -artifact_prefix="$artifacts/" -print_final_stats=1 >"$log" 2>&1; then
        grep -E '^#[0-9]+\s+DONE|^stat::(number_of_executed_units|peak_rss_mb)' "$log"
    else
        tail -n 60 "$log" | cut -c 1-400
        printf 'fuzz %s: FAILED, see %s\n' "$target" "$artifacts"
        status=1
    fi
done
exit "$status"
