/* What host.h needs of a POSIX system: events as descriptors, coroutines on ucontext. */
#ifndef HOST_POSIX_H
#define HOST_POSIX_H

#include <alloca.h>
#include <dirent.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

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

/* Returns the resident memory of the process in KiB, or 0 under an emulator. */
static inline long resident_kib(void) {
    long size, pages;
    if (is_emulated())
        return 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    CHECK(statm && fscanf(statm, "%ld %ld", &size, &pages) == 2);
    fclose(statm);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* Returns the number of open descriptors. */
static inline int open_descriptors(void) {
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
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

/* Calls `end` after some seconds, on any thread. A later call replaces this one. */
static void (*end_by_alarm)(void);
static inline void on_alarm(int signal) {
    (void)signal;
    end_by_alarm();
}
static inline void end_after(unsigned seconds, void (*end)(void)) {
    end_by_alarm = end;
    CHECK(signal(SIGALRM, on_alarm) != SIG_ERR);
    alarm(seconds);
}

/* Names the calling thread. */
static inline void name_thread(const char *name) { CHECK(pthread_setname_np(pthread_self(), name) == 0); }

/* Returns the number of the calling thread in messages. */
static inline size_t thread_number(void) { return (size_t)pthread_self(); }

/* Returns whether a thread destroys its thread-locals before the values of its keys, and the main
 * thread when the process exits. Otherwise, the thread-locals of Rust have a key. */
static inline int locals_go_first(void) {
#ifdef __GLIBC__
    return 1;
#else
    return 0;
#endif
}

/* Returns the low end of the calling thread's own stack. */
static inline uintptr_t low_end(void) {
    pthread_attr_t attr;
    void *low;
    size_t size;
    CHECK(pthread_getattr_np(pthread_self(), &attr) == 0);
    CHECK(pthread_attr_getstack(&attr, &low, &size) == 0);
    pthread_attr_destroy(&attr);
    return (uintptr_t)low;
}

/* ---- events: descriptors, readable while there is something to do ---- */

typedef int event;
#define NO_EVENT (-1)
#define EVENT "fd" /* the end of the names of functions that return one */
#define EVENT_OF(name) name##_fd
#define local_event EVENT_OF(upcall_local)
#define task_event EVENT_OF(upcall_task)
#define coroutines_event EVENT_OF(upcall_coroutines)

/* Waits for an event, for ever if `milliseconds` is negative. Returns whether there is one. */
static inline int is_signalled(event fd, int milliseconds) {
    struct pollfd polled = {fd, POLLIN, 0};
    int ready = poll(&polled, 1, milliseconds);
    CHECK(ready == 0 || (ready == 1 && polled.revents == POLLIN));
    return ready;
}

static inline int is_either_signalled(const event fds[2], int milliseconds) {
    struct pollfd polled[] = {{fds[0], POLLIN, 0}, {fds[1], POLLIN, 0}};
    return poll(polled, 2, milliseconds) > 0;
}

/* ---- memory for stacks ---- */

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

#endif
