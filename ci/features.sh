#!/usr/bin/env bash
# upcall by itself with each set of features: in the workspace, members' features add up.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo clippy -p upcall --no-default-features -- -D warnings
cargo clippy -p upcall --all-features -- -D warnings
cargo test -p upcall --features serde,tracing --test snapshot --test spans --test crossing --test fiber --test spawn
