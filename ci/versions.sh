#!/usr/bin/env bash
# Two versions of upcall in one library, as two of its dependencies may bring them. They build, work
# side by side, also after link-time optimisation, and export nothing but the functions requested by
# the library. The second version is this tree with other numbers.
set -euo pipefail
tree=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset CARGO_TARGET_DIR

mkdir -p later/crates library/src
cp -r "$tree"/crates/{stackbounds,upcall,upcall-macros} later/crates
sed 's/^version = "0\.1\.0"/version = "0.2.0"/; s/, version = "\(=\?\)0\.1\.0"/, version = "\10.2.0"/; /^members/s/= .*/= ["crates\/*"]/; /^default-members/d' \
    "$tree/Cargo.toml" >later/Cargo.toml

cd library
cp "$tree/Cargo.lock" .
cat >Cargo.toml <<END
[package]
name = "both"
version = "0.1.0"
edition = "2024"

[lib]
crate-type = ["cdylib", "staticlib"]

[features]
names = []

[dependencies]
earlier = { package = "upcall", path = "$tree/crates/upcall" }
later = { package = "upcall", path = "$folder/later/crates/upcall" }

[profile.release]
opt-level = 1

[workspace]
END
cat >src/lib.rs <<'END'
use std::ffi::{c_int, c_void};
use std::time::Duration;

macro_rules! functions {
    ($upcall:ident: $call:ident $panics:ident $waits:ident) => {
        mod $upcall {
            use super::*;

            // SAFETY: no code on fibers uses a thread-local.
            const FIBERS: ::$upcall::Fibers = unsafe { ::$upcall::Fibers::promise() };
            #[cfg(feature = "names")]
            ::$upcall::c_api!($upcall, fibers = FIBERS);

            #[unsafe(no_mangle)]
            extern "C" fn $call(callback: extern "C" fn(*mut c_void) -> c_int, argument: *mut c_void) -> c_int {
                ::$upcall::enter(|| ::$upcall::downcall(|| callback(argument))).unwrap_or(-1)
            }

            #[unsafe(no_mangle)]
            extern "C" fn $panics() -> c_int {
                let panic = || std::panic::resume_unwind(Box::new(stringify!($panics).to_owned()));
                ::$upcall::enter(panic).unwrap_or(-1)
            }

            /// Fibers of workers, and one of this thread's.
            #[unsafe(no_mangle)]
            extern "C" fn $waits() -> c_int {
                let sleep = || ::$upcall::sleep(Duration::from_millis(1));
                ::$upcall::enter(|| {
                    let fibers: Vec<_> = (0..8).map(|_| FIBERS.spawn(sleep)).collect();
                    ::$upcall::wait(FIBERS.fiber(sleep));
                    fibers.into_iter().map(|fiber| fiber.join().is_ok() as c_int).sum()
                })
                .unwrap_or(-1)
            }
        }
    };
}

functions!(earlier: both_earlier_call both_earlier_panics both_earlier_waits);
functions!(later: both_later_call both_later_panics both_later_waits);
END
cat >main.c <<'END'
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#define UPCALL_PREFIX earlier_
#include "upcall.h"
#define UPCALL_PREFIX later_
#include "upcall.h"

#define CHECK(condition) \
    do { if (!(condition)) { fprintf(stderr, "line %d: %s\n", __LINE__, #condition); _exit(1); } } while (0)
#define DECLARE(version) \
    int both_##version##_call(int (*callback)(void *), void *argument); \
    int both_##version##_panics(void); int both_##version##_waits(void);
DECLARE(earlier) DECLARE(later)

static int says(int (*last_message)(char *, size_t), const char *text) {
    char message[200];
    return last_message(message, sizeof message) > 0 && strcmp(message, text) == 0;
}

static int nested(void *argument) {
    int *left = argument;
    if (*left == 0)
        return both_later_waits() == 8 && both_earlier_waits() == 8 ? 7 : -2;
    return (*left)-- % 2 ? both_earlier_call(nested, left) : both_later_call(nested, left);
}

static int later_panics(void *unused) { (void)unused; return both_later_panics(); }
static int earlier_panics(void *unused) { (void)unused; return both_earlier_panics(); }

static void calls(void) {
    int left = 40;
    CHECK(nested(&left) == 7);
}

static void *works(void *unused) {
    calls();
    CHECK(both_earlier_call(later_panics, NULL) == -1 && says(later_last_message, "both_later_panics"));
    CHECK(both_later_call(earlier_panics, NULL) == -1 && says(earlier_last_message, "both_earlier_panics"));
    return unused;
}

/* Nothing panics here: a wait of one version may run a fiber inside a downcall of the other, which encloses its panics then. */
static int ran;
static void on_fiber(void *unused) { (void)unused; calls(); ran++; }

int main(void) {
    pthread_t threads[8];
    int status;
    CHECK(strcmp(earlier_version(), "0.1.0") == 0 && strcmp(later_version(), "0.2.0") == 0);
    CHECK(earlier_report_install() == 0 && later_report_install() == 0);
    works(NULL);
    CHECK(earlier_local_begin() == 0 && later_local_begin() == 0);
    CHECK(earlier_local_spawn(on_fiber, NULL) == 0 && later_local_spawn(on_fiber, NULL) == 0);
    while (ran < 2)
        CHECK(earlier_local_run_ready(9) >= 0 && later_local_run_ready(9) >= 0);
    CHECK(later_local_end() == 0 && earlier_local_end() == 0);
    for (int i = 0; i < 8; i++)
        CHECK(pthread_create(&threads[i], NULL, works, NULL) == 0);
    for (int i = 0; i < 8; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        _exit(works(NULL) != NULL);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(earlier_shutdown(10000) == 0 && both_later_waits() == 8 && later_shutdown(10000) == 0);
    puts("works");
    return 0;
}
END

# The exported names: the library's own functions, and none of upcall's.
exported() {
    nm -D --defined-only target/release/libboth.so | awk '{ print $3 }' | sort
}
build() {
    cargo rustc --quiet --offline --release --lib "$@"
}
build
diff <(exported) <(printf 'both_%s\n' {earlier,later}_{call,panics,waits})

build --features names
if exported | grep -v '^both_\|^earlier_\|^later_'; then echo 'exported as well'; exit 1; fi
run() {
    printf 'two versions, %s: ' "$1"
    "$2"
}
compile() {
    cc -std=gnu11 -O1 -Wall -Wextra -Werror -I"$tree/crates/upcall/include" main.c "$@" -lgcc_s -lutil -lrt -lpthread -lm -ldl
}
compile -Ltarget/release -lboth -Wl,-rpath,"$PWD/target/release" -o shared
run shared ./shared
compile target/release/libboth.a -o static
run static ./static

export CARGO_PROFILE_RELEASE_LTO=fat
build --features names
if exported | grep -v '^both_\|^earlier_\|^later_'; then echo 'exported as well'; exit 1; fi
run 'optimised by the linker' ./shared
