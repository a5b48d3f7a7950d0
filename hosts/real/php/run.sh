#!/usr/bin/env bash
# Runs the cases, each in its own process: through FFI, and embedded in a Rust program. Lines with
# "figure" are measured times.
set -euo pipefail
cd "$(dirname "$0")"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/../../../target/hosts} RUST_BACKTRACE=0

for needed in php8.2 php-config8.2 python3 /usr/lib/libphp8.2.so; do
    [ -e "$needed" ] || command -v "$needed" > /dev/null || { echo "SKIPPED: there is no $needed"; exit 77; }
done
echo "version PHP $(php8.2 -n -r 'echo PHP_VERSION, PHP_ZTS ? ", thread-safe" : ", not thread-safe";')"
cargo build --release --locked --quiet

said=$(mktemp)
trap 'rm -f "$said"' EXIT

# Runs a case. It must exit with a status, print lines (joined by ", "), and write a text to stderr.
expect() { # NAME STATUS PRINTED SAID COMMAND…
    local name=$1 expected="status $2, printed: $3" says=$4 status=0 printed
    printed=$(timeout 30 "${@:5}" 2> "$said") || status=$?
    local was="status $status, printed: ${printed//$'\n'/, }"
    if [ "$was" != "$expected" ] || [[ $(< "$said") != *"$says"* ]]; then
        printf '%s\n  expected %s; said: %s\n  was      %s; said:\n' "$name" "$expected" "$says" "$was"
        tail -20 "$said"
        exit 1
    fi >&2
    echo "ok $name"
    grep '^figure' "$said" || true
}

php=(php8.2 -n -d extension=ffi -d extension=posix -d ffi.enable=1 -d display_errors=0 -d log_errors=1)
library=$CARGO_TARGET_DIR/release/libphp_host.so
script=cases.php # also coroutines.php

ffi() { # CASE STATUS PRINTED SAID
    expect "ffi $1" "$2" "$3" "$4" "${php[@]}" ffi.php "$library" "$script" "$1"
}

embedded() { # thread|fiber CASE STATUS PRINTED SAID [PRINTED-AT-LAST [REQUESTS]]
    local request printed=
    for ((request = 0; request < ${7:-3}; request++)); do printed+=", $4"; done
    printed+=${6:+, $6}
    expect "embedded, on a $1: $2" "$3" "${printed#, }" "$5" "$CARGO_TARGET_DIR/release/php-embedded" "$1" "${7:-3}" "$script" "$2"
}

for case in a_then_b b_then_a at_random waits sorts generators deep event_loop fork; do
    ffi $case 0 'done, shut down' ''
done
ffi panics 0 'done, shut down' 'panicked at'
# PHP does not allow these: it abandons the callbacks, and Rust's frames, by longjmp.
ffi exception 255 'shut down' 'Throwing from FFI callbacks is not allowed'
ffi destroyed 255 'shut down' 'Throwing from FFI callbacks is not allowed'
ffi exit 255 'shut down' 'Throwing from FFI callbacks is not allowed'
ffi fatal 255 'shut down' 'the end'

for stack in thread fiber; do
    for case in a_then_b b_then_a at_random waits sorts generators deep exception destroyed; do
        embedded $stack $case 0 'done, shut down' ''
    done
    # The panic is an exception in PHP. Then it continues in the program, which has a status for it.
    embedded $stack panics 101 'done, shut down' 'panicked at'
    embedded $stack exit 3 'shut down' ''
    embedded $stack fatal 255 'shut down' 'the end'
    # PHP frees the stack of the suspended Fiber without ending the Fiber.
    embedded $stack fatal_beside_suspended 255 'shut down' 'the end' 'calls are open'
    # Without a guard in C, the longjmp skips Rust frames.
    embedded $stack unguarded 255 'shut down' 'the end' 'calls are open' 3000
done
embedded fiber suspended 0 'done, shut down' ''

# Waits that suspend PHP's Fibers.
script=coroutines.php
both() { # CASE STATUS PRINTED SAID
    ffi "$@"
    for stack in thread fiber; do
        embedded $stack "$@"
    done
}
# At most 64 of Rust's idle stacks keep their memory, unless the host of many Fibers asks for more.
UPCALL_IDLE_STACKS=1000 both sleeps 0 'done, shut down' ''
for case in sleeps main_blocks nested sorts messages destroyed destroyed_when_ready cancelled thrown exception_leaves \
    destructor resumed_too_soon inside forked; do
    both $case 0 'done, shut down' ''
done
ffi kept 0 'done, shut down' ''
ffi panics 0 'done, shut down' 'panicked at'
ends='shut down, finally, finally, finally'
both left 0 "left, $ends" ''
both exit 3 "$ends" ''
both uncaught 255 "$ends" 'Uncaught DomainException: the end'
both fatal 255 "$ends" 'the end'
expect pages 0 done '' "${php[@]}" pages.php "$library"
