#!/usr/bin/env bash
# Builds the program with the system's libuv, and runs its cases.
set -euo pipefail
cd "$(dirname "$0")"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/../../target/hosts}"

if ! pkg-config --exists libuv; then
    echo "SKIPPED: libuv1-dev or pkg-config is not installed"
    exit 77
fi
cargo build --release --locked --quiet
program="$CARGO_TARGET_DIR/release/uv-host"
echo "version $("$program" version)"

for case in jobs wakes turns panics threads_exit; do
    timeout 60 "$program" "$case"
    echo "ok $case"
done
