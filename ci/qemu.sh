#!/usr/bin/env bash
# Linux on another architecture, in qemu's user emulation: ci/qemu.sh ARCHITECTURE [all], where
# ARCHITECTURE is aarch64, riscv64 or arm. The tests of stackbounds run, and host programs; this
# machine's tests build those for the architecture and run them in qemu. With `all`, every test of
# the two crates and every host program runs, on aarch64 with an optimised library too, except
# those beyond qemu: some ten minutes. For s390x and powerpc64le, only stackbounds is there.
set -euo pipefail
cd "$(dirname "$0")/.."
. ci/foreign.sh
gnu=$1-linux-gnu compiler=g++ qemu=qemu-$1 std=()
case $1 in
    aarch64) target=$1-unknown-linux-gnu ;;
    arm) target=armv7-unknown-linux-gnueabihf gnu=arm-linux-gnueabihf ;;
    s390x) target=$1-unknown-linux-gnu compiler=gcc ;;
    powerpc64le) target=$1-unknown-linux-gnu compiler=gcc qemu=qemu-ppc64le ;;
    riscv64)
        # Debian's compiler has no installed standard library for it, but the sources.
        target=riscv64gc-unknown-linux-gnu std=(-Zbuild-std=std,panic_unwind,test)
        export RUSTC_BOOTSTRAP=1
        ;;
esac
needs=/usr/lib/rustlib/$target
[ ${#std[@]} -eq 0 ] || needs=/usr/lib/rustlib/src/rust/library/Cargo.lock
for needed in /usr/bin/{cargo,rustc,$gnu-$compiler,$qemu} /usr/$gnu/lib/libc.so.6 $needs; do
    [ -e "$needed" ] || { echo "SKIPPED: needs $needed; for aarch64, riscv64 and arm, ci/packages.sh installs it"; exit 0; }
done
# On coroutines, panics find their way by unwind tables. Not everywhere does gcc make them unasked.
export CFLAGS=-funwind-tables
folder=target/$1 log=target/$1/log
# Every panic of the tests would be symbolised, by an emulated processor.
export RUST_BACKTRACE=0
export TEST_RUNNER="$qemu -L /usr/$gnu"
variables=CARGO_TARGET_$(tr a-z- A-Z_ <<<"$target")
export "${variables}_RUNNER=$TEST_RUNNER" "${variables}_LINKER=$gnu-gcc"
mkdir -p "$folder"
: >"$log-rust" >"$log-c"
there() {
    RUSTC=/usr/bin/rustc /usr/bin/cargo "$1" --quiet "${std[@]}" --target $target --target-dir "$folder" "${@:2}"
}
rust() {
    logged "$log-rust" there test --no-fail-fast "$@"
}
hosts() {
    CC=$gnu-gcc CXX=$gnu-g++ HOST_LIBRARIES=$PWD/$folder/$target/$1 logged "$log-c" cargo test --quiet --no-fail-fast "${@:2}"
}

# The main thread's stack does not grow in qemu.
rust -p stackbounds --test main_thread -- limited
case $1 in
    s390x | powerpc64le)
        rust -p stackbounds --lib --test posix --test sleep --test threads --test fork --test fork_handlers
        report $target "$folder" "in $("$qemu" --version | head -1)" 'upcall: no switch of stacks for this architecture'
        exit
        ;;
esac
there build -p hosts --lib
rust -p stackbounds --lib --test posix --test sleep --test threads
if [ "${2-}" = all ]; then
    # qemu 7.2 lacks the following: seccomp; limits of the address space; threads in the child of a
    # process with several threads; pages that are cleared in children; death by a signal without a
    # message; a process's memory and system calls without qemu's own; blocking the last two
    # signals; the main stack above all else. Some programs need x86: its trap flag, its division,
    # its illegal instruction. Rust 1.85 starts no thread in a thread that has called exit, or whose
    # last destructors run. Python is built for this machine. Without switches of our own, a
    # wait in a signal handler is not recognised.
    skipped=(--skip in_the_child_of_a_fork --skip goes_on_in_the_child --skip one_core --skip hooks --skip copy --skip every_kind_say_so
        --skip behind_a_blocked_one --skip every_life --skip wait_without_sigpipe --skip children_can_be_terminated --skip whose_last_destructors_call)
    [ "$1" = aarch64 ] || skipped+=(--skip a_wait_in_a_handler_blocks_the_thread)
    # Linkers for ARM merge the unwind information of neighbouring functions. So upcall cannot tell
    # initialisers from other functions.
    [ "$1" != arm ] || skipped+=(--skip initialiser)
    rust -p upcall --tests -- "${skipped[@]}"
    programs=(-p hosts --test hosts --test misbehaving --test overflow -- --skip repeat_on_main --skip remaining::repeated --skip out_of_memory
        --skip forks::fibers --skip forks::generations --skip forks::local --skip forks::on_pthread --skip forks::under --skip forks::while
        --skip forks::workers --skip fork_handlers:: --skip two_fork --skip dereferenced --skip elsewhere_by_default --skip no_alternate_stack
        --skip sent_by_default --skip without_install --skip idle_stacks --skip hundred_thousand --skip signals_and_names --skip guard_touched --skip exit_anywhere
        --skip greenlets --skip asyncio --skip locked:: --skip stepped:: --skip preempted:: --skip arithmetic::
        --skip suspended_ends::forked)
    [ "$1" = aarch64 ] || programs+=(--skip suspended_ends::signal_handlers --skip suspended_ends::interrupted_anywhere)
    hosts debug "${programs[@]}"
    if [ "$1" = aarch64 ]; then
        there build --release -p hosts --lib
        # The tests expect an optimised library if they are optimised themselves. Then they repeat
        # more, which takes too long in an emulator.
        HOST_TIMES=10000 hosts release --release "${programs[@]}"
    fi
else
    # Fewer repetitions than elsewhere. The features are those of the whole workspace: after a run
    # of all tests, the test programs are built already.
    export HOST_TIMES=10000 HOST_SEED=9
    hosts debug --workspace --test hosts -- nested:: panic:: stack_switch:: longjmp:: deep_stack::first deep_stack::later signals::on_alternate \
        guard::overflow forks::in_nested forks::on_coroutine
    hosts debug --workspace --test misbehaving -- any_order:: copied:: moved_to_a_thread_without_upcalls moved_own_stack cpp_exceptions_stay \
        plugins::two_panic plugins::moved
fi

why='all but some run only with the argument all'
[ "${2-}" != all ] || why='what qemu 7.2 lacks: ci/qemu.sh lists it'
report $target "$folder" "$(place $gnu-gcc "$folder" "$folder/$target/debug"), in $("$qemu" --version | head -1)" "$why"
