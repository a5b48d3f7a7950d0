#!/usr/bin/env bash
# Every order of the threads' steps, for the protocols that are made of atomics by hand.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTFLAGS='--cfg upcall_loom' LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-3}"
ran=$(cargo test --release --target-dir target/loom -p upcall --lib model:: | tee >(cat >&2) | grep -c '^test .* ok$')
[ "$ran" -gt 0 ] || { echo 'loom ran nothing'; exit 1; }
echo "loom: $ran models hold, with up to $LOOM_MAX_PREEMPTIONS preemptions"
