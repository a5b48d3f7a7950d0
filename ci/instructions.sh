#!/usr/bin/env bash
# Instructions of a warm crossing, counted by callgrind, against the limits in bench/instructions.txt: they are repeatable to the
# instruction where times are not.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo run --quiet --release -p bench -- instructions
