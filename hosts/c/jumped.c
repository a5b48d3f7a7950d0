/* Hosts abandon a wait, a poll, the use of a value, or a fiber by longjmp. Later calls and waits
 * are right. */
#include "host.h"

#include <setjmp.h>
#include <sys/time.h>

static jmp_buf outside;

static int leave(void *unused) {
    (void)unused;
    longjmp(outside, 1);
}

/* Overwrites the abandoned frames. It needs a frame of its own for this. */
static __attribute__((noinline)) void scribble(void) {
    volatile char frames[8192];
    memset((char *)frames, 0x41, sizeof frames);
}

/* Makes a call and abandons it, further in than later waits of the caller. These waits make the
 * library forget the abandoned ones. */
static __attribute__((noinline)) void leave_from(int (*call)(guest_callback, void *)) {
    volatile char further_in[2048];
    memset((char *)further_in, 0x41, sizeof further_in);
    if (!setjmp(outside)) {
        call(leave, NULL);
        CHECK(!"came back");
    }
    scribble();
}

static void *sends(void *channel) {
    usleep(2000);
    CHECK(guest_send(channel, 42) == 0);
    return NULL;
}

/* Waits woken by another thread, by a timer, and by nobody. */
static void later_waits_are_right(void) {
    guest_channel *channel = guest_channel_new(1);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, sends, channel) == 0);
    CHECK(guest_receive(channel) == 42);
    CHECK(pthread_join(thread, NULL) == 0);
    guest_channel_free(channel);
    CHECK(guest_sleep(1) == 0 && guest_yield() == 0);
    CHECK(guest_thread_waits() == 0);
}

static void *leaves_waits(void *detaches) {
    int (*const calls[])(guest_callback, void *) = {guest_poll_calls, guest_local_calls, guest_poll_waits_and_calls};
    for (int i = 0; i < 2000; i++) {
        leave_from(calls[i % 3]);
        if (i % 100 == 0)
            later_waits_are_right();
    }
    later_waits_are_right();
    CHECK(guest_stacks_in_use() <= 2);
    if (detaches)
        CHECK(upcall_thread_detach() != -1 || last_panic_says("longjmp") || last_panic_says("downcalls"));
    return NULL;
}

static void out_of_waits(void) {
    on_thread(NULL, 0, leaves_waits, NULL);
    on_thread(NULL, 0, leaves_waits, &outside);
    /* No abandoned call keeps a record. */
    CHECK(guest_attached_threads() == 0);
    leaves_waits(NULL);
}

/* Abandons the use of a value at the same place each time, without other library calls in
 * between. */
static void out_of_locals(void) {
    leave_from(guest_local_calls);
    long before = resident_kib();
    for (int i = 0; i < 40000; i++)
        leave_from(guest_local_calls);
    CHECK(resident_kib() - before < 1024);
    CHECK(guest_open_downcalls() <= 2048);
    later_waits_are_right();
}

/* ---- a handler leaves a sleeping thread ---- */

static sigjmp_buf from_handler;

static void leave_handler(int signal) {
    (void)signal;
    siglongjmp(from_handler, 1);
}

static void out_of_sleeps(void) {
    CHECK(signal(SIGALRM, leave_handler) != SIG_ERR);
    CHECK(guest_increment(41) == 42);
    guest_sleep(1);
    for (int i = 0; i < 20; i++) {
        struct itimerval soon = {.it_value = {0, 3000 + 100 * i}};
        if (!sigsetjmp(from_handler, 1)) {
            CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
            guest_sleep(10000);
            CHECK(!"came back");
        }
        scribble();
        guest_sleep(1); /* at the place of the abandoned sleep */
        later_waits_are_right();
    }
    CHECK(guest_open_calls() == 0 && guest_stacks_in_use() <= 2);
}

/* ---- on fibers ---- */

static int count;

/* Waits further in than the abandoned poll, and overwrites its frames. */
static __attribute__((noinline)) void waits_further_in(void) {
    volatile char frames[8192];
    memset((char *)frames, 0x41, sizeof frames);
    CHECK(guest_yield() == 0 && guest_sleep(1) == 0);
}

static void fiber_leaves_polls(void *unused) {
    (void)unused;
    for (int i = 0; i < 50; i++) {
        leave_from(i % 2 ? guest_poll_calls : guest_poll_waits_and_calls);
        waits_further_in();
        CHECK(guest_yield() == 0 && guest_sleep(1) == 0);
    }
    count++;
}

/* An outer poll continues after the inner one was abandoned and the fiber suspended. */
static int leaves_and_waits(void *unused) {
    (void)unused;
    jmp_buf kept;
    memcpy(&kept, &outside, sizeof kept);
    leave_from(guest_poll_calls);
    CHECK(guest_sleep(1) == 0 && guest_yield() == 0);
    memcpy(&outside, &kept, sizeof kept);
    return 0;
}

static void fiber_waits_around(void *unused) {
    (void)unused;
    for (int i = 0; i < 20; i++)
        CHECK(guest_poll_waits_and_calls(leaves_and_waits, NULL) == 7);
    count++;
}

static void run_until(int wanted) {
    while (count != wanted)
        CHECK(upcall_local_run_ready(1000) >= 0);
}

static void out_of_polls_on_fibers(void) {
    CHECK(upcall_local_begin() == 0);
    CHECK(upcall_local_spawn(fiber_leaves_polls, NULL) == 0);
    run_until(1);
    CHECK(upcall_local_spawn(fiber_waits_around, NULL) == 0);
    run_until(2);
    CHECK(upcall_local_end() == 0);
}

/* ---- past the code that polls the fiber ---- */

static void out_of_fibers(void) {
    for (int i = 0; i < 20; i++) {
        leave_from(guest_fiber_calls);
        CHECK(guest_increment(i) == i + 1);
    }
    later_waits_are_right();
}

static int ended;

static void leaves_runtime(void *unused) { guest_call(leave, unused); }

static int run_runtime(guest_callback unused, void *argument) {
    (void)unused;
    (void)argument;
    return (int)upcall_local_run_ready(100);
}

static void ends(void *unused) {
    (void)unused;
    ended++;
}

/* A thread abandons a run of its runtime. The runtime continues with the other fibers, and ends. */
static void out_of_runtimes(void) {
    CHECK(upcall_local_begin() == 0);
    for (int i = 0; i < 10; i++) {
        CHECK(upcall_local_spawn(leaves_runtime, NULL) == 0);
        leave_from(run_runtime);
    }
    CHECK(upcall_local_spawn(ends, NULL) == 0);
    CHECK(upcall_local_run_ready(100) == 1 && ended == 1);
    later_waits_are_right();
    CHECK(upcall_local_end() == 0);
    CHECK(upcall_local_begin() == 0 && upcall_local_end() == 0);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"out_of_waits", out_of_waits}, {"out_of_locals", out_of_locals},
        {"out_of_sleeps", out_of_sleeps},
        {"out_of_polls_on_fibers", out_of_polls_on_fibers},
        {"out_of_fibers", out_of_fibers},
        {"out_of_runtimes", out_of_runtimes},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
