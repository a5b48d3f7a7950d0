/* A plain loop drives the fibers of its thread: poll(2), or WaitForSingleObject. */
#include "host.h"

#ifndef _WIN32
#include <sys/syscall.h>
#endif

/* Returns whether a fiber can run within `timeout` milliseconds. */
static int readable(int timeout) { return is_signalled(local_event(), timeout); }

/* Polls and runs until `count` reaches `all`. Returns the number of wake-ups.
 *
 * A spurious wake-up is rare, and never repeats for long. */
static int loop_until(const int *count, int all) {
    int woken = 0, in_vain = 0;
    for (; *count < all; woken++) {
        CHECK(readable(-1));
        long ran = upcall_local_run_ready(SIZE_MAX);
        CHECK(ran >= 0);
        in_vain = ran ? 0 : in_vain + 1;
        CHECK(in_vain < 8);
    }
    return woken;
}

/* Checks that, without work elsewhere, the descriptor is quiet after one call at most. */
static void check_quiet(void) {
    upcall_local_run_ready(1);
    CHECK(!readable(0));
}

/* ---- fibers in C and in Rust, messages, timers ---- */

enum { FIBERS = 8, MESSAGES = 2000 };
static guest_channel *inbox[FIBERS];
static int ended;

static void receive_all(void *n) {
    for (int i = 0; i < MESSAGES; i++)
        CHECK(guest_receive(inbox[(intptr_t)n]) == i);
    ended++;
}

static int receive_all_for_rust(void *n) {
    receive_all(n);
    return 5;
}

static void *send_all(void *unused) {
    for (int i = 0; i < MESSAGES; i++) {
        for (int n = 0; n < FIBERS; n++)
            CHECK(guest_send(inbox[n], i) == 0);
    }
    return unused;
}

static void sleep_often(void *unused) {
    (void)unused;
    for (int i = 0; i < 20; i++)
        CHECK(guest_sleep(i % 4) == 0);
    ended++;
}

static void driven(void) {
    pthread_t sender;
    guest_fiber *in_rust[FIBERS];
    CHECK(upcall_local_begin() == 0);
    for (intptr_t n = 0; n < FIBERS; n++) {
        inbox[n] = guest_channel_new(4);
        if (n % 2)
            CHECK(upcall_local_spawn(receive_all, (void *)n) == 0);
        else
            CHECK((in_rust[n] = guest_spawn_local(receive_all_for_rust, (void *)n)) != NULL);
    }
    for (int i = 0; i < FIBERS; i++)
        CHECK(upcall_local_spawn(sleep_often, NULL) == 0);
    CHECK(ended == 0);
    CHECK(pthread_create(&sender, NULL, send_all, NULL) == 0);
    printf("%d messages, woken %d times\n", FIBERS * MESSAGES, loop_until(&ended, 2 * FIBERS));
    CHECK(pthread_join(sender, NULL) == 0);
    for (int n = 0; n < FIBERS; n++) {
        if (n % 2 == 0) {
            CHECK(guest_is_finished(in_rust[n]));
            CHECK(guest_join(in_rust[n]) == 5);
        }
        guest_channel_free(inbox[n]);
    }
    check_quiet();
    CHECK(upcall_local_end() == 0);
}

/* Another thread sends one message at a time. Each makes the descriptor readable, and receiving it
 * makes it unreadable again. */
enum { BUSY = 200000 };

static void count_messages(void *unused) {
    (void)unused;
    while (ended < BUSY)
        CHECK(guest_receive(inbox[0]) == ended++);
}

static void *send_many(void *unused) {
    for (int i = 0; i < BUSY; i++)
        CHECK(guest_send(inbox[0], i) == 0);
    return unused;
}

static void busy(void) {
    pthread_t sender;
    inbox[0] = guest_channel_new(1);
    CHECK(upcall_local_begin() == 0 && upcall_local_spawn(count_messages, NULL) == 0);
    CHECK(pthread_create(&sender, NULL, send_many, NULL) == 0);
    printf("%d messages, woken %d times\n", BUSY, loop_until(&ended, BUSY));
    CHECK(pthread_join(sender, NULL) == 0);
    check_quiet();
    CHECK(upcall_local_end() == 0);
}

/* With nothing to run, the loop sleeps until the timer fires. */
static void sleep_once(void *unused) {
    (void)unused;
    CHECK(guest_sleep(300) == 0);
    ended++;
}

