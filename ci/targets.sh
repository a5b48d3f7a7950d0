#!/usr/bin/env bash
# Type-checks for targets without a lane of their own, and no more: nothing is linked, nothing runs.
# Where Rust has no native thread-locals, upcall must refuse to compile, with a message. With the
# argument `all`, more targets are checked, and all features.
set -euo pipefail
cd "$(dirname "$0")/.."
# Debian's compiler comes with the sources of its standard library, so no target needs a package.
# Only an unstable option uses them.
for needed in /usr/bin/{cargo,rustc} /usr/lib/rustlib/src/rust/library/Cargo.lock; do
    [ -e "$needed" ] || { echo "SKIPPED: needs $needed, which ci/packages.sh installs"; exit 0; }
done
export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1

# This machine's target, described without native thread-locals.
no_locals=target/targets/no-thread-local.json
mkdir -p target/targets
"$RUSTC" -Zunstable-options --print target-spec-json --target x86_64-unknown-linux-gnu |
    sed '/^ *"has-thread-local": true/d' >$no_locals

accepted=(aarch64-apple-darwin x86_64-unknown-freebsd x86_64-unknown-netbsd x86_64-pc-windows-msvc)
without_locals=(aarch64-linux-android $no_locals)
others=() features=
if [ "${1-}" = all ]; then
    accepted+=(i686-unknown-linux-gnu riscv64gc-unknown-linux-gnu {x86_64,aarch64}-unknown-linux-musl)
    without_locals+=(aarch64-unknown-linux-ohos x86_64-unknown-openbsd x86_64-unknown-illumos x86_64-pc-windows-gnu)
    others+=({aarch64,i686}-pc-windows-msvc loongarch64-unknown-linux-gnu)
    features=--all-features
fi

# One run for all targets: their standard libraries are checked side by side.
check() {
    local packages=$1
    shift
    /usr/bin/cargo check --quiet -Zbuild-std=std,panic_unwind -Zbuild-std-features= --target-dir target/targets $packages "${@/#/--target=}"
}
refuses() {
    local said
    if said=$(check '-p upcall' "$1" 2>&1) || ! grep -q "error: $2" <<<"$said"; then
        echo "$1: upcall does not say \"$2\": $said"
        return 1
    fi
    echo "$1: stackbounds type-checked; upcall says \"$2\""
}
check '-p stackbounds' "${accepted[@]}" "${without_locals[@]}" "${others[@]}"
check "-p upcall $features" "${accepted[@]}"
printf '%s: stackbounds and upcall type-checked\n' "${accepted[@]}"
for target in "${without_locals[@]}"; do
    refuses "$target" 'upcall needs native thread-locals'
done
for target in "${others[@]}"; do
    case $target in
        *windows*) refuses "$target" 'upcall runs on Unix and on 64-bit Windows' ;;
        *) refuses "$target" 'upcall cannot read SP' ;;
    esac
done
echo "all by $("$RUSTC" --version)"
