/* System functions fail: for each scenario and each function, the n-th call, either once or from
 * then on, for every n.
 *
 * Each run is a process of its own. Every operation gives the right value, or an error with a
 * message, and works again after the fault. The scenario with everything takes every fourth n. */
#include "host.h"

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

/* ---- the calls that can fail ---- */

#define KINDS(KIND)                                                                                          \
    KIND(mmap) KIND(mprotect) KIND(madvise) KIND(pthread_create) KIND(eventfd) KIND(pthread_key_create)      \
    KIND(pthread_setspecific) KIND(sigaltstack) KIND(pthread_getattr_np)

#define NUMBER(name) OF_##name,
enum { KINDS(NUMBER) COUNT };
#define NAME(name) #name,
static const char *const names[] = {KINDS(NAME)};

static _Atomic int armed, failing_kind = -1, fails_at, for_ever;
/* The calls of each kind while armed, and the number of failures. */
static _Atomic int calls[COUNT], failures;

/* Counts a call, and returns whether it is to fail. */
static int fails(int kind) {
    if (!armed)
        return 0;
    int n = ++calls[kind];
    int fail = kind == failing_kind && (n == fails_at || (for_ever && n > fails_at));
    failures += fail;
    return fail;
}

static void *real[COUNT];

static void *real_of(int kind) {
    if (!real[kind])
        real[kind] = dlsym(RTLD_NEXT, names[kind]);
    return real[kind];
}

#define REAL(name) ((__typeof__(&name))real_of(OF_##name))

static int no_memory(void) {
    errno = ENOMEM;
    return -1;
}

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    return fails(OF_mmap) ? (no_memory(), MAP_FAILED) : REAL(mmap)(at, size, protection, flags, fd, offset);
}
void *mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    return mmap(at, size, protection, flags, fd, offset);
}
int mprotect(void *at, size_t size, int protection) {
    return fails(OF_mprotect) ? no_memory() : REAL(mprotect)(at, size, protection);
}
int madvise(void *at, size_t size, int advice) {
    return fails(OF_madvise) ? no_memory() : REAL(madvise)(at, size, advice);
}
int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*body)(void *), void *argument) {
    return fails(OF_pthread_create) ? EAGAIN : REAL(pthread_create)(thread, attr, body, argument);
}
int eventfd(unsigned count, int flags) {
    if (!fails(OF_eventfd))
        return REAL(eventfd)(count, flags);
    errno = EMFILE;
    return -1;
}
int pthread_key_create(pthread_key_t *key, void (*destructor)(void *)) {
    return fails(OF_pthread_key_create) ? EAGAIN : REAL(pthread_key_create)(key, destructor);
}
int pthread_setspecific(pthread_key_t key, const void *value) {
    return fails(OF_pthread_setspecific) ? ENOMEM : REAL(pthread_setspecific)(key, value);
}
int sigaltstack(const stack_t *new, stack_t *old) {
    return fails(OF_sigaltstack) ? no_memory() : REAL(sigaltstack)(new, old);
}
int pthread_getattr_np(pthread_t thread, pthread_attr_t *attr) {
    return fails(OF_pthread_getattr_np) ? ENOMEM : REAL(pthread_getattr_np)(thread, attr);
}

/* ---- the scenarios ---- */

/* Whether every operation has given its right value. */
static _Atomic int right;

/* Accepts the right value, or -1 with a message. */
static void gives(int value, int expected, const char *what) {
    char message[1024];
    if (value == expected)
        return;
    right = 0;
    if (value != -1 || upcall_last_message(message, sizeof message) <= 0) {
        fprintf(stderr, "%s gave %d, not %d, and no message\n", what, value, expected);
        fflush(NULL);
        _exit(1);
    }
}
#define GIVES(call, expected) gives(call, expected, #call)

static int seven(void *unused) {
    (void)unused;
    return 7;
}
static int calls_again(void *unused) {
    (void)unused;
    GIVES(guest_call(seven, NULL), 7);
    GIVES(guest_call_pooled(seven, NULL), 7);
    return 7;
}
static int sleeps(void *unused) {
    (void)unused;
    return guest_sleep(1);
}
static int yields(void *unused) {
    (void)unused;
    return guest_yield();
}

