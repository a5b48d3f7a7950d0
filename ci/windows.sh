#!/usr/bin/env bash
# Windows on x86-64, in wine, on this machine's own processor: Rust tests of both crates and the
# host programs. With the argument `all`, every Rust test runs. wine is not Windows: for one, it
# commits whole stacks. On Windows itself, nobody has run them.
# The standard library is built here, since no package has it.
set -euo pipefail
cd "$(dirname "$0")/.."
. ci/foreign.sh
target=x86_64-pc-windows-gnullvm mingw=x86_64-w64-mingw32
for needed in /usr/bin/{cargo,rustc} file wine wineserver ld.lld-19 $mingw-g++ /usr/lib/rustlib/src/rust/library/Cargo.lock; do
    command -v "$needed" >/dev/null || [ -e "$needed" ] || { echo "SKIPPED: needs $needed, which ci/packages.sh installs"; exit 0; }
done
wine=$(wine --version 2>/dev/null | cut -d ' ' -f 1)
folder=target/windows tools=$PWD/target/windows/tools run=$PWD/target/windows/$wine
# A prefix whose making was interrupted is of no use.
[ -e "$run/is-made" ] || rm -rf "$run/prefix"
mkdir -p "$tools" "$run"/{prefix,libraries}
: >"$run/log-rust" >"$run/log-c"

# For this target, rustc expects clang, lld and LLVM's unwinder. mingw's gcc with lld and libgcc's
# unwinder serve as well: both unwinders read the system's unwind information. To link, gcc runs a
# program `collect2`, which would run GNU ld.
cat >"$tools/collect2" <<'END'
#!/bin/sh
for argument; do
    shift
    case $argument in -plugin | *liblto_plugin.so | -plugin-opt=* | -soname=*) ;; *) set -- "$@" "$argument" ;; esac
done
exec ld.lld-19 "$@"
END
cat >"$tools/mingw-gcc" <<END
#!/bin/sh
for argument; do
    shift
    case \$argument in --unwindlib=none | -nolibc) ;; *) set -- "\$@" "\$argument" ;; esac
done
exec $mingw-gcc-posix -B$tools/ "\$@"
END
printf '#!/bin/sh\nexec %s-g++-posix -B%s/ "$@"\n' $mingw "$tools" >"$tools/mingw-g++"
chmod +x "$tools"/{collect2,mingw-gcc,mingw-g++}
ln -sf "$($mingw-gcc-posix -print-file-name=libgcc_eh.a)" "$tools/libunwind.a"
export CARGO_TARGET_X86_64_PC_WINDOWS_GNULLVM_LINKER=$tools/mingw-gcc
export CARGO_TARGET_X86_64_PC_WINDOWS_GNULLVM_RUSTFLAGS="-L native=$tools"

# A program was seen to end with 1 and without a word, once in some thousand runs. All programs here
# say why they end with 1, so wine probably failed to start it. Such a program runs once more.
cat >"$tools/run" <<END
#!/bin/bash
said=\$(mktemp -d)
trap 'rm -r "\$said"' EXIT
for try in first second; do
    wine "\$@" >"\$said/out" 2>"\$said/err"
    status=\$?
    [ \$status = 1 ] && [ ! -s "\$said/out" ] && [ ! -s "\$said/err" ] || break
    echo "\$*" >>"$run/not-begun"
done
cat "\$said/out"
cat "\$said/err" >&2
exit \$status
END
chmod +x "$tools/run"
: >"$run/not-begun"
export CARGO_TARGET_X86_64_PC_WINDOWS_GNULLVM_RUNNER=$tools/run
there() {
    RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 /usr/bin/cargo "$1" --quiet -Zbuild-std=std,panic_unwind,test --target $target \
        --target-dir $folder "${@:2}"
}

# A Windows of this lane's own, without a display. It runs until the lane ends, so each program
# starts in a moment.
export WINEPREFIX=$run/prefix WINEDEBUG=-all WINEPATH=Z:${run//\//\\}\\libraries
unset DISPLAY WAYLAND_DISPLAY
wineserver -p
trap 'wineserver -k' EXIT
logged "$run/log-boot" wineboot --init
touch "$run/is-made"

# Rust's standard library gets random numbers from a function missing in wine before version 9.
cat >"$tools/has-random.c" <<'END'
#include <windows.h>
int main(void) {
    HMODULE library = LoadLibraryA("bcryptprimitives.dll");
    return !library || !GetProcAddress(library, "ProcessPrng");
}
END
cat >"$tools/random.c" <<'END'
#include <windows.h>
BOOLEAN NTAPI SystemFunction036(void *bytes, ULONG length);
__declspec(dllexport) BOOL WINAPI ProcessPrng(BYTE *bytes, SIZE_T length) {
    return SystemFunction036(bytes, (ULONG)length);
}
END
$mingw-gcc -o "$tools/has-random.exe" "$tools/has-random.c"
wine "$tools/has-random.exe" || $mingw-gcc -shared -o "$run/libraries/bcryptprimitives.dll" "$tools/random.c" -ladvapi32

if [ "${1-}" = all ]; then
    programs=(--tests) selection=
else
    programs=(--lib) selection='; other Rust tests run only with the argument all'
    for name in main_thread sleep threads windows crossing nested_panics spawn exceptions windows_fibers windows_stacks; do
        programs+=(--test $name)
    done
fi
logged "$run/log-rust" there test --no-fail-fast -p stackbounds -p upcall "${programs[@]}"

# No meaning on Windows: forks, signals, longjmp over Rust frames, limits, /proc, descriptors.
absent='forks:: fork_handlers:: signals:: go_signals:: stepped:: jumped:: preempted:: longjmp:: locked:: repeat_on_main::
    copied:: callbacks::forked callbacks::scope_with_jumps memory::forked started::forked detach::forked detach::left_by_longjmp
    detach::signal_handler detach::reports event_loop::told_late guard::overflow overflow_is_stopped remaining::repeated
    blocked::masks_and_names deep_stack::out_of_memory suspended::endless suspended_ends::signal_handlers
    suspended_ends::interrupted_anywhere suspended_ends::abandoned_calls suspended_ends::forked suspended_ends::exit_anywhere
    exits::exit_ exits::cancel_in exits::panic_left_late plugins::constructor_waits plugins::two_fork greenlets asyncio'
# The system chooses the places of fibers' stacks; a fault ends a process in another way; wine does
# not tell of memory, and makes threads slowly.
absent+=' above_and_below registered::ten_thousand deep_stack::takes callbacks::dereferenced guard::idle_stacks
    threads::hundred_thousand'
skipped=()
for name in $absent; do
    skipped+=(--skip "$name")
done
there build -p hosts --lib
hosts() {
    CC=$tools/mingw-gcc CXX=$tools/mingw-g++ TEST_RUNNER=$tools/run HOST_LIBRARIES=$PWD/$folder/$target/debug \
        logged "$run/log-c" cargo test --quiet --no-fail-fast --workspace "$@" "${skipped[@]}"
}
hosts --test hosts --test misbehaving --
hosts --test overflow -- registered::

program=$(find $folder/$target/debug/deps -name 'windows-*.exe' | head -n 1)
echo "not begun at first: $(wc -l <"$run/not-begun")"
report "$target, $wine" "$run" "$(file -b "$program" | cut -d, -f1), in $(wine --version)" "POSIX, which Windows lacks$selection"
