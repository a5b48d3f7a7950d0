#!/usr/bin/env bash
# All tests of the workspace, by this machine's own compiler.
set -euo pipefail
cd "$(dirname "$0")/.."
. ci/foreign.sh
mkdir -p target/native
cargo test --workspace 2>&1 | tee target/native/log
# The C programs are the tests of these files.
awk -v folder=target/native '/^ *(Running|Doc-tests) /{ is_c = $2 ~ /^tests\/(hosts|misbehaving|overflow)\.rs$/ }
    /^test result: /{ print >(folder "/log-" (is_c ? "c" : "rust")) }' target/native/log
report "$(rustc -vV | sed -n 's/^host: //p')" target/native "$(place cc target/native target/debug/deps)" '-'
