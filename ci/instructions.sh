#!/usr/bin/env bash
# Counts the instructions of a warm crossing with callgrind, against the limits in
# bench/instructions/. Unlike times, the counts are repeatable to the instruction.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo run --quiet --release -p bench -- instructions
