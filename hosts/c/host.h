/* Shared by all host programs: checks that name the failing line, coroutines, and a main that runs
 * a named case. */
#ifndef HOST_H
#define HOST_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <alloca.h>
#include <dirent.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "guest.h"

/* On x86, the trap flag of the processor sends a SIGTRAP after each instruction. */
#if defined __x86_64__ || defined __i386__
#define HAS_TRAP_FLAG
enum { TRAP = 1 << 8 };
#ifdef __x86_64__
#define read_flags __builtin_ia32_readeflags_u64
#define write_flags __builtin_ia32_writeeflags_u64
#else
#define read_flags __builtin_ia32_readeflags_u32
#define write_flags __builtin_ia32_writeeflags_u32
#endif
#endif

/* AddressSanitizer, if active, is told of every switch, and that fresh stack memory holds no
 * variables. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define __sanitizer_start_switch_fiber(kept, low, size) (void)(kept)
#define __sanitizer_finish_switch_fiber(kept, low, size) (void)(kept)
#define ASAN_UNPOISON_MEMORY_REGION(low, size) (void)0
#endif

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);   \
            fflush(NULL);                                                             \
            _exit(1);                                                                 \
        }                                                                             \
    } while (0)

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

/* Returns the resident memory of the process in KiB, or 0 under an emulator, whose own memory would
 * count. */
static inline long resident_kib(void) {
    long size, pages;
    if (getenv("TEST_RUNNER"))
        return 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    CHECK(statm && fscanf(statm, "%ld %ld", &size, &pages) == 2);
    fclose(statm);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* Returns whether the message of the thread's last panic or refusal contains `text`. */
static inline int last_panic_says(const char *text) {
    char message[1024];
    return upcall_last_message(message, sizeof message) > 0 && strstr(message, text);
}

/* Returns the number of entries in a folder of /proc: threads, or descriptors. */
static inline int entries(const char *path) {
    int count = 0;
    DIR *folder = opendir(path);
    CHECK(folder);
    for (struct dirent *entry; (entry = readdir(folder));)
        count += entry->d_name[0] != '.';
    closedir(folder);
    return count;
}

/* Returns the number of threads with names beginning with `prefix`. */
static inline int threads_named(const char *prefix) {
    int count = 0;
    DIR *folder = opendir("/proc/self/task");
    CHECK(folder);
    for (struct dirent *entry; (entry = readdir(folder));) {
        char path[300], name[64] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
        FILE *comm = entry->d_name[0] == '.' ? NULL : fopen(path, "r");
        if (!comm)
            continue; /* not a thread, or gone */
        if (fgets(name, sizeof name, comm))
            count += strncmp(name, prefix, strlen(prefix)) == 0;
        fclose(comm);
    }
    closedir(folder);
    return count;
}

static inline double milliseconds(clockid_t clock) {
    struct timespec time;
    CHECK(clock_gettime(clock, &time) == 0);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

/* Returns whether a thread destroys its thread-locals before the values of its keys, and the main
 * thread when the process exits. Otherwise, the thread-locals of Rust have a key. */
static inline int locals_go_first(void) {
#ifdef __GLIBC__
    return 1;
#else
    return 0;
#endif
}

/* ---- memory for stacks ---- */

enum kind { MALLOCED, GUARDED };

struct memory {
    enum kind kind;
    char *base;
    size_t size;
};

/* Returns `size` bytes from malloc, or mapped above a PROT_NONE page. */
static inline struct memory memory_new(enum kind kind, size_t size) {
    struct memory m = {kind, NULL, size};
    if (kind == MALLOCED) {
        CHECK((m.base = (char *)malloc(size)) != NULL);
    } else {
        char *p = (char *)mmap(NULL, size + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(p != MAP_FAILED && mprotect(p, 4096, PROT_NONE) == 0);
        m.base = p + 4096;
    }
    ASAN_UNPOISON_MEMORY_REGION(m.base, size);
    return m;
}

static inline void memory_free(struct memory m) {
    if (m.kind == MALLOCED)
        free(m.base);
    else
        CHECK(munmap(m.base - 4096, m.size + 4096) == 0);
}

/* ---- coroutines on ucontext ---- */

struct coroutine {
    ucontext_t self, resumer;
    void (*body)(struct coroutine *, void *);
    void *argument;
    int done;
    /* For AddressSanitizer: its data about this coroutine, and the resumer's stack. */
    void *kept;
    const void *resumer_low;
    size_t resumer_size;
};

static inline void coroutine_start(unsigned high, unsigned low) {
    struct coroutine *c = (struct coroutine *)(uintptr_t)((uint64_t)high << 32 | low);
    __sanitizer_finish_switch_fiber(NULL, &c->resumer_low, &c->resumer_size);
    c->body(c, c->argument);
    c->done = 1;
    __sanitizer_start_switch_fiber(NULL, c->resumer_low, c->resumer_size);
    swapcontext(&c->self, &c->resumer);
}

static inline void coroutine_init(struct coroutine *c, char *stack, size_t size,
                                  void (*body)(struct coroutine *, void *), void *argument) {
    memset(c, 0, sizeof *c);
    CHECK(getcontext(&c->self) == 0);
    c->body = body;
    c->argument = argument;
    c->self.uc_stack.ss_sp = stack;
    c->self.uc_stack.ss_size = size;
    uint64_t p = (uintptr_t)c;
    makecontext(&c->self, (void (*)(void))coroutine_start, 2, (unsigned)(p >> 32), (unsigned)p);
}

static inline void coroutine_resume(struct coroutine *c) {
    void *kept = NULL;
    __sanitizer_start_switch_fiber(&kept, c->self.uc_stack.ss_sp, c->self.uc_stack.ss_size);
    CHECK(swapcontext(&c->resumer, &c->self) == 0);
    __sanitizer_finish_switch_fiber(kept, NULL, NULL);
}

static inline void coroutine_yield(struct coroutine *c) {
    __sanitizer_start_switch_fiber(&c->kept, c->resumer_low, c->resumer_size);
    CHECK(swapcontext(&c->self, &c->resumer) == 0);
    __sanitizer_finish_switch_fiber(c->kept, &c->resumer_low, &c->resumer_size);
}

/* ---- threads ---- */

/* Runs `body` on a new thread, and waits for it.
 *
 * The thread gets the given stack if `low` is not NULL. Otherwise it gets a stack of `size` bytes,
 * at least PTHREAD_STACK_MIN, or of 8 MiB if `size` is 0: glibc's default. musl's is 128 KiB. */
static inline void on_thread(char *low, size_t size, void *(*body)(void *), void *argument) {
    size_t least = PTHREAD_STACK_MIN;
    pthread_attr_t attr;
    pthread_t thread;
    CHECK(pthread_attr_init(&attr) == 0);
    if (low)
        CHECK(pthread_attr_setstack(&attr, low, size) == 0);
    else
        CHECK(pthread_attr_setstacksize(&attr, !size ? 8 << 20 : size < least ? least : size) == 0);
    CHECK(pthread_create(&thread, &attr, body, argument) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    pthread_attr_destroy(&attr);
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
