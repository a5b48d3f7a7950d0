#!/usr/bin/env bash
# Installs the packages of the lanes beyond `cargo test`, so CI skips none of them. On other
# machines this is optional: a lane without its tool prints SKIPPED.
set -euo pipefail
missing=() lean=()
for tool in gdb strace valgrind; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
# For ThreadSanitizer: a compiler with the sources of its standard library.
[ -x /usr/bin/rustc ] || missing+=(rustc-web)
[ -x /usr/bin/cargo ] || missing+=(cargo-web)
[ -e /usr/lib/rustlib/src/rust/library/Cargo.lock ] || missing+=(rust-web-src)
[ -e /usr/lib/llvm-19/lib/clang/19/lib/linux/libclang_rt.tsan-x86_64.a ] || missing+=(libclang-rt-19-dev)
# For aarch64, riscv64 and arm: C++ compilers, the C libraries, and emulators.
command -v aarch64-linux-gnu-g++ >/dev/null || missing+=(g++-aarch64-linux-gnu)
[ -e /usr/aarch64-linux-gnu/lib/libc.so.6 ] || missing+=(libc6-dev-arm64-cross)
command -v riscv64-linux-gnu-g++ >/dev/null || missing+=(g++-riscv64-linux-gnu)
[ -e /usr/riscv64-linux-gnu/lib/libc.so.6 ] || missing+=(libc6-dev-riscv64-cross)
command -v arm-linux-gnueabihf-g++ >/dev/null || missing+=(g++-arm-linux-gnueabihf)
[ -e /usr/arm-linux-gnueabihf/lib/libc.so.6 ] || missing+=(libc6-dev-armhf-cross)
command -v qemu-aarch64 >/dev/null || missing+=(qemu-user)
# For 32-bit x86: a C++ compiler, and the C and C++ libraries to run.
command -v i686-linux-gnu-g++ >/dev/null || missing+=(g++-i686-linux-gnu)
[ -e /usr/i686-linux-gnu/lib/libc.so ] || missing+=(libc6-dev-i386-cross)
[ -e /usr/lib32/libstdc++.so.6 ] || missing+=(lib32stdc++6)
# For musl: its compiler driver, and an unwinder that links with it; to say how programs are linked.
command -v file >/dev/null || missing+=(file)
command -v musl-gcc >/dev/null || missing+=(musl-tools)
[ -e /usr/lib/llvm-19/lib/libunwind.a ] || missing+=(libunwind-19-dev)
# For Windows: a C++ compiler, lld, and wine, without the other half of its packages.
command -v x86_64-w64-mingw32-g++ >/dev/null || missing+=(g++-mingw-w64-x86-64)
command -v ld.lld-19 >/dev/null || missing+=(lld-19)
command -v wine >/dev/null || lean+=(wine wine64)
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v c++ >/dev/null || missing+=(g++)
command -v clang++ >/dev/null || missing+=(clang)
command -v pkg-config >/dev/null || missing+=(pkg-config)
command -v make >/dev/null || missing+=(make)
{ python3 -c 'import greenlet' || /usr/bin/python3 -c 'import greenlet'; } 2>/dev/null || missing+=(python3-greenlet)
can_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null
}
# On a newly started machine, another apt may hold the lock for a while.
apt=(apt-get -y -o DPkg::Lock::Timeout=300)
install_all() {
    { [ ${#missing[@]} -eq 0 ] || "${apt[@]}" install "${missing[@]}"; } &&
        { [ ${#lean[@]} -eq 0 ] || "${apt[@]}" install --no-install-recommends "${lean[@]}"; }
}
if [ ${#missing[@]} -eq 0 ] && [ ${#lean[@]} -eq 0 ]; then
    echo "nothing to install"
elif can_install; then
    install_all || { "${apt[@]}" update && install_all; }
else
    echo "SKIPPED: not root, or no apt: install ${missing[*]} ${lean[*]} by hand for all lanes"
fi
if can_install; then
    ci/foreign-std.sh arm64 aarch64-unknown-linux-gnu || echo "SKIPPED: aarch64, whose standard library could not be had"
    ci/foreign-std.sh armhf armv7-unknown-linux-gnueabihf || echo "SKIPPED: armv7, whose standard library could not be had"
    ci/foreign-std.sh i386 i686-unknown-linux-gnu || echo "SKIPPED: i686, whose standard library could not be had"
fi
