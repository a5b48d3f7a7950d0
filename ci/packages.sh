#!/usr/bin/env bash
# Installs what the lanes beyond `cargo test` need, so that in CI none is skipped. By hand it is not needed: a lane whose
# tool is missing says SKIPPED.
set -euo pipefail
missing=()
for tool in strace valgrind; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
[ -e /usr/include/uv.h ] || missing+=(libuv1-dev)
command -v cc >/dev/null || missing+=(gcc libc6-dev)
if [ ${#missing[@]} -eq 0 ]; then
    echo "nothing to install"
elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    # Another apt may hold the lock for a while on a machine that has just started.
    apt-get install -y -o DPkg::Lock::Timeout=300 "${missing[@]}" ||
        { apt-get update -o DPkg::Lock::Timeout=300 && apt-get install -y -o DPkg::Lock::Timeout=300 "${missing[@]}"; }
else
    echo "SKIPPED: not root, or no apt: install ${missing[*]} by hand for all lanes"
fi
