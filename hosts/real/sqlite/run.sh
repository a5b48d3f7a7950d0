#!/usr/bin/env bash
# Builds the program with the system's SQLite, and runs its cases.
set -euo pipefail
cd "$(dirname "$0")"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/../../../target/hosts}"

if ! pkg-config --exists sqlite3; then
    echo "SKIPPED: libsqlite3-dev or pkg-config is not installed"
    exit 77
fi
cargo build --release --locked --quiet
program="$CARGO_TARGET_DIR/release/sqlite-host"
rusqlite=$(cargo pkgid --quiet rusqlite)
echo "version $("$program" version), rusqlite ${rusqlite##*@}"

for case in threads fibers interleaved panics busy_thread busy_fiber; do
    timeout 60 "$program" "$case"
    echo "ok $case"
done
