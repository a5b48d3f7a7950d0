/* The cost of waits in coroutines of the host, with the scheduler of hosts/c/scheduler.h and the
 * guest library of hosts/. Prints medians, as ratios to a bare switch to a coroutine and back. */
#include <sched.h>

#include "scheduler.h"

enum { ROUNDS = 31 };
#define LEAST_MS 1.0

static long count;                  /* operations of the running measurement */
static double began, took;          /* milliseconds */
static guest_channel *there, *back; /* of one place each */

static void start(void) { began = milliseconds(CLOCK_MONOTONIC); }
static void stop(void) { took = milliseconds(CLOCK_MONOTONIC) - began; }

/* ---- the host alone ---- */

static void yields(struct coroutine *c, void *unused) {
    (void)unused;
    for (;;)
        coroutine_yield(c);
}

static void bare_switches(void) {
    static struct coroutine c;
    static char stack[64 << 10];
    if (!c.body)
        coroutine_init(&c, stack, sizeof stack, yields, NULL);
    start();
    for (long i = 0; i < count; i++)
        coroutine_resume(&c);
    stop();
}

/* Runs `body` on a coroutine of the scheduler, or two of them. */
static void on_coroutines(void (*body)(void *), void (*other)(void *)) {
    schedule(body, NULL);
    if (other)
        schedule(other, NULL);
    run_scheduler();
}

static void gives_way(void *unused) {
    (void)unused;
    start();
    for (long i = 0; i < count; i++)
        give_way();
    stop();
}

static void scheduled(void) { on_coroutines(gives_way, NULL); }

/* ---- without a suspension ---- */

static void increments(void *unused) {
    (void)unused;
    start();
    for (long i = 0; i < count; i++)
        CHECK(guest_increment(1) == 2);
    stop();
}

static void upcalls(void) { on_coroutines(increments, NULL); }

static void receives(void *numbers) {
    CHECK(guest_receive(numbers) == 1);
    start();
    for (long i = 1; i < count; i++)
        CHECK(guest_receive(numbers) == 1);
    stop();
}

static guest_channel *filled(void) {
    guest_channel *numbers = guest_channel_new((size_t)count);
    for (long i = 0; i < count; i++)
        CHECK(guest_send(numbers, 1) == 0);
    return numbers;
}

static void ready_waits(void) {
    guest_channel *numbers = filled();
    schedule(receives, numbers);
    run_scheduler();
    guest_channel_free(numbers);
}

static void ready_waits_on_own_stack(void) {
    guest_channel *numbers = filled();
    receives(numbers);
    guest_channel_free(numbers);
}

/* ---- messages there and back: each is a suspending wait, and a wait ready at once ---- */

static void ask(void) {
    CHECK(guest_send(there, 1) == 0);
    CHECK(guest_receive(back) == 1);
}

static void asks(void *unused) {
    (void)unused;
    ask(); /* the other one has begun */
    start();
    for (long i = 0; i < count; i += 2)
        ask();
    stop();
}

static void answers(void *unused) {
    (void)unused;
    for (long i = -2; i < count; i += 2) {
        CHECK(guest_receive(there) == 1);
        CHECK(guest_send(back, 1) == 0);
    }
}

static void on_own_thread(void) { on_coroutines(asks, answers); }

/* A loop that resumes each coroutine as it is named. While it does, the descriptor stays readable,
 * so wakes make no system calls. */
static void at_once(void) {
    schedule(answers, NULL), schedule(asks, NULL);
    while (run_once())
        for (void *ready; upcall_coroutines_next_ready(&ready) == 1;)
            run_scheduled(ready);
    CHECK(live == 0);
}

static int asks_on_fiber(void *unused) { return asks(unused), 0; }
static int answers_on_fiber(void *unused) { return answers(unused), 0; }

static void fibers_on_own_thread(void) {
    guest_fiber *answering = guest_spawn_local(answers_on_fiber, NULL);
    guest_fiber *asking = guest_spawn_local(asks_on_fiber, NULL);
    CHECK(guest_join(asking) == 0 && guest_join(answering) == 0);
}

/* ---- the same with another thread, on the other core ---- */

static int cores[2];

static void pin(int core) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    CHECK(sched_setaffinity(0, sizeof set, &set) == 0);
}

static void *answers_there(void *unused) {
    pin(cores[1]);
    answers(NULL);
    return unused;
}

static void with_thread(void (*run)(void)) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, answers_there, NULL) == 0);
    run();
    CHECK(pthread_join(thread, NULL) == 0);
}

static void ask_on_coroutine(void) { on_coroutines(asks, NULL); }
static void ask_on_fiber(void) { CHECK(guest_join(guest_spawn_local(asks_on_fiber, NULL)) == 0); }
static void ask_blocking(void) { asks(NULL); }

static void from_other_thread(void) { with_thread(ask_on_coroutine); }
static void fiber_from_other_thread(void) { with_thread(ask_on_fiber); }
static void blocking_from_other_thread(void) { with_thread(ask_blocking); }

/* ---- medians ---- */

static struct {
    const char *name;
    void (*run)(void);
    long count;
    double all[ROUNDS]; /* microseconds an operation */
} measured[] = {
    {"a bare switch there and back (swapcontext twice)", bare_switches, 0, {0}},
    {"the scheduler's own switch, through its queue and loop", scheduled, 0, {0}},
    {"an upcall without a wait", upcalls, 0, {0}},
    {"a wait ready at once, on a coroutine", ready_waits, 0, {0}},
    {"a wait ready at once, on the thread's own stack", ready_waits_on_own_stack, 0, {0}},
    {"a message on one thread: coroutines", on_own_thread, 0, {0}},
    {"a message on one thread: coroutines, each resumed as it is named", at_once, 0, {0}},
    {"a message on one thread: fibers of a LocalRuntime", fibers_on_own_thread, 0, {0}},
    {"a message between threads: a coroutine waits", from_other_thread, 0, {0}},
    {"a message between threads: a fiber of a LocalRuntime waits", fiber_from_other_thread, 0, {0}},
    {"a message between threads: the thread is blocked", blocking_from_other_thread, 0, {0}},
};
enum { MEASURED = sizeof measured / sizeof *measured };

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(int i) {
    qsort(measured[i].all, ROUNDS, sizeof *measured[i].all, ascending);
    return measured[i].all[ROUNDS / 2];
}

/* main [NUMBER COUNT]: all measurements, or a single one for a profiler. */
int main(int arguments, char **argument) {
    cpu_set_t set;
    CHECK(sched_getaffinity(0, sizeof set, &set) == 0);
    for (int core = 0, found = 0; core < CPU_SETSIZE && found < 2; core++)
        if (CPU_ISSET(core, &set))
            cores[found++] = core;
    pin(cores[0]);
    there = guest_channel_new(1), back = guest_channel_new(1);
    CHECK(upcall_local_begin() == 0 && install_scheduler(0) == 0);
    if (arguments == 3) {
        count = atol(argument[2]);
        measured[atoi(argument[1])].run();
        return 0;
    }
    for (int i = 0; i < MEASURED; i++) {
        for (count = 2, took = 0; took < LEAST_MS; count *= 2)
            measured[i].run();
        measured[i].count = count;
    }
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < MEASURED; i++) {
            count = measured[i].count;
            measured[i].run();
            measured[i].all[round] = 1000 * took / (double)count;
        }
    for (int i = 0; i < MEASURED; i++) {
        printf("%7.2f  %s\n", median(i) / median(0), measured[i].name);
    }
    return 0;
}
