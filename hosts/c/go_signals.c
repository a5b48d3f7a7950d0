/* Signals as in Go's tests of C programs: in callbacks, to profilers, to children, and to
 * interrupted calls.
 *
 * Each case runs on the main thread, on a C thread, in C called by a fiber, in C on a fiber's own
 * stack, and in a blocking call. */
#include "host.h"

#include <errno.h>
#include <execinfo.h>
#include <setjmp.h>
#include <spawn.h>
#include <sys/time.h>
#include <sys/wait.h>

extern char **environ;
static char own_path[PATH_MAX];

/* ---- places ---- */

enum place { MAIN, THREAD, COROUTINE, IN_FIBER, ON_FIBER, IN_BLOCKING, PLACES };

static enum place place;

static int called(void *body) {
    ((void (*)(void))body)();
    return 7;
}

static void *thread_body(void *body) {
    CHECK(guest_call(called, body) == 7);
    return NULL;
}

static void coroutine_body(struct coroutine *c, void *body) {
    (void)c;
    CHECK(guest_call(called, body) == 7);
}

static void on_own_coroutine(void (*body)(void)) {
    struct coroutine c;
    struct memory stack = memory_new(GUARDED, 256 << 10);
    coroutine_init(&c, stack.base, stack.size, coroutine_body, body);
    coroutine_resume(&c);
    CHECK(c.done);
    memory_free(stack);
}

/* Runs `body` in C called by Rust, at the given place. */
static void at(enum place where, void (*body)(void)) {
    place = where;
    switch (where) {
    case MAIN: CHECK(guest_call(called, body) == 7); break;
    case THREAD: on_thread(NULL, 0, thread_body, body); break;
    case COROUTINE: on_own_coroutine(body); break;
    case IN_FIBER: CHECK(guest_join(guest_spawn(called, body)) == 7); break;
    case ON_FIBER: CHECK(guest_join(guest_spawn_on_fiber("signals", called, body)) == 7); break;
    case IN_BLOCKING: CHECK(guest_blocking(called, body) == 7); break;
    default: abort();
    }
}

static void everywhere(void (*body)(void)) {
    for (enum place where = 0; where < PLACES; where++)
        at(where, body);
}

static int is_on_worker(void) { return place == IN_FIBER || place == ON_FIBER; }

/* ---- masks ---- */

static void block(int how, int signal) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    CHECK(pthread_sigmask(how, &set, NULL) == 0);
}

static int is_blocked(int signal) {
    sigset_t mask;
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &mask) == 0);
    return sigismember(&mask, signal);
}

static void check_mask(void) {
    CHECK(is_blocked(SIGTERM) && !is_blocked(SIGINT) && !is_blocked(SIGCHLD) && !is_blocked(SIGPROF));
}

static void *check_mask_of_thread(void *unused) {
    check_mask();
    return unused;
}

static void mask_and_threads(void) {
    check_mask();
    on_thread(NULL, 0, check_mask_of_thread, NULL);
}

/* A host that takes SIGTERM from a signalfd or in its own thread blocks it first of all. */
static void masks(void) {
    block(SIG_BLOCK, SIGTERM);
    everywhere(mask_and_threads);
}

static int blocks(void *unused) {
    (void)unused;
    CHECK(!is_blocked(SIGUSR1));
    block(SIG_BLOCK, SIGUSR1);
    return 7;
}

static int unblocks(void *unused) {
    (void)unused;
    CHECK(is_blocked(SIGUSR1));
    block(SIG_UNBLOCK, SIGUSR1);
    return 7;
}

/* A mask changed by a callback is the thread's, for later calls too. */
static void change_in_callback(void) {
    int (*ways[])(guest_callback, void *) = {guest_call, guest_call_pooled, guest_call_caller, guest_wait_call_wait};
    for (int i = 0; i < 4; i++) {
        CHECK(ways[i](blocks, NULL) == 7 && is_blocked(SIGUSR1));
        CHECK(ways[i](unblocks, NULL) == 7 && !is_blocked(SIGUSR1));
    }
}

static void mask_in_callbacks(void) { everywhere(change_in_callback); }

/* ---- raised ---- */

static _Atomic int handled, on_alternate;
static pthread_t handled_on;

static void handle(int signal) {
    stack_t stack;
    (void)signal;
    CHECK(sigaltstack(NULL, &stack) == 0);
    on_alternate += (stack.ss_flags & SS_ONSTACK) != 0;
    handled_on = pthread_self();
    handled++;
}

static void on_signal(int signal, void (*handler)(int), int flags) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    CHECK(sigaction(signal, &action, NULL) == 0);
}

