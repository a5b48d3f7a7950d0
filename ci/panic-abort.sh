#!/usr/bin/env bash
# With panic = "abort", fibers dropped or aborted in the middle are leaked, with one message, and
# everything else continues.
set -euo pipefail
cd "$(dirname "$0")/.."
run() {
    cargo run --quiet -p upcall --example leaked "$@"
}
run | grep -x 'fibers were unwound'
said=$(mktemp)
trap 'rm -f "$said"' EXIT
run --config 'profile.dev.panic="abort"' --target-dir target/panic-abort 2> "$said" | grep -x 'fibers were leaked' || { cat "$said"; exit 1; }
test "$(grep -c '^upcall: .*panic = "abort"' "$said")" = 1
