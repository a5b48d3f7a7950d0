#!/usr/bin/env bash
# Checks every order of the threads' steps, in the hand-made protocols of atomics.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTFLAGS='--cfg upcall_loom' LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-3}"
ran=$(cargo test --release --target-dir target/loom -p upcall --lib model:: | tee >(cat >&2) | grep -c '^test .* ok$')
[ "$ran" -gt 0 ] || { echo 'loom ran nothing'; exit 1; }
echo "loom: $ran models hold, with up to $LOOM_MAX_PREEMPTIONS preemptions"
