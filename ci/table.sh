#!/usr/bin/env bash
# Prints docs/targets.md: the last run of each target's lane on this machine, from the rows left by
# the lanes.
set -euo pipefail
cd "$(dirname "$0")/.."
cat <<'END'
# Targets and tests

The tests that passed, of how many, as printed by `ci/table.sh` after `.ci/run` and the runs by hand
in [CONTRIBUTING.md](../CONTRIBUTING.md). Rust tests are those of stackbounds and upcall; on
x86_64-unknown-linux-gnu, those of the whole workspace. C programs are cases of `hosts/c`, linked to
the static library; on x86_64-unknown-linux-gnu, `.ci/run` links each to the shared one, too. Tests
left out of a run count as not passed.

| target | Rust tests | C programs | ran on | not run | date |
|---|---|---|---|---|---|
END
for row in target/lanes/*.md; do
    echo "$(cat "$row") $(date -r "$row" +%F) |"
done
