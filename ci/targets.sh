#!/usr/bin/env bash
# Type-checks for targets without a lane of their own, and no more: nothing is linked, nothing runs.
# Where Rust has no native thread-locals, upcall must refuse to compile, with a message. Some eight
# minutes in a fresh clone, so it runs by hand; README has the date.
set -euo pipefail
cd "$(dirname "$0")/.."
# Debian's compiler comes with the sources of its standard library, so no target needs a package.
# Only an unstable option uses them.
for needed in /usr/bin/{cargo,rustc} /usr/lib/rustlib/src/rust/library/Cargo.lock; do
    [ -e "$needed" ] || { echo "SKIPPED: needs $needed, which ci/packages.sh installs"; exit 0; }
done
export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
check() {
    /usr/bin/cargo check --quiet -Zbuild-std=std,panic_unwind -Zbuild-std-features= --target "$1" --target-dir target/targets "${@:2}"
}
refuses() {
    check "$1" -p stackbounds
    if said=$(check "$1" -p upcall 2>&1) || ! grep -q "error: $2" <<<"$said"; then
        echo "$1: upcall does not say \"$2\": $said"
        return 1
    fi
    echo "$1: stackbounds type-checked; \"$2\""
}
for target in i686-unknown-linux-gnu riscv64gc-unknown-linux-gnu x86_64-unknown-linux-musl aarch64-apple-darwin \
    x86_64-unknown-freebsd x86_64-unknown-netbsd; do
    check $target -p stackbounds -p upcall --all-features
    echo "$target: stackbounds and upcall type-checked"
done
for target in aarch64-linux-android aarch64-unknown-linux-ohos x86_64-unknown-openbsd x86_64-unknown-illumos; do
    refuses $target 'upcall needs native thread-locals'
done
refuses loongarch64-unknown-linux-gnu 'upcall cannot read SP'
refuses x86_64-pc-windows-msvc 'upcall runs on Unix so far'
echo "all by $("$RUSTC" --version)"
