#!/usr/bin/env bash
# The tests as they run where the system does not tell a thread's stack: bounds are estimated, upcalls pooled.
# A target folder of its own, since the flag would rebuild everything else.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTFLAGS="--cfg stackbounds_no_query"
cargo test --target-dir target/no-query --tests -p stackbounds -p upcall -p hosts
