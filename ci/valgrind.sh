#!/usr/bin/env bash
# Host programs under Valgrind's memcheck, leaks included: pooled stacks and service stacks are announced to it. Only cases
# whose own coroutines have no part: Valgrind takes the switches between undescribed stacks for wild jumps.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v valgrind >/dev/null || { echo "SKIPPED: valgrind is not installed"; exit 0; }
cargo test --quiet -p hosts one_frame >/dev/null
cargo test --quiet -p hosts -- pooled_levels sixty_four >/dev/null
for case in 'panic one_frame' 'panic several_frames' 'panic payloads' 'panic while_dropping' 'nested pooled_levels' \
    'threads sixty_four' 'threads key_destructors' 'deep_stack sized'; do
    read -r program name <<<"$case"
    valgrind --quiet --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite \
        "target/debug/deps/c-hosts/$program-Static" "$name" >target/valgrind.out 2>&1 ||
        { tail -n 60 target/valgrind.out; exit 1; }
    echo "$case: no errors, nothing lost"
done
