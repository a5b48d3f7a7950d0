#!/usr/bin/env bash
# Linux on aarch64, in qemu's user emulation: the tests of stackbounds, and host programs. This
# machine's tests build those for aarch64 and run them in qemu. With the argument `all`, every test
# of the two crates and every host program runs, except those beyond qemu: some ten minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
. ci/foreign.sh
target=aarch64-unknown-linux-gnu
# Debian's compiler, the one with an installed standard library for aarch64.
for needed in /usr/bin/{cargo,rustc,aarch64-linux-gnu-g++,qemu-aarch64} /usr/aarch64-linux-gnu/lib/libc.so.6 /usr/lib/rustlib/$target; do
    [ -e "$needed" ] || { echo "SKIPPED: needs $needed, which ci/packages.sh installs"; exit 0; }
done
export TEST_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$TEST_RUNNER CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
there() {
    RUSTC=/usr/bin/rustc /usr/bin/cargo "$1" --quiet --target $target --target-dir target/aarch64 "${@:2}"
}
hosts() {
    CC=aarch64-linux-gnu-gcc CXX=aarch64-linux-gnu-g++ HOST_LIBRARIES=$PWD/target/aarch64/$target/debug cargo test --quiet "$@"
}

there build -p hosts --lib
there test -p stackbounds --lib --test threads
# The main thread's stack does not grow in qemu.
there test -p stackbounds --test main_thread -- limited
if [ "${1-}" = all ]; then
    there test -p upcall --tests
    # qemu 7.2 lacks the following: seccomp; limits of the address space; threads in the child of a
    # process with several threads; death by a signal without a message; a process's memory without
    # qemu's own; blocking the last two signals; the main stack above all else. Rust 1.85 starts no
    # thread in a thread that has called exit, but a late exit_anywhere needs one. The greenlets are
    # built for this machine.
    hosts -p hosts --test hosts --test misbehaving --test overflow -- --skip repeat_on_main --skip remaining::repeated --skip out_of_memory \
        --skip forks::fibers --skip forks::generations --skip forks::local --skip forks::on_pthread --skip forks::under --skip forks::workers --skip two_fork \
        --skip dereferenced --skip elsewhere_by_default --skip no_alternate_stack --skip sent_by_default --skip without_install \
        --skip idle_stacks --skip hundred_thousand --skip signals_and_names --skip guard_touched --skip exit_anywhere --skip greenlets
else
    # Fewer repetitions than elsewhere. The features are those of the whole workspace: after a run
    # of all tests, the test programs are built already.
    export HOST_TIMES=10000 HOST_SEED=9
    hosts --workspace --test hosts -- nested:: panic:: stack_switch:: longjmp:: deep_stack::first deep_stack::later signals::on_alternate \
        guard::overflow forks::in_nested forks::on_coroutine
    hosts --workspace --test misbehaving -- any_order:: copied:: moved_to_a_thread_without_upcalls moved_own_stack cpp_exceptions_stay plugins::two_panic plugins::moved
fi

where=$(place aarch64-linux-gnu-gcc target/aarch64 target/aarch64/$target/debug)
echo "$target: all as elsewhere; $where"
