#!/usr/bin/env bash
# 1,000,000 upcalls on the main thread make as many system calls as 1,000, counted by strace. The tests prove the
# same without strace, under strict seccomp.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v strace >/dev/null || { echo "SKIPPED: strace is not installed"; exit 0; }
cargo test --quiet --release -p hosts repeat_on_main::own_stack >/dev/null
count() {
    HOST_CALLS=$1 strace -f -c -o target/strace.out "target/release/deps/c-hosts/repeat_on_main-$2" count
    awk '$NF == "total" { print $4 }' target/strace.out
}
for link in Static Shared; do
    few=$(count 1000 $link) many=$(count 1000000 $link)
    echo "$link: $few system calls in a process of 1,000 upcalls, $many in one of 1,000,000"
    [ -n "$few" ] && [ "$few" = "$many" ]
done