static void idle(void) {
    double began = milliseconds(CLOCK_MONOTONIC);
    CHECK(upcall_local_begin() == 0 && upcall_local_spawn(sleep_once, NULL) == 0);
    CHECK(upcall_local_run_ready(10) == 1 && !readable(0));
    double computed = milliseconds(CLOCK_PROCESS_CPUTIME_ID);
    int woken = loop_until(&ended, 1);
    double took = milliseconds(CLOCK_MONOTONIC) - began;
    computed = milliseconds(CLOCK_PROCESS_CPUTIME_ID) - computed;
    printf("woken %d times in %.0f ms, computed %.2f ms\n", woken, took, computed);
    CHECK(woken <= 2 && took > 290 && computed < 100);
    check_quiet();
    CHECK(upcall_local_end() == 0);
}

/* ---- the descriptor and the counts ---- */

static void count(void *unused) {
    (void)unused;
    ended++;
}

static void *send_7(void *unused) {
    CHECK(guest_send(inbox[0], 7) == 0);
    return unused;
}

static void receive_7(void *unused) {
    (void)unused;
    CHECK(guest_receive(inbox[0]) == 7);
    ended++;
}

static void level(void) {
    inbox[0] = guest_channel_new(1);
    for (int round = 0; round < 3; round++) {
        ended = 0;
        CHECK(upcall_local_begin() == 0 && !readable(0));
        CHECK(upcall_local_run_ready(SIZE_MAX) == 0 && !readable(0));
        for (int i = 0; i < 5; i++)
            CHECK(upcall_local_spawn(count, NULL) == 0);
        CHECK(ended == 0 && readable(0) && readable(0));
        CHECK(upcall_local_run_ready(0) == 0 && ended == 0 && readable(0));
        CHECK(upcall_local_run_ready(2) == 2 && ended == 2 && readable(0));
        CHECK(upcall_local_run_ready(3) == 3 && ended == 5 && !readable(0));
        CHECK(upcall_local_spawn(receive_7, NULL) == 0);
        CHECK(upcall_local_run_ready(SIZE_MAX) == 1 && ended == 5 && !readable(0));
        on_thread(NULL, 0, send_7, NULL);
        CHECK(readable(0) && readable(0) && ended == 5);
        CHECK(upcall_local_run_ready(SIZE_MAX) == 1 && ended == 6 && !readable(0));
        CHECK(upcall_local_end() == 0);
    }
}

#ifndef _WIN32
/* A late report of a wake-up.
 *
 * After waking a fiber, the other thread is held up before its write to the descriptor, and the
 * fiber runs first. The late write brings no news and must not keep the descriptor readable. The
 * library calls this `write`, because the program's own symbols come first. */
static _Atomic int hold, held;

ssize_t write(int fd, const void *bytes, size_t size) {
    if (hold && fd > 2) {
        held = 1;
        while (hold)
            usleep(100);
    }
    return syscall(SYS_write, fd, bytes, size);
}

static _Atomic int may_end;

static int end_when_told(void *unused) {
    (void)unused;
    while (!may_end)
        usleep(100);
    return 7;
}

static void join_worker(void *unused) {
    (void)unused;
    CHECK(guest_join(guest_spawn(end_when_told, NULL)) == 7);
    ended++;
}

static void told_late(void) {
    CHECK(upcall_local_begin() == 0);
    for (int round = 1; round <= 3; round++) {
        may_end = held = 0;
        CHECK(upcall_local_spawn(join_worker, NULL) == 0);
        CHECK(upcall_local_run_ready(SIZE_MAX) == 1 && !readable(0));
        hold = may_end = 1;
        while (!held)
            usleep(100);
        CHECK(!readable(0) && upcall_local_run_ready(SIZE_MAX) == 1 && ended == round);
        hold = 0;
        readable(5000); /* the write happens now */
        check_quiet();
    }
    CHECK(upcall_local_end() == 0);
}
#endif

/* ---- functions used wrongly ---- */

static int begins_on_worker(void *unused) {
    (void)unused;
    CHECK(upcall_local_begin() == -1 && last_panic_says("one of upcall's workers"));
    CHECK(upcall_local_spawn(count, NULL) == -1 && upcall_local_end() == -1);
    return 1;
}

static void check_without_runtime(void) {
    CHECK(upcall_local_run_ready(1) == -1 && last_panic_says("call local_begin first"));
    CHECK(guest_panic("another") == -1);
    CHECK(local_event() == NO_EVENT && last_panic_says("call local_begin first"));
    CHECK(guest_panic("another") == -1);
    CHECK(upcall_local_spawn(count, NULL) == -1 && last_panic_says("call local_begin first"));
    CHECK(guest_panic("another") == -1);
    CHECK(upcall_local_end() == -1 && last_panic_says("call local_begin first"));
    CHECK(guest_join(guest_spawn_local(begins_on_worker, NULL)) == -1 && last_panic_says("has no LocalRuntime"));
}

