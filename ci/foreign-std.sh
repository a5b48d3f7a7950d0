#!/usr/bin/env bash
# Installs a foreign standard library for Debian's rustc, in the same version:
# ci/foreign-std.sh DEBIAN_ARCHITECTURE RUST_TARGET. No other package of a foreign architecture is
# needed, so the machine's own apt is told of none.
set -euo pipefail
there=/usr/lib/rustlib/$2
version=$(dpkg-query -W -f '${Version}' libstd-rust-web-dev)
[ "$(cat "$there/version" 2>/dev/null)" != "$version" ] || exit 0
private=$(mktemp -d)
trap 'rm -rf "$private"' EXIT
mkdir -p "$private/lists/partial" "$private/archives/partial"
cd "$private"
apt=(apt-get -q -o "APT::Architectures=$1" -o "APT::Architecture=$1" -o APT::Sandbox::User=root -o Acquire::Languages=none
    -o Dir::State::lists="$private/lists" -o Dir::Cache="$private")
# One list of several may be in the middle of an update; the download tells.
"${apt[@]}" update || true
"${apt[@]}" download "libstd-rust-web-dev:$1=$version"
rm -rf "$there"
dpkg-deb --fsys-tarfile libstd-rust-web-dev_*_"$1".deb | tar -x -C / ./usr/lib/rustlib
echo "$version" >"$there/version"
