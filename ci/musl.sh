#!/usr/bin/env bash
# Linux with musl, on this machine's own processor: Rust tests of both crates, in static programs.
# With the argument `all`, every Rust test runs in static and in dynamic programs: some ten minutes.
# The standard library is built here, since no package has it. In the place of libgcc_s, LLVM's
# unwinder is linked.
set -euo pipefail
cd "$(dirname "$0")/.."
. ci/foreign.sh
target=x86_64-unknown-linux-musl
unwinder=/usr/lib/llvm-19/lib/libunwind.a
for needed in /usr/bin/{cargo,rustc,musl-gcc,file} /usr/lib/rustlib/src/rust/library/Cargo.lock $unwinder; do
    [ -e "$needed" ] || { echo "SKIPPED: needs $needed, which ci/packages.sh installs"; exit 0; }
done
shim=$PWD/target/musl-shim
mkdir -p "$shim"
# Debian has built the unwinder for glibc. It needs one function of glibc's for its messages.
cat >"$shim/messages.c" <<'END'
#include <stdarg.h>
#include <stdio.h>
int __fprintf_chk(FILE *file, int flag, const char *format, ...) {
    va_list arguments;
    (void)flag;
    va_start(arguments, format);
    int written = vfprintf(file, format, arguments);
    va_end(arguments);
    return written;
}
END
musl-gcc -O2 -fPIC -c -o "$shim/messages.o" "$shim/messages.c"
install -m 644 $unwinder "$shim/libunwind.a"
ar r "$shim/libunwind.a" "$shim/messages.o"
echo 'INPUT(-l:libunwind.a)' >"$shim/libgcc_s.so"

export CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=musl-gcc
tests() {
    local kind=$1 log=target/musl-$1/log
    export CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS="-C link-self-contained=no -L native=$shim $2"
    mkdir -p "target/musl-$kind"
    # Rust 1.85 starts no thread in a thread's last destructors; later versions do. musl does not
    # describe the frames that call signal handlers, so a wait in a handler is not recognised.
    logged "$log" env RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 /usr/bin/cargo test --quiet -Zbuild-std=std,panic_unwind,test \
        --target $target --target-dir "target/musl-$kind" -p stackbounds -p upcall "${programs[@]}" -- \
        --skip whose_last_destructors_call --skip a_wait_in_a_handler_blocks_the_thread
    local program
    program=$(find "target/musl-$kind/$target/debug/deps" -name 'spawn-*' -perm -u+x | head -1)
    echo "$target, $kind: Rust tests: $(counts "$log"); $(file -b "$program" | cut -d, -f1-5)"
}
static=(static '-C target-feature=+crt-static -C relocation-model=static')
if [ "${1-}" = all ]; then
    programs=(--tests)
    tests "${static[@]}"
    tests dynamic '-C target-feature=-crt-static'
else
    programs=(--lib)
    for name in threads main_thread callback crossing fiber key_destructors memory signals spawn thread_locals; do
        programs+=(--test $name)
    done
    tests "${static[@]}"
fi