static void raise_here(void) {
    int pipes[2], before = handled, alternate = on_alternate;
    CHECK(raise(SIGUSR1) == 0 && handled == before + 1 && pthread_equal(handled_on, pthread_self()));
    CHECK(on_alternate == alternate);
    CHECK(pipe(pipes) == 0 && close(pipes[0]) == 0);
    CHECK(write(pipes[1], "x", 1) == -1 && errno == EPIPE && handled == before + 2);
    CHECK(close(pipes[1]) == 0);
    /* A worker's fibers have small stacks. A handler with SA_ONSTACK finds an alternate stack. */
    CHECK(raise(SIGUSR2) == 0 && handled == before + 3);
    CHECK(on_alternate == alternate + is_on_worker());
}

static void raised(void) {
    on_signal(SIGUSR1, handle, 0);
    on_signal(SIGPIPE, handle, 0);
    on_signal(SIGUSR2, handle, SA_ONSTACK);
    everywhere(raise_here);
}

/* ---- children ---- */

/* Runs in a program executed by one of the cases. */
static void is_child(void) {
    for (int signal = 1; signal < 32; signal++)
        CHECK(!is_blocked(signal));
}

static void wait_for(pid_t child, int expected) {
    int status;
    CHECK(child > 0);
    while (waitpid(child, &status, 0) == -1)
        CHECK(errno == EINTR);
    CHECK(status == expected);
}

static void start_children(void) {
    char *arguments[] = {own_path, "is_child", NULL}, command[PATH_MAX + 32];
    pid_t child = fork();
    if (child == 0) {
        execv(own_path, arguments);
        _exit(1);
    }
    wait_for(child, 0);
    CHECK(posix_spawn(&child, own_path, NULL, NULL, arguments, environ) == 0);
    wait_for(child, 0);
    snprintf(command, sizeof command, "'%s' is_child", own_path);
    CHECK(system(command) == 0);
    /* A child told to terminate does so. */
    char *sleeps[] = {"sleep", "60", NULL};
    CHECK(posix_spawnp(&child, "sleep", NULL, NULL, sleeps, environ) == 0);
    CHECK(kill(child, SIGTERM) == 0);
    wait_for(child, SIGTERM);
}

static void children(void) {
    CHECK(realpath("/proc/self/exe", own_path));
    /* An emulator would have to be executed, too. */
    if (!getenv("TEST_RUNNER") || !*getenv("TEST_RUNNER"))
        everywhere(start_children);
}

/* ---- a profiler ---- */

static _Atomic int samples, in_burn, elsewhere;
static pthread_t burns_on;

__attribute__((noinline)) static void burn(void) {
    burns_on = pthread_self();
    samples = in_burn = 0;
    for (volatile int i = 0; samples < 20; i++)
        ;
}

static void sample(int signal) {
    void *frames[64];
    int saved = errno, count = backtrace(frames, 64);
    (void)signal;
    if (!pthread_equal(pthread_self(), burns_on))
        elsewhere++;
    for (int i = 0; i < count; i++) {
        uintptr_t into = (uintptr_t)frames[i] - (uintptr_t)burn;
        if (into < 512) {
            in_burn++;
            break;
        }
    }
    samples++;
    errno = saved;
}

static void burn_here(void) {
    burn();
    CHECK(in_burn >= 15);
}

static void profiler(void) {
    void *frames[8];
    struct itimerval every = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    backtrace(frames, 8); /* loads the unwinder */
    on_signal(SIGPROF, sample, SA_RESTART | SA_ONSTACK);
    CHECK(setitimer(ITIMER_PROF, &every, NULL) == 0);
    everywhere(burn_here);
    CHECK(setitimer(ITIMER_PROF, &never, NULL) == 0);
    printf("samples of other threads than the one that burns: %d\n", elsewhere);
}

/* ---- a storm of signals ---- */

static pthread_t target;
static _Atomic int storms, sent;

static void *storm(void *unused) {
    while (storms) {
        CHECK(pthread_kill(target, SIGUSR1) == 0);
        sent++;
        usleep(100);
    }
    return unused;
}

/* Runs `body` while the calling thread receives signals. */
static void in_storm(void (*body)(void)) {
    pthread_t thread;
    target = pthread_self();
    storms = 1;
    CHECK(pthread_create(&thread, NULL, storm, NULL) == 0);
    body();
    storms = 0;
    CHECK(pthread_join(thread, NULL) == 0);
}

static void wait_in_storm(void) {
    struct timespec began, ended;
    guest_channel *channel = guest_channel_new(1);
    CHECK(clock_gettime(CLOCK_MONOTONIC, &began) == 0 && guest_sleep(20) == 0);
    CHECK(clock_gettime(CLOCK_MONOTONIC, &ended) == 0);
    CHECK((ended.tv_sec - began.tv_sec) * 1000000000 + ended.tv_nsec - began.tv_nsec >= 20000000);
    for (int i = 0; i < 100; i++)
        CHECK(guest_send(channel, i) == 0 && guest_receive(channel) == i && guest_yield() == 0);
    guest_channel_free(channel);
    CHECK(guest_blocking(called, is_child) == 7);
    CHECK(guest_join(guest_spawn(called, is_child)) == 7);
}

