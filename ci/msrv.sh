#!/usr/bin/env bash
# Checks with the oldest promised compiler (rust-version in Cargo.toml), if Debian packages it.
set -euo pipefail
cd "$(dirname "$0")/.."
promised=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
case $(/usr/bin/rustc --version 2>/dev/null) in
"rustc $promised."*) ;;
*)
    echo "SKIPPED: /usr/bin/rustc is not Rust $promised (ci/packages.sh installs it on Debian 12)"
    exit 0
    ;;
esac
export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc
/usr/bin/cargo check --target-dir target/msrv -p stackbounds -p upcall-macros -p upcall --all-features
/usr/bin/cargo check --target-dir target/msrv -p upcall --no-default-features
/usr/bin/rustc --version
