#!/usr/bin/env bash
# Installs the aarch64 standard library for Debian's rustc, in the same version. No other package of
# a foreign architecture is needed, so the machine's own apt is told of none.
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
