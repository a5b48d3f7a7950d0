/* Fibers stuck in blocking C calls do not hold back new fibers.
 *
 * Run with UPCALL_WORKERS=2. */
#include "host.h"

enum { WORKERS = 2 };

static int gate[2]; /* a pipe: each byte frees one stuck fiber */
static _Atomic int stuck;

static int read_gate(void *unused) {
    char byte;
    (void)unused;
    stuck++;
    CHECK(read(gate[0], &byte, 1) == 1);
    stuck--;
    return 1;
}

static void open_gate(int fibers) {
    for (int i = 0; i < fibers; i++)
        CHECK(write(gate[1], "x", 1) == 1);
}

static void wait_until_stuck(int fibers) {
    while (stuck < fibers)
        usleep(100);
}

static int begin_time(void *at) {
    *(_Atomic double *)at = milliseconds(CLOCK_MONOTONIC);
    return 2;
}

/* The body of a fiber: spawns another fiber on its own worker, then gets stuck. */
static int spawn_and_read(void *at) {
    guest_detach(guest_spawn(begin_time, at));
    return read_gate(NULL);
}

/* Milliseconds allowed until a fiber begins, on a machine with other work. */
static const double LIMIT = 500;

/* Each round adds a stuck fiber. With all workers stuck, a further worker must begin the last
 * fiber. */
static void begins(void) {
    enum { ROUNDS = 20, ALL = WORKERS + ROUNDS };
    guest_fiber *blockers[ALL];
    double worst = 0, sum = 0;
    CHECK(pipe(gate) == 0);
    for (int i = 0; i < ALL; i++) {
        blockers[i] = i % 2 ? guest_spawn(read_gate, NULL) : guest_spawn_on_fiber("reads", read_gate, NULL);
        wait_until_stuck(i + 1);
        if (i + 1 < WORKERS)
            continue;
        _Atomic double begun = 0;
        double spawned = milliseconds(CLOCK_MONOTONIC);
        CHECK(guest_join(guest_spawn(begin_time, &begun)) == 2);
        double took = begun - spawned;
        CHECK(took < LIMIT && stuck == i + 1);
        worst = took > worst ? took : worst;
        sum += took;
    }
    open_gate(ALL);
    for (int i = 0; i < ALL; i++)
        CHECK(guest_join(blockers[i]) == 1);
    printf("with all workers stuck, a fiber began after %.2f ms on average, %.2f ms at worst\n", sum / (ROUNDS + 1), worst);
}

static void kept_by_stuck_worker(void) {
    double worst = 0;
    CHECK(pipe(gate) == 0);
    for (int round = 0; round < 20; round++) {
        guest_fiber *blockers[WORKERS];
        _Atomic double begun[WORKERS] = {0, 0};
        double spawned = milliseconds(CLOCK_MONOTONIC);
        for (int i = 0; i < WORKERS; i++)
            blockers[i] = guest_spawn(spawn_and_read, (void *)&begun[i]);
        for (int i = 0; i < WORKERS; i++) {
            while (begun[i] == 0)
                CHECK(milliseconds(CLOCK_MONOTONIC) - spawned < LIMIT && usleep(100) == 0);
            worst = begun[i] - spawned > worst ? begun[i] - spawned : worst;
        }
        open_gate(WORKERS);
        for (int i = 0; i < WORKERS; i++)
            CHECK(guest_join(blockers[i]) == 1);
    }
    printf("kept by a stuck worker, a fiber began after %.2f ms at worst\n", worst);
}

/* Many sleeping fibers get extra workers. These exit when they are idle. */
static int sleep_100(void *unused) {
    (void)unused;
    usleep(100000);
    return 0;
}

