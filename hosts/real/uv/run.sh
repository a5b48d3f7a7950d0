#!/usr/bin/env bash
# Builds the programs with the system's libuv, and runs their cases.
set -euo pipefail
cd "$(dirname "$0")"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/../../../target/hosts}"

if ! pkg-config --exists libuv; then
    echo "SKIPPED: libuv1-dev or pkg-config is not installed"
    exit 77
fi
cargo build --release --locked --quiet
program="$CARGO_TARGET_DIR/release/uv-host"
echo "version $("$program" version)"

for case in jobs wakes turns panics threads_exit; do
    timeout 60 "$program" "$case"
    echo "ok $case"
done

# The C program, with the guest library linked statically and shared.
cargo build --release --locked --quiet --manifest-path ../../Cargo.toml --lib
libraries=$CARGO_TARGET_DIR/release
build() { # LINK ARGUMENT…
    cc -std=gnu11 -O2 -g -Wall -Wextra -Werror -pthread -I../../../crates/upcall/include -o "$CARGO_TARGET_DIR/uv-local-fd-$1" \
        local_fd.c "${@:2}" $(pkg-config --cflags --libs libuv)
}
# The list of `rustc --print native-static-libs` for Linux.
build static "$libraries/libguest.a" -lgcc_s -lutil -lrt -lpthread -lm -ldl
build shared -L"$libraries" -lguest -Wl,-rpath,"$libraries"
for link in static shared; do
    for case in main_loop other_loop idle; do
        timeout 60 "$CARGO_TARGET_DIR/uv-local-fd-$link" "$case"
        echo "ok local_fd $case ($link)"
    done
done
