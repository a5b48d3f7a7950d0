#!/usr/bin/env bash
# Builds the program of this folder against the guest library of hosts/, and runs its cases.
set -euo pipefail
cd "$(dirname "$0")"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/../../../target/hosts}" RUST_BACKTRACE=0
version=$(printf '#include <omp.h>\n_OPENMP\n' | cc -fopenmp -E -P - 2>/dev/null | tail -1) || {
    echo "SKIPPED: a C compiler with OpenMP is not installed (apt-get install $(paste -sd ' ' packages))"
    exit 77
}
echo "version OpenMP $version, gcc $(cc -dumpfullversion)"

cargo build --quiet --release --locked --manifest-path ../../Cargo.toml --lib
program=$CARGO_TARGET_DIR/openmp
# The list of `rustc --print native-static-libs` for Linux.
cc -std=gnu11 -O2 -g -Wall -Wextra -Werror -fopenmp -I../../../crates/upcall/include -o "$program" openmp.c \
    "$CARGO_TARGET_DIR/release/libguest.a" -lgcc_s -lutil -lrt -lpthread -lm -ldl

# passes CASE [VARIABLE=VALUE …]: runs a case, with variables.
passes() {
    local code=0
    said=$(timeout 20 env OMP_NUM_THREADS=4 "${@:2}" "$program" "$1" 2>&1) || code=$?
    if [ $code != 0 ]; then
        echo "$said" >&2
        echo "$* ended with $code" >&2
        exit 1
    fi
    echo "ok $*"
}

for case in loops barriers tasks nested on_worker waits panics exits; do
    passes $case
done
passes cancelled OMP_CANCELLATION=true
passes small_stacks OMP_STACKSIZE=64k
for variable in OMP_NUM_THREADS=64 OMP_DYNAMIC=true OMP_THREAD_LIMIT=3 OMP_STACKSIZE=64k OMP_WAIT_POLICY=passive; do
    passes loops $variable
    passes tasks $variable
done
