#!/usr/bin/env bash
# Copies two binding crates from cargo's registry cache and puts the copies on upcall. Then runs the
# tests of one, and a program that nests both.
set -euo pipefail
cd "$(dirname "$0")"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/../../../target/hosts}"
mkdir -p "$CARGO_TARGET_DIR"
CARGO_TARGET_DIR=$(realpath "$CARGO_TARGET_DIR")
upcall=$(realpath ../../../crates/upcall)
work="$CARGO_TARGET_DIR/bindings"
# All features without need of bindgen or of other crates' types.
features=bundled,array,backup,blob,cache,collation,column_decltype,column_metadata,csvtab,extra_check,functions,hooks,limits,load_extension,pointer,serialize,series,trace,unlock_notify,vtab,window

if ! command -v perl >/dev/null; then
    echo "SKIPPED: perl is not installed"
    exit 77
fi
cargo fetch --quiet --locked --manifest-path sources/Cargo.toml
metadata=$(cargo metadata --format-version 1 --offline --locked --manifest-path sources/Cargo.toml)
folder_of() {
    perl -ne 'print $1 if m{"manifest_path":"([^"]*/\Q'"$1"'\E-[0-9.]+)/Cargo\.toml"}' <<<"$metadata"
}
rusqlite=$(folder_of rusqlite)
git2=$(folder_of git2)
echo "version $(basename "$rusqlite"), $(basename "$git2")"

# Copies crate `$1` from `$2` and edits the copy. `$3` and `$4` are the expected numbers of edits:
# of its functions called by C, and of its calls of C.
edit() {
    local edited
    cp -r "$2" "$work/new/$1"
    edited=$(perl edit.pl "$1" "$work/new/$1")
    UPCALL="$upcall" perl -0pi -e 's/^\[dependencies\.bitflags\]$/[dependencies.upcall]\npath = "$ENV{UPCALL}"\n\n$&/m or die "no place for the dependency"' \
        "$work/new/$1/Cargo.toml"
    echo "$edited"
    if [ "$edited" != "$1: $3 trampolines and $4 calls of C edited" ]; then
        echo "expected: $3 trampolines and $4 calls" >&2
        exit 1
    fi
}

rm -rf "$work/new"
mkdir -p "$work/new"
edit rusqlite "$rusqlite" 45 55
edit git2 "$git2" 39 407
cp -r nested Cargo.lock "$work/new/"
cp workspace.toml "$work/new/Cargo.toml"
UPCALL="$upcall" perl -pi -e 's/UPCALL/$ENV{UPCALL}/' "$work/new/nested/Cargo.toml"
# Unchanged crates are not compiled again.
if ! diff -rq "$work/new" "$work/workspace" >/dev/null 2>&1; then
    rm -rf "$work/workspace"
    mv "$work/new" "$work/workspace"
fi
manifest="$work/workspace/Cargo.toml"

# rusqlite's own tests: unit tests, test programs (one of them is not counted), and examples in its
# documentation.
if ! cargo test --locked --quiet --manifest-path "$manifest" -p rusqlite --no-default-features --features "$features" >"$work/tests.log" 2>&1; then
    tail -n 100 "$work/tests.log"
    exit 1
fi
passed=$(perl -ne '$n += $1 if /^test result: ok\. (\d+) passed; 0 failed/; END { print $n + 0 }' "$work/tests.log")
echo "rusqlite: $passed of its own tests passed"
expected=295
if [ "$passed" != "$expected" ]; then
    echo "expected: $expected tests" >&2
    exit 1
fi
echo "ok rusqlite's own tests"

# Both crates warn about deprecated functions of C.
if ! cargo build --locked --quiet --manifest-path "$manifest" -p nested >"$work/build.log" 2>&1; then
    tail -n 100 "$work/build.log"
    exit 1
fi
for case in alone sqlite_in_git git_in_sqlite three_deep elsewhere; do
    timeout 60 "$CARGO_TARGET_DIR/debug/nested" "$case"
    echo "ok $case"
done
