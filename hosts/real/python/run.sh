#!/usr/bin/env bash
# Runs the cases, each in its own process, with each way to bind the library.
set -euo pipefail
cd "$(dirname "$0")"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/../../../target/hosts} RUST_BACKTRACE=0 PYTHONDONTWRITEBYTECODE=1
# Debian's Python has the packages.
python=/usr/bin/python3

$python -c 'import greenlet, gevent, cffi' 2> /dev/null || { echo "SKIPPED: there is no $python with greenlet, gevent and cffi"; exit 77; }
echo "version $($python -c 'import platform, greenlet, gevent, cffi
print(f"Python {platform.python_version()}, greenlet {greenlet.__version__}, gevent {gevent.__version__}, cffi {cffi.__version__}")')"
# The stable ABI needs no Python at build time.
PYO3_NO_PYTHON=1 cargo build --release --locked --quiet
cargo build --release --locked --quiet --package pages
built=$CARGO_TARGET_DIR/python
mkdir -p "$built"
cp "$CARGO_TARGET_DIR/release/libpython_host.so" "$built/python_host.so"
cp "$CARGO_TARGET_DIR/release/libpages.so" "$built"
$python bindings.py "$built/python_host.so"

said=$(mktemp)
trap 'rm -f "$said"' EXIT

run() { # BINDING CASE [SAID]
    local status=0 printed
    printed=$(PYTHONPATH=$built timeout 30 $python cases.py "$1" "$2" "$built/python_host.so" 2> "$said") || status=$?
    if [ "$status, $printed" != "0, done" ] || [[ $(< "$said") != *"${3:-}"* ]]; then
        printf '%s %s\n  status %s, printed: %s; it was to say: %s; said:\n' "$1" "$2" "$status" "$printed" "${3:-}"
        tail -20 "$said"
        exit 1
    fi >&2
    echo "ok $1 $2"
}

for binding in ctypes cffi_abi cffi_api pyo3; do
    for case in a_then_b b_then_a at_random waits sorts generators deep collected threads gil_released event_loop forks pool_of_processes; do
        run $binding $case
    done
    run $binding panics 'panicked at'
done
# ctypes and cffi ignore an exception leaving a callback, and say so.
run ctypes exceptions 'ignored on calling ctypes callback function'
run cffi_abi exceptions 'ignored from cffi callback'
run cffi_api exceptions 'ignored from cffi callback'
for case in exceptions panic_outside nested fibers ended interrupted; do
    run pyo3 $case
done

# Waits that suspend greenlets. The cases print figures, too.
suspended() { # SCRIPT [LOOP CASE]
    local script=$1 status=0 printed
    shift
    printed=$(timeout 60 $python "$script" "$@" "$built" 2> "$said") || status=$?
    if [ "$status" != 0 ] || [ "${printed##*$'\n'}" != done ]; then
        printf '%s %s\n  status %s, printed: %s; said:\n' "$script" "$*" "$status" "$printed"
        tail -20 "$said"
        exit 1
    fi >&2
    echo "${printed%done}ok $script $*"
}

for loop in own gevent; do
    for case in sleeps stacks timers messages threads nested panics others_live killed caught killed_when_ready \
        too_soon on_the_loop forks thread_exits exits; do
        suspended suspended.py $loop $case
    done
done
for case in main_greenlet timeouts interrupted loop_ends; do
    suspended suspended.py gevent $case
done
echo "With the pages of a thousand idle stacks kept:"
UPCALL_IDLE_STACKS=1024 suspended suspended.py gevent sleeps
suspended pages.py
