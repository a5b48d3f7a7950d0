#!/usr/bin/env bash
# ci/windows.sh, with the same arguments, in wine 10 instead of this machine's wine. By hand, as
# root. That wine comes from Debian 13, into target/wine10/root: nothing else of the machine
# changes. WINE10_ROOT names another folder for it.
set -euo pipefail
cd "$(dirname "$0")/.."
root=${WINE10_ROOT:-$PWD/target/wine10/root} tools=$PWD/target/wine10/bin
[ "$(id -u)" = 0 ] || { echo "SKIPPED: needs root, for a root folder of wine's own"; exit 0; }
for needed in debootstrap unshare; do
    command -v $needed >/dev/null || { echo "SKIPPED: needs $needed"; exit 0; }
done
if [ ! -e "$root/usr/bin/wine" ]; then
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
    debootstrap --variant=minbase --include=wine,wine64 trixie "$root" "$mirror"
fi
mkdir -p "$tools" "$root$PWD"
for program in wine wineboot wineserver; do
    printf '#!/bin/sh\nexec chroot "%s" env -C "$PWD" PATH=/usr/bin:/bin %s "$@"\n' "$root" $program >"$tools/$program"
    chmod +x "$tools/$program"
done
# The mounts are seen by these processes alone, and end with them.
export PATH=$tools:$PATH
exec unshare --mount sh -euc 'mount -t proc proc "$1/proc"; mount --bind "$PWD" "$1$PWD"; shift; exec ci/windows.sh "$@"' sh "$root" "$@"