static void *without_runtime(void *unused) {
    check_without_runtime();
    return unused;
}

static void errors(void) {
    check_without_runtime();
    CHECK(upcall_local_begin() == 0);
    CHECK(upcall_local_begin() == -1 && last_panic_says("has a LocalRuntime already"));
    CHECK(upcall_local_spawn(NULL, NULL) == -1 && last_panic_says("run is null"));
    CHECK(!readable(0));
    /* A runtime in use continues to serve. */
    on_thread(NULL, 0, without_runtime, NULL);
    CHECK(upcall_local_spawn(count, NULL) == 0 && upcall_local_run_ready(SIZE_MAX) == 1 && ended == 1);
    CHECK(upcall_local_end() == 0);
    check_without_runtime();
    CHECK(guest_join(guest_spawn(begins_on_worker, NULL)) == 1);
    CHECK(guest_join(guest_spawn_on_fiber("begins", begins_on_worker, NULL)) == 1);
}

/* ---- from inside a fiber ---- */

static void run_others(void *levels) {
    intptr_t left = (intptr_t)levels;
    CHECK(upcall_local_begin() == -1 && last_panic_says("has a LocalRuntime already"));
    CHECK(upcall_local_end() == -1 && last_panic_says("from inside local_run_ready"));
    CHECK(local_event() != NO_EVENT);
    CHECK(upcall_local_spawn(count, NULL) == 0);
    CHECK(guest_yield() == 0);
    if (left > 0) {
        CHECK(upcall_local_spawn(run_others, (void *)(left - 1)) == 0);
        /* The spawned fiber takes a step up to its yield, and so do the fibers spawned inside it.
         * Then it takes another step. */
        CHECK(upcall_local_run_ready(SIZE_MAX) >= 2);
    }
    ended++;
}

static void inside(void) {
    CHECK(upcall_local_begin() == 0);
    CHECK(upcall_local_spawn(run_others, (void *)8) == 0);
    CHECK(upcall_local_run_ready(1) == 1 && ended == 0);
    CHECK(upcall_local_run_ready(1) == 1 && ended == 1); /* the fiber `count` */
    CHECK(upcall_local_run_ready(1) == 1 && ended == 18 && !readable(0));
    CHECK(upcall_local_end() == 0);
}

/* Upcalls that wait in the main thread, outside fibers: the thread's fibers run meanwhile. */
static int wait_for_another(void *levels) {
    intptr_t left = (intptr_t)levels;
    if (left == 0)
        return guest_receive(inbox[0]) - 7;
    CHECK(guest_sleep(1) == 0);
    return guest_join(guest_spawn_local(wait_for_another, (void *)(left - 1))) + 1;
}

static int send_7_from_fiber(void *unused) {
    send_7(unused);
    return 3;
}

static void waits_meanwhile(void) {
    CHECK(upcall_local_begin() == 0);
    for (int capacity = 1; capacity < 3; capacity++) {
        inbox[0] = guest_channel_new((size_t)capacity);
        CHECK(upcall_local_spawn(count, NULL) == 0);
        guest_fiber *receiver = guest_spawn_local(wait_for_another, (void *)10);
        guest_fiber *sender = guest_spawn_local(send_7_from_fiber, NULL);
        CHECK(guest_join(receiver) == 10 && ended == capacity);
        CHECK(guest_join(sender) == 3);
        guest_channel_free(inbox[0]);
    }
    check_quiet();
    CHECK(upcall_local_end() == 0);
}

/* ---- messages: each fiber finds its own after a wait ---- */

static void fails_and_waits(void *message) {
    char none[8];
    CHECK(upcall_last_message(none, sizeof none) == -1);
    CHECK(guest_panic(message) == -1);
    CHECK(guest_yield() == 0 && last_panic_says(message));
    ended++;
}

static void messages(void) {
    CHECK(guest_panic("of the thread") == -1);
    CHECK(upcall_local_begin() == 0);
    CHECK(upcall_local_spawn(fails_and_waits, "of the first") == 0);
    CHECK(upcall_local_spawn(fails_and_waits, "of the second") == 0);
    CHECK(upcall_local_run_ready(SIZE_MAX) == 4 && ended == 2);
    CHECK(last_panic_says("of the thread"));
    CHECK(upcall_local_end() == 0);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"driven", driven},
        {"messages", messages},
        {"busy", busy},
        {"idle", idle},
        {"level", level},
        {"errors", errors},
        {"inside", inside},
        {"waits_meanwhile", waits_meanwhile},
#ifndef _WIN32
        {"told_late", told_late},
#endif
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
