/* Shared by all host programs: checks that name the failing line, coroutines, and a main that runs
 * a named case. */
#ifndef HOST_H
#define HOST_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);   \
            fflush(NULL);                                                             \
            _exit(1);                                                                 \
        }                                                                             \
    } while (0)

/* Returns whether the message of the thread's last panic or refusal contains `text`. */
static inline int last_panic_says(const char *text) {
    char message[1024];
    return upcall_last_message(message, sizeof message) > 0 && strstr(message, text);
}

/* Returns whether an emulator runs the program. Its own memory would count as the program's. */
static inline int is_emulated(void) { return getenv("TEST_RUNNER") != NULL; }

static inline double milliseconds(clockid_t clock) {
    struct timespec time;
    CHECK(clock_gettime(clock, &time) == 0);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

/* Memory for the stack of a coroutine. */
enum kind { MALLOCED, GUARDED };

struct memory {
    enum kind kind;
    char *base;
    size_t size;
};

#ifdef _WIN32
#include "host_windows.h"
#else
#include "host_posix.h"
#endif

/* Returns whether the library cannot query the system for stacks. Then all bounds are estimates. */
static inline int no_query(void) { return getenv("HOST_NO_QUERY") != NULL; }

/* Returns whether the address of a local is in the range. */
static inline int within(uintptr_t low, uintptr_t high, const void *local) {
    return low <= (uintptr_t)local && (uintptr_t)local < high;
}

/* Uses 116 KiB of the current stack, most of the room promised to an upcall. */
static inline int use_most(void *unused) {
    volatile char *used = (volatile char *)alloca(116 << 10);
    for (size_t i = 0; i < 116 << 10; i += 1024)
        used[i] = 0;
    (void)unused;
    return used[0];
}

/* Calls `then` with about `left` bytes remaining between SP and `low`, the low end of the stack. */
static __attribute__((noinline, unused)) void with_left(uintptr_t low, size_t left, void (*then)(void)) {
    size_t used = (uintptr_t)__builtin_frame_address(0) - low;
    CHECK(used > left + 512);
    volatile char *filler = (char *)alloca(used - left - 256);
    filler[0] = 1;
    then();
}

/* Returns whether the library is unoptimised. Its frames then need some KiB more. */
static inline int unoptimised(void) { return getenv("HOST_UNOPTIMISED") != NULL; }

/* ---- cases ---- */

struct named_case {
    const char *name;
    void (*run)(void);
};

static inline int run_case(const struct named_case *cases, int argc, char **argv) {
    for (const struct named_case *c = cases; argc == 2 && c->name; c++) {
        if (strcmp(c->name, argv[1]) == 0) {
            c->run();
            return 0;
        }
    }
    fprintf(stderr, "usage: %s CASE\n", argv[0]);
    return 2;
}

#endif
