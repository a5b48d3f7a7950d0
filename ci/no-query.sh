#!/usr/bin/env bash
# The tests as they run where the system does not tell a thread's stack: bounds are estimated, upcalls pooled. Of those that take long, what looks at stacks.
# A target folder of its own, since the flag would rebuild everything else.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTFLAGS="--cfg stackbounds_no_query"
lane=(cargo test --target-dir target/no-query)
"${lane[@]}" -p stackbounds --tests
"${lane[@]}" -p upcall -p hosts --test callback --test crossing --test dropped --test drops --test fiber --test hosts --test misbehaving --test overflow \
    --test snapshot -- --skip shutdown:: --skip hundred_thousand
