#!/usr/bin/env bash
# A dry run of publishing: each package is packed, unpacked and built, in the order of their
# dependencies. Each must contain the licences and the README. cargo-deny, if installed, checks the
# dependencies.
set -euo pipefail
cd "$(dirname "$0")/.."
packages=(stackbounds upcall-macros upcall)
# A new folder each time: cargo keeps the sources of an unpublished version by the folder's name.
target=$(mktemp -d)
trap 'rm -rf "$target"' EXIT
cargo publish --dry-run --target-dir "$target" "${packages[@]/#/--package=}"
for package in "${packages[@]}"; do
    files=$(cargo package --list --package "$package")
    for file in LICENSE-APACHE LICENSE-MIT README.md; do
        grep -qx "$file" <<<"$files" || { echo "$package is packed without $file"; exit 1; }
    done
done
if command -v cargo-deny >/dev/null; then
    cargo deny --all-features check licenses bans sources
else
    echo "SKIPPED: licences and bans of dependencies: cargo-deny is not installed (cargo install cargo-deny)"
fi
