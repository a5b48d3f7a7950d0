#!/usr/bin/env bash
# Host programs under Valgrind's memcheck, which is told of our stacks and of those that hosts register: no reports, but for the error
# that is made on purpose. The optimised build, for the sake of time.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v valgrind >/dev/null || { echo "SKIPPED: valgrind is not installed"; exit 0; }
cases='stack_switch:above_and_below stack_switch:first_on_coroutine stack_switch:registered nested:plain_calls
    nested:ten_thousand_levels panic:one_frame panic:several_frames panic:above_and_below waits:panics waits:on_registered_stacks
    drops:aborted drops:ended_in_a_wait backtrace:below_fiber'
programs=$(tr ' ' '\n' <<<"$cases" | sed -n 's/:.*//p' | sort -u)
# The tests build the programs.
# shellcheck disable=SC2086
cargo test --quiet --release -p hosts --test hosts --test tools -- ${cases//:/::} >/dev/null
built=target/release/deps/c-hosts
# Hosts' own stacks, if they are not registered, are told from deep frames by their distance.
memcheck() { timeout 100 valgrind --quiet --error-exitcode=9 --max-stackframe=65536 "$built/$1-Static" "$2"; }
for case in $cases; do
    memcheck "${case%:*}" "${case#*:}" >/dev/null
done
if found=$(memcheck backtrace uninitialised 2>&1); then
    echo "memcheck did not see the error made on purpose"
    exit 1
fi
grep -q 'depends on uninitialised' <<<"$found" || { echo "$found"; exit 1; }
echo "memcheck: $(wc -w <<<"$cases") cases of $(wc -w <<<"$programs") host programs without a report; a read of uninitialised memory on a pooled stack is reported"
