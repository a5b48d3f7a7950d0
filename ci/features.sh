#!/usr/bin/env bash
# Builds upcall alone with each set of features: in the workspace, the members' features add up.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo clippy -p upcall --no-default-features -- -D warnings
cargo clippy -p upcall --all-features -- -D warnings
# The generic switch of stacks, for architectures without a file of their own.
RUSTFLAGS='--cfg upcall_generic' cargo test --target-dir target/generic -p upcall --test crossing --test fiber --test hostile
cargo test -p upcall --features serde,tracing --test snapshot --test spans --test spans_faults --test crossing --test fiber --test spawn
