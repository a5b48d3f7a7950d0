#!/usr/bin/env bash
# Builds an extension of Ruby around the guest library of hosts/, and runs its cases.
set -euo pipefail
cd "$(dirname "$0")"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/../../../target/hosts}" RUST_BACKTRACE=0
# Debian's Ruby has the headers.
ruby=/usr/bin/ruby
setting() { $ruby -rrbconfig -e 'print RbConfig::CONFIG[ARGV[0]]' "$1"; }

if ! [ -x $ruby ] || ! [ -e "$(setting rubyhdrdir)/ruby.h" ]; then
    echo "SKIPPED: ruby or ruby-dev is not installed"
    exit 77
fi
echo "version $($ruby -e 'print RUBY_VERSION')"

cargo build --quiet --release --locked --manifest-path ../../Cargo.toml --lib
libraries=$CARGO_TARGET_DIR/release built=$CARGO_TARGET_DIR/ruby
mkdir -p "$built"
# Ruby's headers are no matter of ours: their warnings are off.
cc -std=gnu11 -O2 -g -fPIC -shared -Wall -Wextra -Werror -I../../c -I../../../crates/upcall/include \
    -isystem "$(setting rubyhdrdir)" -isystem "$(setting rubyarchhdrdir)" -o "$built/guest.so" guest.c \
    -L"$libraries" -lguest -Wl,-rpath,"$libraries"

run() { # CASE…
    local printed code=0
    printed=$(timeout 60 $ruby -W:no-experimental -I"$built" cases.rb "$@" 2>&1) || code=$?
    # The last line is the case's own.
    if [ "$code" != 0 ] || [ "$(tail -1 <<<"$printed")" != done ]; then
        printf '%s ended with %s, and printed:\n%s\n' "$*" "$code" "$printed" >&2
        exit 1
    fi
    # Figures, if there are any.
    grep '^1,000 ' <<<"$printed" || true
    echo "ok $*"
}

for kind in loop scheduler; do
    for case in sleeps messages other_threads nested resumed_inside raised raised_nested callback_leaves panics \
        outside collected forked; do
        run "$case" $kind
    done
    for way in exit raise exit! signal; do
        run ends $kind $way
    done
done
run enumerators loop
run scheduled scheduler
run thread_ends scheduler
