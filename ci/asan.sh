#!/usr/bin/env bash
# Tests and host programs with AddressSanitizer and its leak checker, which are told of our stacks; uses after return are looked for.
# Rust code has rustc's sanitizer; C programs have gcc's, whose runtime serves both.
set -euo pipefail
cd "$(dirname "$0")/.."
target=x86_64-unknown-linux-gnu
[ "$(rustc -vV | sed -n 's/^host: //p')" = $target ] || { echo "SKIPPED: needs $target"; exit 0; }
suppressions=$(mktemp)
trap 'rm -f "$suppressions"' EXIT
# A payload that panics when it is dropped is forgotten.
echo 'leak:upcall::quiet::quietly' >"$suppressions"
export RUSTFLAGS=-Zsanitizer=address ASAN_OPTIONS=detect_stack_use_after_return=1 \
    LSAN_OPTIONS="suppressions=$suppressions:print_suppressions=0"
lane=(cargo test --quiet --target $target --target-dir target/asan)
# Not those that limit the address space, of which the sanitizer takes much, or leak on purpose.
RUSTC_BOOTSTRAP=1 "${lane[@]}" -p upcall --features sanitizer --test dropped --test fiber -- \
    --skip no_memory --skip forgotten
# Not those with stacks too small for the sanitizer's frames. C's variables stay on its stack, where host programs look for them.
export CFLAGS=-fsanitize=address ASAN_OPTIONS=detect_stack_use_after_return=0
RUSTC_BOOTSTRAP=1 "${lane[@]}" -p hosts --features upcall/sanitizer --test hosts -- nested::plain nested::over panic::above panic::several \
    waits::panics waits::on_registered drops::aborted
RUSTC_BOOTSTRAP=1 "${lane[@]}" -p hosts --features upcall/sanitizer --test tools >/dev/null 2>&1 || true # builds the program
if found=$("target/asan/$target/debug/deps/c-hosts/backtrace-Static" overrun 2>&1); then
    echo "AddressSanitizer did not see the error made on purpose"
    exit 1
fi
grep -q 'stack-buffer-overflow' <<<"$found" && grep -q 'is located in stack of thread T0 at offset' <<<"$found" ||
    { echo "$found"; exit 1; }
echo "AddressSanitizer: no report in tests and host programs; an overrun on a pooled stack is reported, and the stack described"
