/* Upcalls from signal handlers are served if they need no allocation, refused otherwise, and never
 * deadlock. */
#include "host.h"

#include <sys/time.h>

/* ---- actions of the handlers ---- */

static volatile int handled, served, refused, served_downcalls;
static int nested_signal;

static int returns_7(void *unused) {
    (void)unused;
    return 7;
}

static void count(int answer, int right) {
    CHECK(answer == right || answer == -1);
    if (answer == right)
        served++;
    else
        refused++;
}

static void handle(int signal) {
    handled++;
    count(guest_increment(41), 42);
    int answer = guest_call(returns_7, NULL);
    count(answer, 7);
    served_downcalls += answer == 7;
    count(guest_call_caller(returns_7, NULL), 7);
    if (signal != SIGUSR1 && nested_signal)
        raise(SIGUSR1);
}

static void on_signal(int signal, int flags) {
    struct sigaction action = {.sa_handler = handle, .sa_flags = flags | SA_RESTART};
    CHECK(sigaction(signal, &action, NULL) == 0);
}

static void alternate_stack(void) {
    enum { SIZE = 64 << 10 };
    stack_t stack = {.ss_sp = malloc(SIZE), .ss_size = SIZE};
    CHECK(stack.ss_sp && sigaltstack(&stack, NULL) == 0);
}

static void every(int microseconds) {
    struct itimerval timer = {{0, microseconds}, {0, microseconds}};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
}

/* ---- interrupted code ---- */

static int allocates(void *unused) {
    (void)unused;
    for (volatile int i = 0; i < 20; i++)
        free(malloc(100 + i * 1000));
    return 7;
}

static void in_coroutine(struct coroutine *c, void *unused) {
    (void)unused;
    for (int i = 0; i < 2; i++) {
        CHECK(guest_call(allocates, NULL) == 7);
        coroutine_yield(c);
        CHECK(guest_increment(i) == i + 1);
    }
}

static void *calls_on_thread(void *unused) {
    CHECK(guest_call_pooled(returns_7, NULL) == 7);
    return unused;
}

/* The signals are for the main thread: the other thread has no reserve. */
static void on_other_thread(void) {
    sigset_t alarms;
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    CHECK(pthread_sigmask(SIG_BLOCK, &alarms, NULL) == 0);
    on_thread(NULL, 64 << 10, calls_on_thread, NULL);
    CHECK(pthread_sigmask(SIG_UNBLOCK, &alarms, NULL) == 0);
}

/* Uses all parts of the library that have a lock, or a list to take from and give back to. */
static void work(int rounds) {
    struct memory stack = memory_new(MALLOCED, 64 << 10);
    for (int i = 0; i < rounds; i++) {
        struct coroutine c[3];
        allocates(NULL);
        for (int j = 0; j < 100; j++)
            CHECK(guest_increment(j) == j + 1 && guest_call(returns_7, NULL) == 7);
        CHECK(guest_call_pooled(allocates, NULL) == 7);
        CHECK(guest_use_sized_stack(1 << 20, 1000) == 0);
        CHECK(guest_with_stack(300 << 10, returns_7, NULL) == 7);
        void *registration = guest_register(stack.base, stack.size);
        struct memory others[3];
        for (int j = 0; j < 3; j++) {
            others[j] = memory_new(MALLOCED, 64 << 10);
            coroutine_init(&c[j], others[j].base, others[j].size, in_coroutine, NULL);
            coroutine_resume(&c[j]);
        }
        for (int j = 0; j < 3; j++) {
            coroutine_resume(&c[j]);
            coroutine_resume(&c[j]);
            memory_free(others[j]);
        }
        guest_unregister(registration);
        CHECK(guest_attached_threads() >= 1);
        if (i % 10 == 0)
            on_other_thread();
    }
    memory_free(stack);
}

static void storm(void) {
    if (no_query())
        return; /* the bounds of the alternate stack are unknown, too */
    every(1000);
    for (int i = 0; handled < 500; i++) {
        CHECK(i < 100000);
        work(2);
    }
    every(0);
    CHECK(guest_increment(1) == 2);
    printf("%d signals: %d upcalls served, %d refused\n", handled, served, refused);
}

/* ---- cases ---- */

static void on_alternate_stack(void) {
    alternate_stack();
    CHECK(upcall_thread_attach() == 0);
    on_signal(SIGALRM, SA_ONSTACK);
    storm();
    CHECK(no_query() || (served_downcalls > 0 && served > refused));
}

static void nested(void) {
    nested_signal = 1;
    on_signal(SIGUSR1, SA_ONSTACK | SA_NODEFER);
    on_alternate_stack();
}

static void on_own_stack(void) {
    CHECK(upcall_thread_attach() == 0);
    on_signal(SIGALRM, 0);
    storm();
    CHECK(refused == 0);
}

/* On an attached thread, idle or in C, all upcalls are served. */
static int raises(void *unused) {
    (void)unused;
    raise(SIGUSR1);
    return 7;
}

static void idle_and_in_c(void) {
    alternate_stack();
    CHECK(upcall_thread_attach() == 0);
    on_signal(SIGUSR1, SA_ONSTACK);
    for (int i = 0; i < 1000; i++) {
        raise(SIGUSR1);
        CHECK(guest_call(raises, NULL) == 7);
    }
    CHECK(handled == 2000 && served == 3 * 2000 && refused == 0);
}

/* On a thread that has never called Rust, all upcalls are refused, whatever the handler interrupts.
 * Upcalls insisting on the caller's stack are served only once the thread is attached. */
static void new_thread(void) {
    if (no_query())
        return;
    alternate_stack();
    on_signal(SIGALRM, SA_ONSTACK);
    every(1000);
    while (handled < 500)
        allocates(NULL);
    every(0);
    CHECK(served == 0 && refused == 3 * handled);
    CHECK(guest_increment(1) == 2);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"on_alternate_stack", on_alternate_stack},
        {"nested", nested},
        {"on_own_stack", on_own_stack},
        {"idle_and_in_c", idle_and_in_c},
        {"new_thread", new_thread},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
