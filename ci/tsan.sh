#!/usr/bin/env bash
# Tests of fibers, tasks, workers and their waits, with ThreadSanitizer. upcall tells it of fibers.
# The lane has a compiler of its own, because the standard library must be built with the sanitizer,
# too. Otherwise it would miss the happens-before edges of locks and threads. It must report a race
# made on purpose.
set -euo pipefail
cd "$(dirname "$0")/.."
target=x86_64-unknown-linux-gnu
export RUSTC=/usr/bin/rustc
sources=$("$RUSTC" --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library || true
llvm=$("$RUSTC" -vV 2>/dev/null | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p') || true
runtime=$(echo /usr/lib/llvm-"$llvm"/lib/clang/*/lib/linux/libclang_rt.tsan-x86_64.a)
for needed in /usr/bin/cargo "$sources/Cargo.lock" "$runtime"; do
    [ -e "$needed" ] || { echo "SKIPPED: needs $needed: the packages rustc-web, cargo-web, rust-web-src and libclang-rt-19-dev of Debian 12"; exit 0; }
done
export RUSTFLAGS="-Zsanitizer=thread -Zexternal-clangrt -Zpre-link-args=-Wl,--whole-archive,$runtime,--no-whole-archive --cfg upcall_tsan" \
    CARGO_PROFILE_DEV_DEBUG=line-tables-only \
    TSAN_OPTIONS="external_symbolizer_path=$(command -v addr2line)"
lane() {
    RUSTC_BOOTSTRAP=1 /usr/bin/cargo test --quiet -Zbuild-std --target $target --target-dir target/tsan -p upcall "$@"
}
# Skips tests with a limited address space, and recursion deeper than the sanitizer's record of
# calls.
export TASK_RACES=${TASK_RACES:-1000}
lane --test fiber --test spawn --test tasks --test crossing --test primitives -- --skip no_memory --skip recurses_as_deep
if found=$(lane --test race 2>&1); then
    echo "ThreadSanitizer did not see the race made on purpose"
    exit 1
fi
grep -q 'first_racer' <<<"$found" && grep -q 'second_racer' <<<"$found" &&
    [ "$(grep -A1 ' created by thread ' <<<"$found" | grep -c 'sanitizer::tsan::Fiber::new ')" = 2 ] || { echo "$found"; exit 1; }
echo "ThreadSanitizer: no report in tests; a race between two fibers on two workers is reported, and which they are"
