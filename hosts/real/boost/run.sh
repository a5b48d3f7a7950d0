#!/usr/bin/env bash
# Builds the programs of this folder against the guest library of hosts/, linked statically and
# shared, and runs their cases.
set -euo pipefail
cd "$(dirname "$0")"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/../../../target/hosts}" RUST_BACKTRACE=0
version=$(printf '#include <boost/fiber/all.hpp>\nBOOST_LIB_VERSION\n' | c++ -std=c++17 -E -P -x c++ - 2>/dev/null | tail -1) || {
    echo "SKIPPED: Boost.Fiber or a C++ compiler is not installed (apt-get install $(paste -sd ' ' packages))"
    exit 77
}
echo "version Boost $(tr -d '"' <<<"$version" | tr _ .), g++ $(c++ -dumpfullversion)"
ulimit -c 0

cargo build --quiet --release --locked --manifest-path ../../Cargo.toml --lib
libraries=$CARGO_TARGET_DIR/release programs=$CARGO_TARGET_DIR/boost
mkdir -p "$programs"
for program in context coroutine fiber waits; do
    c++ -std=gnu++17 -O2 -g -Wall -Wextra -Werror -pthread -I../../../crates/upcall/include -c -o "$programs/$program.o" \
        "$program.cpp"
    # The list of `rustc --print native-static-libs` for Linux.
    c++ -pthread -o "$programs/$program-static" "$programs/$program.o" "$libraries/libguest.a" \
        -lboost_fiber -lboost_context -lgcc_s -lutil -lrt -lpthread -lm -ldl
    c++ -pthread -o "$programs/$program-shared" "$programs/$program.o" -L"$libraries" -lguest -Wl,-rpath,"$libraries" \
        -lboost_fiber -lboost_context
done

# run PROGRAM CASE: runs a case. Its output is in $said, its exit code in $code.
run() {
    code=0
    said=$(timeout 20 "$programs/$1-$link" "$2" 2>&1) || code=$?
}

failed() {
    echo "$said" >&2
    echo "$1 $2 ($link) ended with $code" >&2
    exit 1
}

passes() {
    run "$1" "$2"
    [ $code = 0 ] || failed "$1" "$2"
    echo "ok $1 $2 ($link)"
    grep '^1,000 fibers' <<<"$said" || true
}

# stops PROGRAM CASE PATTERN: expects an abort, with this on stderr.
stops() {
    run "$1" "$2" 2>/dev/null
    [ $code = 134 ] && grep -q "$3" <<<"$said" || failed "$1" "$2"
    echo "ok $1 $2 ($link)"
}

reached() { echo "^upcall: an exception that is no Rust panic .* reached the Rust code of guest::exceptions::$1: "; }

# Stopped by Boost in its exception's destructor, by Rust, by C++, or by upcall, depending on the
# compiled code.
undeclared="^upcall: an exception that is no Rust panic .* reached the Rust code of guest::guest_call\|forced_unwind(): Assertion .caught. failed\|Rust cannot catch foreign exceptions\|^terminate called .* 'boost::context::detail::forced_unwind'"

moved() {
    local one='which began on thread 0x[0-9a-f]* (\(first\|second\)), came back on thread 0x[0-9a-f]* (\(first\|second\)): the host resumed'
    echo "^upcall: the downcall of guest::moved::$1, $one $2.*, which holds Rust frames, on another thread\."
}

for link in static shared; do
    for case in any_order ten_thousand on_top exceptions_and_panics destroyed_across_rust registered deallocated; do
        passes context $case
    done
    stops context destroyed "$(reached guest_unwinding)"
    stops context moved "$(moved guest_moving "the registered stack \"Boost's\", 0x")"

    for case in same_fringe any_order sinks exceptions destroyed_across_rust; do
        passes coroutine $case
    done
    stops coroutine destroyed "$(reached guest_unwinding)"
    stops coroutine destroyed_pooled "$(reached guest_unwinding_pooled)"
    stops coroutine destroyed_in_upcall "$(reached guest_unwinding_plain)"
    for case in destroyed_not_declared destroyed_not_declared_pooled; do
        stops coroutine $case "$undeclared"
    done

    for case in mutexes channels ten_thousand panics threads wait_blocks wait_suspends free_between_calls \
        free_between_calls_stealing pinned; do
        passes fiber $case
    done
    for case in thousand_sleep messages two_threads on_main condition_variables idle nested panics thread_exits \
        forked coroutines destroyed_in_waits; do
        passes waits $case
    done
    UPCALL_IDLE_STACKS=1000 passes waits thousand_sleep
    stops fiber moved_by_shared_work "$(moved guest_moving 'a stack around 0x.* that nobody described')"
    stops fiber moved_by_shared_work_pooled "$(moved guest_moving_pooled 'a stack around 0x.* that nobody described')"
    stops fiber moved_by_work_stealing "$(moved guest_moving 'a stack around 0x.* that nobody described')"
done
