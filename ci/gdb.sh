#!/usr/bin/env bash
# gdb walks from C code in the innermost of nested calls to C's main, through pooled stacks, fibers
# and the system stack. The tests show the same for std's backtraces.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v gdb >/dev/null || { echo "SKIPPED: gdb is not installed"; exit 0; }
HOST_LINKS=all cargo test --quiet -p hosts --test tools backtrace >/dev/null

# The arguments are the case, the number of stack switches in the walk, and the functions in their
# order. gdb takes the switches for those made by compilers (`__morestack`).
walk() {
    local case=$1 switches=$2 link frames
    shift 2
    for link in Static Shared; do
        frames=$(gdb -q -batch -nx -ex 'break innermost' -ex run -ex backtrace \
            --args "target/debug/deps/c-hosts/backtrace-$link" "$case" 2>&1 | grep '^#')
        local expected=''
        for name in "$@"; do expected+="$name \(.*"; done
        tr '\n' ' ' <<<"$frames" | grep -qE "^#0 +$expected" && [[ ${frames##*$'\n'} == *' main ('* ]] &&
            [ "$(grep -cE '__morestack \(' <<<"$frames")" = "$switches" ] ||
            { echo "$case ($link): gdb saw"; echo "$frames"; exit 1; }
        echo "gdb, $case ($link): $(wc -l <<<"$frames") frames and $switches switches of stacks from innermost to main"
    done
}
walk pooled 4 innermost guest_call_pooled middle guest_call_pooled pooled main
walk on_fiber 1 innermost run_fiber main
walk below_fiber 1 innermost guest_call leaves_fiber run_fiber main
dumped=$(gdb -q -batch -nx -ex 'break innermost' -ex run -ex 'call (int)upcall_dump(1)' \
    --args target/debug/deps/c-hosts/backtrace-Shared pooled 2>&1) || true
[ "$(grep -c 'C → Rust, guest::guest_call_pooled' <<<"$dumped")" = 2 ] && grep -q 'took this snapshot' <<<"$dumped" ||
    { echo "gdb called upcall_dump:"; echo "$dumped"; exit 1; }
echo "gdb, call (int)upcall_dump(1): the open calls, by their functions' names"
