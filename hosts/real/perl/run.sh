#!/usr/bin/env bash
# Runs the cases with the guest library of hosts/, each in its own process.
set -euo pipefail
cd "$(dirname "$0")"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/../../../target/hosts}" RUST_BACKTRACE=0
# Debian's Perl has the packages.
perl=/usr/bin/perl

$perl -MCoro -MEV -MFFI::Platypus -e 1 2>/dev/null || {
    echo "SKIPPED: there is no $perl with Coro, EV and FFI::Platypus"
    exit 77
}
echo "version $($perl -MCoro -MEV -e 'printf "Perl %vd, Coro %s, EV %s", $^V, $Coro::VERSION, $EV::VERSION')"

cargo build --quiet --release --locked --manifest-path ../../Cargo.toml --lib

run() { # CASE…
    local printed code=0
    printed=$(timeout 60 $perl cases.pl "$CARGO_TARGET_DIR/release/libguest.so" "$@" 2>&1) || code=$?
    # The last line is the case's own.
    if [ "$code" != 0 ] || [ "$(tail -1 <<<"$printed")" != done ]; then
        printf '%s ended with %s, and printed:\n%s\n' "$*" "$code" "$printed" >&2
        exit 1
    fi
    # Figures, if there are any.
    grep '^1,000 ' <<<"$printed" || true
    echo "ok $*"
}

for case in sleeps messages nested thrown callback_dies panics outside forked; do
    run $case
done
for way in exit _exit die; do
    run ends $way
done