static void wait_and_be_interrupted(void) {
    int before = handled;
    in_storm(wait_in_storm);
    CHECK(handled > before);
}

/* Without SA_RESTART, the library's system calls fail with EINTR. */
static void interrupted_calls(void) {
    on_signal(SIGUSR1, handle, 0);
    everywhere(wait_and_be_interrupted);
}

static _Atomic int served, refused;

static int returns_7(void *unused) {
    (void)unused;
    return 7;
}

static void make_upcalls(int signal) {
    int saved = errno, answers[] = {guest_increment(6), guest_call(returns_7, NULL), guest_call_caller(returns_7, NULL)};
    (void)signal;
    for (int i = 0; i < 3; i++) {
        CHECK(answers[i] == 7 || answers[i] == -1);
        served += answers[i] == 7;
        refused += answers[i] == -1;
    }
    errno = saved;
}

static void work(void) {
    for (int i = 0; i < 300; i++) {
        CHECK(guest_increment(i) == i + 1);
        CHECK(guest_call(returns_7, NULL) == 7 && guest_call_pooled(returns_7, NULL) == 7);
        CHECK(guest_join(guest_spawn(returns_7, NULL)) == 7);
        CHECK(guest_yield() == 0);
    }
}

static void attached_work(void) {
    CHECK(upcall_thread_attach() == 0);
    in_storm(work);
}

static void upcalls_in_handlers(void) {
    if (no_query())
        return;
    for (int flags = 0; flags <= SA_ONSTACK; flags += SA_ONSTACK) {
        served = refused = 0;
        on_signal(SIGUSR1, make_upcalls, SA_RESTART | flags);
        everywhere(attached_work);
        printf("%d upcalls served, %d refused\n", served, refused);
        CHECK(served > refused);
    }
}

/* Threads make their first upcalls and end while they receive signals. */
static void *first_upcalls(void *unused) {
    in_storm(work);
    return unused;
}

static void new_threads(void) {
    on_signal(SIGUSR1, handle, SA_ONSTACK);
    for (int i = 0; i < 20; i++)
        on_thread(NULL, 64 << 10, first_upcalls, NULL);
    CHECK(handled > 0);
}

/* ---- SIGPIPE ---- */

static void write_to_nobody(void) {
    CHECK(guest_write_to_nobody(true) == EPIPE);
    CHECK(guest_write_to_nobody(true) == EPIPE && !is_blocked(SIGPIPE));
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        guest_write_to_nobody(false);
        _exit(1);
    }
    wait_for(child, SIGPIPE);
}

/* SIGPIPE has its default action: it ends the process. */
static void broken_pipes(void) { everywhere(write_to_nobody); }

/* ---- faults ---- */

static sigjmp_buf recovered;
static volatile int faults;

static void recover(int signal) {
    (void)signal;
    faults++;
    siglongjmp(recovered, 1);
}

static void fault_here(void) {
    static char *volatile nowhere;
    int before = faults;
    if (sigsetjmp(recovered, 1) == 0)
        *nowhere = 1;
    CHECK(faults == before + 1 && !is_blocked(SIGSEGV));
}

/* The host's handler gets its turn after the library's. */
static void forwarded(void) {
    on_signal(SIGSEGV, recover, SA_ONSTACK);
    everywhere(fault_here);
    CHECK(upcall_report_install() == 0);
    everywhere(fault_here);
}

static void see_overflow(int signal) {
    static const char text[] = "the host's handler has seen the overflow\n";
    (void)signal;
    _exit(write(STDOUT_FILENO, text, sizeof text - 1) != sizeof text - 1);
}

__attribute__((noinline)) static int recurse(volatile char *outer) {
    volatile char frame[1024];
    frame[0] = *outer;
    return frame[0] ? recurse(frame) + frame[0] : 0;
}

static void recurse_here(void) {
    char first = 1;
    recurse(&first);
}

/* A crash reporter asks for an alternate stack, so it hears of a fiber's overflow. */
static void overflow_on_fiber(void) {
    on_signal(SIGSEGV, see_overflow, SA_ONSTACK);
    at(ON_FIBER, recurse_here);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"masks", masks},
        {"mask_in_callbacks", mask_in_callbacks},
        {"raised", raised},
        {"children", children},
        {"is_child", is_child},
        {"profiler", profiler},
        {"interrupted_calls", interrupted_calls},
        {"broken_pipes", broken_pipes},
        {"forwarded", forwarded},
        {"upcalls_in_handlers", upcalls_in_handlers},
        {"new_threads", new_threads},
        {"overflow_on_fiber", overflow_on_fiber},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
