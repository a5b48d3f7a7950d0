#!/usr/bin/env bash
# From nothing to a C program, following template/README.md. The template is copied into an empty
# folder outside the tree, built, installed, and linked by pkg-config, shared and static. Its
# dependency upcall is patched to this tree: upcall is not on crates.io yet, and the tree may be
# ahead of it.
#
# For Windows, CARGO_BUILD_TARGET has its target, CC and CXX the compilers for it, and TEST_RUNNER
# runs programs: wine.
set -euo pipefail
tree=$(cd "$(dirname "$0")/.." && pwd)
command -v pkg-config >/dev/null || { echo "SKIPPED: pkg-config is not installed (ci/packages.sh does)"; exit 0; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir .cargo
cat > .cargo/config.toml <<END
[patch.crates-io]
upcall.path = "$tree/crates/upcall"
upcall-macros.path = "$tree/crates/upcall-macros"
stackbounds.path = "$tree/crates/stackbounds"
END
unset CARGO_TARGET_DIR
cc=${CC:-cc}
built=target/${CARGO_BUILD_TARGET:+$CARGO_BUILD_TARGET/}release
prefix=$folder/prefix

case ${CARGO_BUILD_TARGET-} in
*-windows-*)
    shared=word_count.dll loads=word_count.dll
    exported() {
        objdump -p "$1" | awk '/Ordinal.Name Pointer/ { names = 1; next } /^$/ { names = 0 } names { print $NF }' | sort
    }
    ;;
*)
    shared=libword_count.so loads=libword_count.so.0
    exported() {
        nm -D --defined-only "$1" | awk '{ print $3 }' | sort
    }
    ;;
esac
# The shared libraries that a program loads.
loaded() {
    objdump -p "$1" | sed -n 's/^ *NEEDED  *//p; s/.*DLL Name: //p'
}
run() {
    # shellcheck disable=SC2086
    LD_LIBRARY_PATH=$prefix/lib WINEPATH="Z:$prefix/bin;${WINEPATH-}" ${TEST_RUNNER-} "$@" | tr -d '\r' | tail -n 1
}

began=$(date +%s%N)
cp -r "$tree/template" word-count
cd word-count
find . -type f -exec sed -i 's/{{project-name}}/word-count/g; s/{{crate_name}}/word_count/g' {} +
if grep -r '{{' .; then echo "a placeholder is left"; exit 1; fi
make --silent install PREFIX="$prefix" 2>&1 | tail -n 3
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
warnings='-std=c99 -Wall -Wextra -Wpedantic -Werror'
# shellcheck disable=SC2046,SC2086
$cc $warnings examples/main.c $(pkg-config --cflags --libs word-count) -o shared.exe
run ./shared.exe README.md
printf 'from an empty folder to a C program that runs: %d ms\n' $((($(date +%s%N) - began) / 1000000))

loaded shared.exe | grep -qx "$loads"
# shellcheck disable=SC2046,SC2086
$cc $warnings -Wl,--as-needed examples/main.c -l:libword_count.a $(pkg-config --cflags --libs --static word-count) -o static.exe
if loaded static.exe | grep word_count; then echo "not linked statically"; exit 1; fi
run ./static.exe README.md

# rustc names the same libraries as the README, the pkg-config file and the test.
named=$(cargo rustc --quiet --release --lib --crate-type staticlib -- --print native-static-libs 2>&1 | sed -n 's/.*native-static-libs: //p')
echo "native-static-libs: $named"
test "$(sed -n 's/^Libs.private: //p' "$PKG_CONFIG_PATH/word-count.pc")" = "$named"
grep -qF -- "$named" README.md

# Only the library's own functions and upcall's are exported, all under the library's name, also
# after link-time optimisation. The library makes no fibers, so C runs none.
declared() {
    # shellcheck disable=SC2086
    echo '#include "word_count.h"' | $cc -E -xc -Iinclude - | grep -o 'word_count_[a-z_]\+(' | tr -d '(' | grep -v '^word_count_\(local\|coroutines\)_' | sort
}
diff <(exported "$built/$shared") <(declared)
if [ -n "${CARGO_BUILD_TARGET-}" ]; then
    # The test starts compilers, so it runs here.
    env -u CARGO_BUILD_TARGET TEST_LIBRARIES="$PWD/$built" cargo test --quiet --release
else
    # A standard library built from its source, as for Windows here, has no bitcode for this.
    CARGO_PROFILE_RELEASE_LTO=fat cargo rustc --quiet --release --lib --crate-type cdylib --crate-type staticlib
    diff <(exported "$built/$shared") <(declared)
    # shellcheck disable=SC2086
    $cc $warnings -Iinclude examples/main.c $built/libword_count.a $named -o with-lto.exe
    run ./with-lto.exe README.md
    cargo fmt --check
    # Optimised, because most of it is already built so.
    cargo clippy --quiet --release --all-targets -- -D warnings
    cargo test --quiet --release
fi
make --silent uninstall PREFIX="$prefix"
test -z "$(find "$prefix" -type f -o -type l)"
