#!/usr/bin/env bash
# Tests and host programs with AddressSanitizer and its leak checker. upcall tells both of its
# stacks. Uses after return are looked for, too. Rust code uses rustc's sanitizer. C programs use
# gcc's, and its runtime serves both.
set -euo pipefail
cd "$(dirname "$0")/.."
target=x86_64-unknown-linux-gnu
[ "$(rustc -vV | sed -n 's/^host: //p')" = $target ] || { echo "SKIPPED: needs $target"; exit 0; }
suppressions=$(mktemp)
trap 'rm -f "$suppressions"' EXIT
# A panic payload is leaked if its own drop panics, and hooks for coroutines when uninstalled.
printf 'leak:%s\n' upcall::drop_guards::drop_ignoring_panics upcall/src/capi/coroutines.rs \
    upcall/src/fiber/coroutines/mod.rs >"$suppressions"
export RUSTFLAGS=-Zsanitizer=address ASAN_OPTIONS=detect_stack_use_after_return=1 \
    LSAN_OPTIONS="suppressions=$suppressions:print_suppressions=0"
lane=(cargo test --quiet --target $target --target-dir target/asan)
# Skips tests with a limited address space, since the sanitizer takes much of it, and tests that
# leak on purpose.
RUSTC_BOOTSTRAP=1 "${lane[@]}" -p upcall --features sanitizer --test dropped --test fiber --test tasks -- \
    --skip no_memory --skip forgotten
# Safe programs that once read freed memory.
RUSTC_BOOTSTRAP=1 "${lane[@]}" -p upcall --features sanitizer --test thread_locals --test callback_misuse
# Skips programs with stacks too small for the sanitizer's frames, and the one about flat memory:
# the sanitizer keeps freed memory. C's variables stay on C's stack, since host programs look for
# them there.
export CFLAGS=-fsanitize=address ASAN_OPTIONS=detect_stack_use_after_return=0
RUSTC_BOOTSTRAP=1 "${lane[@]}" -p hosts --features upcall/sanitizer --test hosts -- nested::plain nested::over panic::above panic::several \
    waits::panics waits::on_registered drops::aborted suspended:: --skip suspended::many
RUSTC_BOOTSTRAP=1 "${lane[@]}" -p hosts --features upcall/sanitizer --test misbehaving -- suspended_ends::killed \
    suspended_ends::ends_before suspended_ends::panics suspended_ends::tasks suspended_ends::scopes suspended_ends::on_many \
    suspended_ends::uninstalled suspended_ends::detached
# C++ exceptions must be freed exactly once.
RUSTC_BOOTSTRAP=1 "${lane[@]}" -p hosts --features upcall/sanitizer --test caught -- caught::in_both caught::by caught::cancelled
RUSTC_BOOTSTRAP=1 "${lane[@]}" -p hosts --features upcall/sanitizer --test tools >/dev/null 2>&1 || true # builds the program
if found=$("target/asan/$target/debug/deps/c-hosts/backtrace-Static" overrun 2>&1); then
    echo "AddressSanitizer did not see the error made on purpose"
    exit 1
fi
grep -q 'stack-buffer-overflow' <<<"$found" && grep -q 'is located in stack of thread T0 at offset' <<<"$found" ||
    { echo "$found"; exit 1; }
echo "AddressSanitizer: no report in tests and host programs; an overrun on a pooled stack is reported, and the stack described"
