#!/usr/bin/env bash
# From nothing to a C program, following template/README.md. The template is copied into an empty
# folder outside the tree, built, installed, and linked by pkg-config, shared and static. Its
# dependency upcall is patched to this tree: upcall is not on crates.io yet, and the tree may be
# ahead of it.
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

began=$(date +%s%N)
cp -r "$tree/template" word-count
cd word-count
find . -type f -exec sed -i 's/{{project-name}}/word-count/g; s/{{crate_name}}/word_count/g' {} +
if grep -r '{{' .; then echo "a placeholder is left"; exit 1; fi
prefix=$folder/prefix
make --silent install PREFIX="$prefix" 2>&1 | tail -n 3
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
warnings='-std=c99 -Wall -Wextra -Wpedantic -Werror'
# shellcheck disable=SC2046,SC2086
cc $warnings examples/main.c $(pkg-config --cflags --libs word-count) -o shared
LD_LIBRARY_PATH=$prefix/lib ./shared README.md | tail -n 1
printf 'from an empty folder to a C program that runs: %d ms\n' $((($(date +%s%N) - began) / 1000000))

readelf -d shared | grep -q 'NEEDED.*libword_count.so.0'
# shellcheck disable=SC2046,SC2086
cc $warnings -Wl,--as-needed examples/main.c -l:libword_count.a $(pkg-config --cflags --libs --static word-count) -o static
if readelf -d static | grep libword_count; then echo "not linked statically"; exit 1; fi
./static README.md | tail -n 1

# rustc names the same libraries as the README, the pkg-config file and the test.
named=$(cargo rustc --quiet --release --lib --crate-type staticlib -- --print native-static-libs 2>&1 | sed -n 's/.*native-static-libs: //p')
echo "native-static-libs: $named"
test "$(sed -n 's/^Libs.private: //p' library.pc.in)" = "$named"
grep -qF -- "$named" README.md

# Only the library's own functions and upcall's are exported, all under the library's name, also
# after link-time optimisation. The library makes no fibers, so C runs none.
exported() {
    nm -D --defined-only "$1" | awk '{ print $3 }' | sort
}
declared() {
    {
        sed '/^ \*/d; /^\/\*/d' include/word_count.h | grep -o '[a-z_]\+(' | tr -d '('
        sed -n 's/.*UPCALL_NAME(\([a-z_]*\))(.*);/word_count_\1/p' include/word_count_upcall.h | grep -v '^word_count_\(local\|coroutines\)_'
    } | sort
}
diff <(exported "$prefix/lib/libword_count.so") <(declared)
CARGO_PROFILE_RELEASE_LTO=fat cargo rustc --quiet --release --lib --crate-type cdylib --crate-type staticlib
diff <(exported target/release/libword_count.so) <(declared)
# shellcheck disable=SC2046,SC2086
cc $warnings -Iinclude examples/main.c target/release/libword_count.a $named -o with-lto
./with-lto README.md | tail -n 1

cargo fmt --check
# Optimised, because most of it is already built so.
cargo clippy --quiet --release --all-targets -- -D warnings
cargo test --quiet --release
make --silent uninstall PREFIX="$prefix"
test -z "$(find "$prefix" -type f -o -type l)"
