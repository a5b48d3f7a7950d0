#!/usr/bin/env bash
# Builds main.c against the guest library of hosts/, and runs it. Two cores are enough, and should
# be idle otherwise.
set -euo pipefail
cd "$(dirname "$0")"
target=${CARGO_TARGET_DIR:-$PWD/../../target}
cargo build --quiet --release --locked --manifest-path ../../hosts/Cargo.toml --lib
# The list of `rustc --print native-static-libs` for Linux.
cc -std=gnu11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Werror -pthread -I../../hosts/c -I../../crates/upcall/include \
    -o "$target/release/bench-coroutines" main.c "$target/release/libguest.a" -lgcc_s -lutil -lrt -lpthread -lm -ldl
echo "$(uname -m), $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-), $(rustc --version), cc $(cc -dumpfullversion)"
exec "$target/release/bench-coroutines" "$@"
