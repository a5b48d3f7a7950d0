#!/usr/bin/env bash
# Builds the program with the system's libcurl, and runs its cases.
set -euo pipefail
cd "$(dirname "$0")"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/../../../target/hosts}"

if ! pkg-config --exists libcurl; then
    echo "SKIPPED: libcurl4-openssl-dev or pkg-config is not installed"
    exit 77
fi
cargo build --release --locked --quiet
program="$CARGO_TARGET_DIR/release/curl-host"
curl=$(cargo pkgid --quiet curl)
echo "version $("$program" version), crate ${curl##*@}"

for case in everywhere turns panics; do
    timeout 60 "$program" "$case"
    echo "ok $case"
done
