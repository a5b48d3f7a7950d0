#!/usr/bin/env bash
# Host programs under Valgrind's memcheck. upcall tells it of its stacks and of the stacks
# registered by hosts. It reports nothing, except for an error made on purpose. The build is
# optimised, to save time.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v valgrind >/dev/null || { echo "SKIPPED: valgrind is not installed"; exit 0; }
cases='stack_switch:above_and_below stack_switch:first_on_coroutine stack_switch:registered nested:plain_calls
    nested:ten_thousand_levels panic:one_frame panic:several_frames panic:above_and_below waits:panics waits:on_registered_stacks
    drops:aborted drops:ended_in_a_wait backtrace:below_fiber caught:in_both caught:by_others caught:by_fibers caught:cancelled
    suspended:messages suspended:registered suspended:fibers
    suspended_ends:killed_under_rust suspended_ends:ends_before_its_wake suspended_ends:panics_after_waits
    suspended_ends:scopes suspended_ends:uninstalled'
programs=$(tr -s ' ' '\n' <<<"$cases" | sed -n 's/:.*//p' | sort -u)
# The tests build the programs.
# shellcheck disable=SC2086
cargo test --quiet --release -p hosts --test caught --test hosts --test misbehaving --test tools -- ${cases//:/::} >/dev/null
built=target/release/deps/c-hosts
# The settings of the tests (hosts/tests/program).
export UPCALL_MIN_STACK=131072 UPCALL_TOKIO_RUNTIME=none
# Valgrind tells unregistered stacks of hosts from deep frames by their distance.
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
