#!/usr/bin/env bash
# 1,000,000 upcalls on the main thread make as many system calls as 1,000, counted by strace. The
# tests prove this without strace, too, under strict seccomp.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v strace >/dev/null || { echo "SKIPPED: strace is not installed"; exit 0; }
HOST_LINKS=all cargo test --quiet --release -p hosts repeat_on_main::own_stack >/dev/null
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
    [ -n "$few" ]
    [ "$many" -le $((few + differ)) ]
done

# A thread's first upcall, and the thread's exit after it. A thread without upcalls makes 9.
cat >target/threads.c <<'END'
#include <pthread.h>
#include <stdlib.h>
#include "guest.h"
static void *calls(void *unused) {
    return guest_increment(41) == 42 ? unused : &calls;
}
int main(int argc, char **argv) {
    for (int i = argc > 1 ? atoi(argv[1]) : 0; i > 0; i--) {
        pthread_t thread;
        void *wrong;
        if (pthread_create(&thread, NULL, calls, NULL) != 0 || pthread_join(thread, &wrong) != 0 || wrong)
            return 1;
    }
    return 0;
}
END
cargo build --quiet --release -p hosts --lib
cc -O2 -I hosts/c -I crates/upcall/include -o target/threads target/threads.c target/release/libguest.a -lgcc_s -lutil -lrt -lpthread -lm -ldl
calls_of() {
    strace -f -c -o target/strace.out target/threads "$1" && awk '$NF == "total" { print $4 }' target/strace.out
}
few=$(calls_of 10)
many=$(calls_of 1010)
each=$(((many - few + 500) / 1000))
echo "$each system calls for a thread with one upcall, limit 19"
[ "$each" -gt 9 ]
[ "$each" -le 19 ]
