#!/usr/bin/env bash
# Installs the standard library for aarch64 of Debian's rustc, of the same version: the one package of another architecture that is needed,
# so the machine's own apt is not told of any.
set -euo pipefail
there=/usr/lib/rustlib/aarch64-unknown-linux-gnu
version=$(dpkg-query -W -f '${Version}' libstd-rust-web-dev)
[ "$(cat $there/version 2>/dev/null)" != "$version" ] || exit 0
private=$(mktemp -d)
trap 'rm -rf "$private"' EXIT
mkdir -p "$private/lists/partial" "$private/archives/partial"
cd "$private"
apt=(apt-get -q -o APT::Architectures=arm64 -o APT::Sandbox::User=root -o Acquire::Languages=none
    -o Dir::State::lists="$private/lists" -o Dir::Cache="$private")
"${apt[@]}" update
"${apt[@]}" download "libstd-rust-web-dev:arm64=$version"
rm -rf $there
dpkg-deb --fsys-tarfile libstd-rust-web-dev_*_arm64.deb | tar -x -C / ./usr/lib/rustlib
echo "$version" >$there/version
