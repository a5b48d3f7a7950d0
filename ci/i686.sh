#!/usr/bin/env bash
# Linux on 32-bit x86: the tests of both crates, the host programs, and the instruction counts, all
# by this machine's own processor. This machine's tests build the host programs for i686.
set -euo pipefail
cd "$(dirname "$0")/.."
. ci/foreign.sh
target=i686-unknown-linux-gnu
# Debian's compiler, the one with an installed standard library for i686.
for needed in /usr/bin/{cargo,rustc,i686-linux-gnu-g++} /lib32/libc.so.6 /usr/lib32/libstdc++.so.6 /usr/lib/rustlib/$target; do
    [ -e "$needed" ] || { echo "SKIPPED: needs $needed, which ci/packages.sh installs"; exit 0; }
done
export CARGO_TARGET_I686_UNKNOWN_LINUX_GNU_LINKER=i686-linux-gnu-gcc
there() {
    RUSTC=/usr/bin/rustc /usr/bin/cargo "$1" --quiet --target $target --target-dir target/i686 "${@:2}"
}
log=target/i686/log
mkdir -p target/i686
: >$log-rust >$log-c

# Rust 1.85 starts no thread in a thread's last destructors; later versions do.
logged $log-rust there test -p stackbounds -p upcall --tests -- --skip whose_last_destructors_call
there build -p hosts --lib
# The greenlets, and Python for asyncio, are built for this machine. With 32 bits, a handle's number
# is the address of some memory now and then: its use as a pointer then goes unnoticed. Rust 1.85
# starts no thread in a thread that has called exit, such as the watcher of `exit_anywhere`.
CC=i686-linux-gnu-gcc CXX=i686-linux-gnu-g++ HOST_LIBRARIES=$PWD/target/i686/$target/debug \
    logged $log-c cargo test --quiet --workspace --test hosts --test misbehaving --test overflow -- --skip greenlets --skip asyncio \
    --skip callbacks::dereferenced --skip suspended_ends::exit_anywhere

report $target target/i686 "$(place i686-linux-gnu-gcc target/i686 target/i686/$target/debug)" \
    'no threads in last destructors with Rust 1.85; no 32-bit Python for the greenlets and asyncio'
CC=i686-linux-gnu-gcc there run --release -p bench -- instructions
