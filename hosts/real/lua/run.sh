#!/usr/bin/env bash
# Builds the module and the program, and runs their cases.
set -euo pipefail
cd "$(dirname "$0")"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/../../../target/hosts}"

if ! command -v lua5.4 >/dev/null || ! pkg-config --exists lua5.4; then
    echo "SKIPPED: lua5.4, liblua5.4-dev or pkg-config is not installed"
    exit 77
fi
cargo build --release --locked --quiet
mlua=$(cargo pkgid --quiet mlua)
echo "version $(lua5.4 -v | cut -d' ' -f2), mlua ${mlua##*@}"

for case in errors a_million_errors panics yields coroutines waits fibers depth finalizers threads; do
    timeout 60 lua5.4 cases.lua "$CARGO_TARGET_DIR/release" "$case"
    echo "ok $case"
done
for case in nested panics fibers coroutines threads finalizers; do
    timeout 60 "$CARGO_TARGET_DIR/release/embeds-lua" "$case"
    echo "ok mlua $case"
done
