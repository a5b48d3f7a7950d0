# To be sourced by the lanes of all targets: what their runs say, and where they ran.

# Prints the tests of a log of `cargo test`: how many passed, of how many.
counts() {
    awk '/^test result: /{ passed += $4; others += $6 + $8 + $12 } END { printf "%d of %d", passed, passed + others }' "$1"
}

# Reports a lane's run, and keeps the row for ci/table.sh. Arguments: the target, the folder of the
# logs, where the tests ran, and why some were skipped.
report() {
    mkdir -p target/lanes
    echo "| $1 | $(counts "$2/log-rust") | $(counts "$2/log-c") | $3 | $4 |" | tee "target/lanes/${1//[^a-z0-9_-]/_}.md"
}

# Runs a command with its output in a log, shown if it fails.
logged() {
    local log=$1
    shift
    "$@" >>"$log" 2>&1 || { cat "$log"; return 1; }
}

# Shows the place of a lane's runs: links the same library in the same way, and runs the program.
# Arguments: the C compiler, a folder, and the folder of the library. TEST_RUNNER is the emulator.
place() {
    cat >"$2/place.c" <<'END'
#include <gnu/libc-version.h>
#include <stdio.h>
#include <sys/utsname.h>
#include "guest.h"
int main(void) {
    struct utsname system;
    return uname(&system) || guest_increment(41) != 42 ||
           printf("%s, pointers of %d bits, glibc %s", system.machine, (int)sizeof(void *) * 8, gnu_get_libc_version()) < 0;
}
END
    "$1" -I hosts/c -I crates/upcall/include -o "$2/place" "$2/place.c" "$3/libguest.a" -lgcc_s -lpthread -lm -ldl
    # Unquoted: the emulator has arguments, or there is none.
    ${TEST_RUNNER-} "$2/place"
}
