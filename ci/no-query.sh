#!/usr/bin/env bash
# Tests as on a system that does not tell a thread's stack: bounds are estimated, and upcalls run on
# pooled stacks. Of the slow tests, only those about stacks run. Tests that must know the thread's
# own stack are skipped: they find the frames jumped over by C, and the order of calls on several
# stacks. The target folder is separate, since the flag would rebuild everything else.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTFLAGS="--cfg stackbounds_no_query"
lane=(cargo test --target-dir target/no-query)
"${lane[@]}" -p stackbounds --tests
"${lane[@]}" -p upcall -p hosts --test callback --test crossing --test dropped --test drops --test fiber --test hosts --test misbehaving --test overflow \
    --test snapshot -- --skip shutdown:: --skip hundred_thousand --skip jumped::out_of --skip under_a_nested_wait --skip scope_with_jumps
