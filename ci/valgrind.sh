#!/usr/bin/env bash
# The tour under Valgrind's memcheck: SQLite, nested upcalls, pooled stacks. Pooled stacks are announced to Valgrind; the
# coroutines' own are the tour's to announce.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v valgrind >/dev/null || { echo "SKIPPED: valgrind is not installed"; exit 0; }
cargo build --quiet --release
valgrind --error-exitcode=9 target/release/tour >target/valgrind.out 2>target/valgrind.err ||
    { tail -n 60 target/valgrind.err; exit 1; }
tail -n 1 target/valgrind.out
grep 'ERROR SUMMARY' target/valgrind.err
