#!/usr/bin/env bash
# Linux with musl, on this machine's own processor: Rust tests of both crates and the host programs,
# all static. With the argument `all`, every Rust test and the host programs run, static and
# dynamic: some fifteen minutes.
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
echo 'INPUT(-l:libunwind.a)' | tee "$shim/libgcc_s.so" >"$shim/libgcc_s.a"

export CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=musl-gcc
# Builds and runs one kind of programs. Arguments: its name, the flags of rustc, the flag of the C
# compiler, and arguments for the tests of C programs.
tests() {
    local kind=$1 folder=target/musl-$1 cc=$shim/cc-$1
    export CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS="-C link-self-contained=no -L native=$shim $2"
    there() {
        RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 /usr/bin/cargo "$1" --quiet -Zbuild-std=std,panic_unwind,test --target $target \
            --target-dir "$folder" "${@:2}"
    }
    mkdir -p "$folder"
    : >"$folder/log-rust" >"$folder/log-c"

    # Rust 1.85 starts no thread in a thread's last destructors; later versions do. musl does not
    # describe the frames that call signal handlers, so a wait in a handler is not recognised.
    logged "$folder/log-rust" there test -p stackbounds -p upcall "${programs[@]}" -- \
        --skip whose_last_destructors_call --skip a_wait_in_a_handler_blocks_the_thread

    # musl-gcc finds no headers of the kernel, and leaves out the index of frames that unwinders
    # need.
    cat >"$cc" <<END
#!/bin/sh
exec musl-gcc -I $PWD/hosts/c/musl -idirafter /usr/include -idirafter /usr/include/x86_64-linux-gnu "\$@" $3 -Wl,--eh-frame-hdr -L $shim -lunwind
END
    chmod +x "$cc"
    there build -p hosts --lib
    # There is no C++ library for musl, and no Python. musl holds a lock while it calls fork
    # handlers, so no other fork may begin there, and no thread end. The last three are skipped
    # for the reasons above.
    HOST_LIBC=musl CC=$cc CXX=false HOST_LIBRARIES=$PWD/$folder/$target/debug \
        logged "$folder/log-c" cargo test --quiet --workspace --test hosts --test misbehaving --test overflow -- "${@:4}" --skip greenlets --skip asyncio \
        --skip fork_handlers::by_another_thread --skip fork_handlers::nested --skip fork_handlers::thread_ends \
        --skip go_signals::profiler --skip exits::key_destructors --skip suspended_ends::signal_handlers

    report "$target, $kind" "$folder" "$(file -b "$folder/$target/debug/c-hosts/nested-Static" | cut -d, -f1,2,4,5)" \
        "what musl lacks: ci/musl.sh lists it$selection"
}
# Static programs load no plug-ins.
static=(static '-C target-feature=+crt-static -C relocation-model=static' -static --skip plugins::)
if [ "${1-}" = all ]; then
    programs=(--tests) selection=
    tests "${static[@]}"
    tests dynamic '-C target-feature=-crt-static' ''
else
    programs=(--lib) selection='; other Rust tests run only with the argument all'
    for name in posix sleep threads main_thread crossing key_destructors signals spawn thread_locals; do
        programs+=(--test $name)
    done
    tests "${static[@]}"
fi
