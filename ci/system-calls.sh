#!/usr/bin/env bash
# 1,000,000 upcalls on the main thread make as many system calls as 1,000, counted by strace. The
# tests prove this without strace, too, under strict seccomp.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v strace >/dev/null || { echo "SKIPPED: strace is not installed"; exit 0; }
cargo test --quiet --release -p hosts repeat_on_main::own_stack >/dev/null
# Turns address space randomisation off, if possible: the places of mappings decide how many reads
# glibc needs for /proc/self/maps. If it stays on, the least of a few runs may differ by one.
fixed=() differ=1
setarch -R true 2>/dev/null && fixed=(setarch -R) differ=0
count() {
    for _ in 1 2 3 4 5; do
        HOST_CALLS=$1 "${fixed[@]}" strace -f -c -o target/strace.out "target/release/deps/c-hosts/repeat_on_main-$2" count
        awk '$NF == "total" { print $4 }' target/strace.out
    done | sort -n | head -n 1
}
for link in Static Shared; do
    few=$(count 1000 $link) many=$(count 1000000 $link)
    echo "$link: $few system calls in a process of 1,000 upcalls, $many in one of 1,000,000"
    [ -n "$few" ] && [ "$many" -le $((few + differ)) ]
done