static void first_upcall(void) {
    GIVES(guest_increment(1), 2);
    GIVES(guest_call(calls_again, NULL), 7);
}
static void pooled(void) {
    for (int i = 0; i < 20; i++)
        GIVES(guest_call_pooled(calls_again, NULL), 7);
}
static void deep(void) {
    GIVES(guest_with_stack(3 << 20, seven, NULL), 7);
    GIVES(guest_use_sized_stack(5 << 20, 4 << 20), 0);
    GIVES(guest_call_on_fiber(1 << 20, seven, seven, NULL), 7);
}
static void on_coroutine_body(struct coroutine *c, void *unused) {
    (void)c;
    (void)unused;
    GIVES(guest_call(calls_again, NULL), 7);
}
static void on_coroutine(void) {
    static char stack[64 << 10];
    struct coroutine c;
    coroutine_init(&c, stack, sizeof stack, on_coroutine_body, NULL);
    coroutine_resume(&c);
    CHECK(c.done);
}
static void fibers(void) {
    for (int i = 0; i < 10; i++) {
        GIVES(guest_call_in_fiber(seven, NULL), 7);
        GIVES(guest_call_in_fiber(yields, NULL), 0);
    }
}
static void spawned(void) {
    guest_fiber *fibers[10];
    for (int i = 0; i < 10; i++)
        fibers[i] = i % 2 ? guest_spawn(seven, NULL) : guest_spawn_on_fiber("a fiber", calls_again, NULL);
    for (int i = 0; i < 10; i++)
        GIVES(guest_join(fibers[i]), 7);
    for (int i = 0; i < 4; i++)
        GIVES(guest_join(guest_spawn_on_fiber("sleeps", sleeps, NULL)), 0);
}
/* Blocks its worker while other fibers wait to begin. */
static int blocks(void *unused) {
    (void)unused;
    usleep(2000);
    return 7;
}
static void stuck(void) {
    guest_fiber *fibers[6];
    for (int i = 0; i < 6; i++)
        fibers[i] = guest_spawn(i < 4 ? blocks : seven, NULL);
    for (int i = 0; i < 6; i++)
        GIVES(guest_join(fibers[i]), 7);
}
static void blocking_calls(void) {
    for (int i = 0; i < 3; i++)
        GIVES(guest_blocking(seven, NULL), 7);
    GIVES(guest_blocking(calls_again, NULL), 7);
}
static void sleeping(void) {
    double before = milliseconds(CLOCK_MONOTONIC);
    int slept = guest_sleep(3);
    GIVES(slept, 0);
    CHECK(slept != 0 || milliseconds(CLOCK_MONOTONIC) - before >= 2.9);
}
static _Atomic int ran;
static void runs_local(void *unused) {
    (void)unused;
    GIVES(guest_yield(), 0);
    GIVES(guest_sleep(1), 0);
    ran++;
}
static void local_runtime(void) {
    int begun = upcall_local_begin();
    GIVES(begun, 0);
    if (begun != 0) {
        CHECK(upcall_local_fd() == -1 && upcall_local_run_ready(1) == -1 && upcall_local_end() == -1);
        return;
    }
    ran = 0;
    for (int i = 0; i < 3; i++)
        CHECK(upcall_local_spawn(runs_local, NULL) == 0);
    GIVES(guest_join(guest_spawn_local(seven, NULL)), 7);
    for (int i = 0; i < 100 && ran < 3; i++) {
        struct pollfd fd = {upcall_local_fd(), POLLIN, 0};
        CHECK(poll(&fd, 1, 2) >= 0 && upcall_local_run_ready(SIZE_MAX) >= 0);
    }
    /* If there was no stack for a fiber, it has not begun. */
    right &= ran == 3;
    CHECK(ran == 3 || failures);
    CHECK(upcall_local_end() == 0);
}
static int adds(const struct guest_closure *adder) { return adder->call(adder->data, 7); }
static void callbacks(void) {
    struct guest_closure adder = guest_adder();
    GIVES(adder.call(adder.data, 7), 7);
    adder.destroy(adder.data);
    GIVES(guest_lend(adds), 7);
    CHECK(guest_closures() == 0);
}
static void attaching(void) {
    GIVES(upcall_thread_attach(), 0);
    GIVES(guest_call(seven, NULL), 7);
    GIVES(upcall_thread_detach(), 0);
    GIVES(guest_call(seven, NULL), 7);
}
static void reporting(void) {
    GIVES(upcall_report_install(), 0);
    GIVES(guest_call_pooled(seven, NULL), 7);
}
static void *on_new_thread_body(void *unused) {
    first_upcall();
    pooled();
    fibers();
    local_runtime();
    attaching();
    return unused;
}
/* The host's own threads begin without faults. */
static void on_new_thread(void) {
    pthread_t thread;
    CHECK(REAL(pthread_create)(&thread, NULL, on_new_thread_body, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}
static void registered(void) {
    static char stack[256 << 10];
    struct coroutine c;
    GIVES(upcall_stack_register(stack, sizeof stack, "a stack"), 0);
    coroutine_init(&c, stack, sizeof stack, on_coroutine_body, NULL);
    coroutine_resume(&c);
    CHECK(c.done);
    GIVES(upcall_stack_unregister(stack), 0);
}
static void everything(void) {
    first_upcall();
    pooled();
    deep();
    on_coroutine();
    registered();
    fibers();
    spawned();
    stuck();
    blocking_calls();
    sleeping();
    local_runtime();
    callbacks();
    reporting();
    on_new_thread();
    attaching();
}

static void (*const scenarios[])(void) = {
    first_upcall, pooled,        deep,      on_coroutine, registered, fibers,        spawned,    stuck,
    blocking_calls, sleeping, local_runtime, callbacks, attaching,  reporting,  on_new_thread, everything,
};

/* ---- each failure ---- */

/* Runs in the child: the scenario with the fault, then without it.
 *
 * In the run without a fault, stores the number of calls of each kind in `counted`. */
static void child(void (*scenario)(void), int kind, int n, int lasts, int *counted) {
    alarm(30);
    failing_kind = kind;
    fails_at = n;
    for_ever = lasts;
    armed = 1;
    right = 1;
    /* Creates upcall's key first, before another thread creates those of the standard library. */
    if (kind == OF_pthread_key_create)
        first_upcall();
    scenario();
    if (counted)
        for (int k = 0; k < COUNT; k++)
            counted[k] = calls[k];
    CHECK(right || failures);
    armed = 0;
    /* The fault is over, and leaves no trace. */
    right = 1;
    scenario();
    CHECK(right);
    everything();
    CHECK(right);
    CHECK(guest_open_calls() == 0);
    CHECK(upcall_shutdown(10000) == 0);
}

static int in_child(void (*scenario)(void), int kind, int n, int lasts, int *counted) {
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        child(scenario, kind, n, lasts, counted);
        exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

/* Runs all failures of one scenario. */
static void all_of(int number) {
    int runs = 0, wrong = 0;
    int *counted = REAL(mmap)(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(counted != MAP_FAILED);
    CHECK(in_child(scenarios[number], -1, 0, 0, counted) == 0);
    for (int kind = 0; kind < COUNT; kind++) {
        for (int n = 1; n <= counted[kind]; n++) {
            for (int lasts = 0; lasts < 2; lasts++) {
                /* Only the first key is upcall's. Without its own keys, Rust's standard library
                 * aborts. */
                if (kind == OF_pthread_key_create && (n > 1 || lasts))
                    continue;
                if (scenarios[number] == everything && n % 4 != 1)
                    continue;
                int status = in_child(scenarios[number], kind, n, lasts, NULL);
                runs++;
                if (status != 0) {
                    wrong++;
                    fprintf(stderr, "scenario %d, %s fails %s call %d: status %#x\n", number, names[kind],
                            lasts ? "from" : "at", n, status);
                }
            }
        }
    }
    printf("%d failures, %d of them wrong\n", runs, wrong);
    CHECK(wrong == 0 && runs > 0);
}

#define SCENARIO(number)                                                                                     \
    static void scenario_##number(void) { all_of(number); }
SCENARIO(0) SCENARIO(1) SCENARIO(2) SCENARIO(3) SCENARIO(4) SCENARIO(5) SCENARIO(6) SCENARIO(7)
SCENARIO(8) SCENARIO(9) SCENARIO(10) SCENARIO(11) SCENARIO(12) SCENARIO(13) SCENARIO(14) SCENARIO(15)

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"first_upcall", scenario_0},
        {"pooled", scenario_1},
        {"deep", scenario_2},
        {"on_coroutine", scenario_3},
        {"registered", scenario_4},
        {"fibers", scenario_5},
        {"spawned", scenario_6},
        {"stuck", scenario_7},
        {"blocking_calls", scenario_8},
        {"sleeping", scenario_9},
        {"local_runtime", scenario_10},
        {"callbacks", scenario_11},
        {"attaching", scenario_12},
        {"reporting", scenario_13},
        {"on_new_thread", scenario_14},
        {"everything", scenario_15},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
