#!/usr/bin/env bash
# Unoptimised builds of upcall, as its users have them. A setting in the workspace's Cargo.toml
# optimises upcall, to make the host programs quick; here, the setting is off. The lane paints a
# stack to measure how much of the caller's stack an upcall uses.
set -euo pipefail
cd "$(dirname "$0")/.."
HOST_ALL_UNOPTIMISED=1 cargo test -p hosts --test hosts --target-dir "${CARGO_TARGET_DIR:-target}/unoptimised" \
    --config 'profile.dev.package.stackbounds.opt-level=0' --config 'profile.dev.package.upcall.opt-level=0' \
    -- deep_stack::takes
