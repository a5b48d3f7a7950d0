#!/usr/bin/env bash
# Prints a table of the last runs of all lanes of targets, from the rows that they left.
set -euo pipefail
cd "$(dirname "$0")/.."
echo '| target | Rust tests | C programs | ran on | skipped |'
echo '|---|---|---|---|---|'
cat target/lanes/*.md