static void extra_workers_go(void) {
    enum { FIBERS = 40 };
    guest_fiber *fibers[FIBERS];
    CHECK(threads_named("upcall-") == 0);
    double began = milliseconds(CLOCK_MONOTONIC);
    for (int i = 0; i < FIBERS; i++)
        fibers[i] = guest_spawn(sleep_100, NULL);
    int most = 0;
    for (int i = 0; i < FIBERS; i++) {
        CHECK(guest_join(fibers[i]) == 0);
        int now = threads_named("upcall-");
        most = now > most ? now : most;
    }
    double took = milliseconds(CLOCK_MONOTONIC) - began;
    CHECK(took < FIBERS * 100 / WORKERS / 2 && most > WORKERS + 1);
    /* The watcher remains, beside the configured workers. */
    double idle = milliseconds(CLOCK_MONOTONIC);
    while (threads_named("upcall-") > WORKERS + 1) {
        CHECK(milliseconds(CLOCK_MONOTONIC) - idle < 20000);
        usleep(10000);
    }
    idle = milliseconds(CLOCK_MONOTONIC) - idle;
    printf("%d × 100 ms took %.0f ms on %d threads, the extra ones were gone after %.0f ms\n", FIBERS, took, most, idle);
    usleep(100000);
    CHECK(threads_named("upcall-") == WORKERS + 1);
    CHECK(guest_join(guest_spawn(sleep_100, NULL)) == 0);
}

#ifndef _WIN32
/* ---- masks and names ---- */

static int check_thread(void *name_begins) {
    sigset_t mask;
    char name[64];
    CHECK(pthread_getname_np(pthread_self(), name, sizeof name) == 0);
    CHECK(strncmp(name, name_begins, strlen(name_begins)) == 0);
    /* The signal mask is that of the thread that started the first worker. */
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &mask) == 0);
    for (int signal = 1; signal <= SIGRTMAX; signal++) {
        if (signal < 32 || signal >= SIGRTMIN)
            CHECK(sigismember(&mask, signal) == (signal == SIGUSR2));
    }
    return 1;
}

static int check_stuck_thread(void *name_begins) {
    stuck++;
    while (stuck < 3 * WORKERS)
        usleep(100);
    return check_thread(name_begins);
}

static pthread_t main_thread;
static _Atomic int handled;

static void on_signal(int signal) {
    (void)signal;
    handled++;
}

static int signal_process(void *times) {
    for (intptr_t i = 0; i < (intptr_t)times; i++) {
        int before = handled;
        CHECK(kill(getpid(), SIGUSR1) == 0);
        while (handled == before)
            usleep(10);
        CHECK(guest_yield() == 0);
    }
    return 0;
}

static int name_is_own(void *unused) {
    (void)unused;
    return pthread_equal(pthread_self(), main_thread);
}

static void masks_and_names(void) {
    enum { FIBERS = 3 * WORKERS };
    guest_fiber *fibers[FIBERS];
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR2);
    CHECK(pthread_sigmask(SIG_BLOCK, &blocked, NULL) == 0);
    main_thread = pthread_self();
    for (int i = 0; i < FIBERS; i++)
        fibers[i] = guest_spawn(check_stuck_thread, "upcall-");
    for (int i = 0; i < FIBERS; i++)
        CHECK(guest_join(fibers[i]) == 1);
    CHECK(guest_join(guest_spawn_on_fiber("checks", check_thread, "upcall-")) == 1);
    CHECK(guest_blocking(check_thread, "upcall-blocking") == 1 && guest_blocking(name_is_own, NULL) == 0);
    CHECK(guest_sleep(1) == 0 && threads_named("upcall-timer") == 1);
    CHECK(signal(SIGUSR1, on_signal) != SIG_ERR);
    CHECK(guest_join(guest_spawn(signal_process, (void *)200)) == 0);
    CHECK(guest_join(guest_spawn_on_fiber("signals", signal_process, (void *)200)) == 0);
    CHECK(handled == 400);
}
#endif

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"begins", begins},
        {"kept_by_stuck_worker", kept_by_stuck_worker},
        {"extra_workers_go", extra_workers_go},
#ifndef _WIN32
        {"masks_and_names", masks_and_names},
#endif
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
