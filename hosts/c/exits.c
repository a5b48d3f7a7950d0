/* Threads and processes that end in the middle of calls. */
#include "host.h"

#ifndef _WIN32
#include <setjmp.h>
#include <sys/wait.h>
#endif

static int returns_7(void *unused) {
    (void)unused;
    return 7;
}

static void check_served(void) {
    CHECK(guest_increment(1) == 2 && guest_call_pooled(returns_7, NULL) == 7 && guest_call(returns_7, NULL) == 7);
}

/* The stacks kept by the main thread for itself. */
static int mains;

static void attach_main(void) {
    check_served();
    mains = guest_stacks_in_use();
}

/* ---- threads that end while upcalls are suspended on their coroutines ---- */

enum { HELD = 3, THREADS = 400, FILLER = 500 };
enum way { RETURN, EXIT, CANCEL, DETACHED, WAYS };

struct left {
    enum way way;
    struct coroutine c[HELD];
    struct memory memory[HELD];
    struct guest_where pooled[HELD];
    volatile char *filler[HELD]; /* C's local on the pooled stack */
};

static struct left left[THREADS];
static _Atomic int threads_done;

/* Runs on the pooled stack, because Rust called C as a plain function. */
static int leave_for_ever(void *coroutine) {
    struct coroutine *c = coroutine;
    struct left *of = c->argument;
    intptr_t n = c - of->c;
    volatile char filler[FILLER];
    for (int i = 0; i < FILLER; i++)
        filler[i] = (char)(n + i);
    of->filler[n] = filler;
    guest_bounds(&of->pooled[n]);
    coroutine_yield(c);
    CHECK(!"resumed");
    return filler[0];
}

static int call_plainly(void *coroutine) { return guest_call_plain(leave_for_ever, coroutine); }

/* Suspends either without a downcall on the way, or with one that stays open for ever. */
static void call_and_leave(struct coroutine *c, void *argument) {
    struct left *of = argument;
    if ((of - left) / WAYS % 2)
        guest_call_plain(leave_for_ever, c);
    else
        guest_call_caller(call_plainly, c);
}

static void *leave_calls(void *argument) {
    struct left *of = argument;
    check_served();
    for (int i = 0; i < HELD; i++) {
        of->memory[i] = memory_new(GUARDED, 32 << 10);
        coroutine_init(&of->c[i], of->memory[i].base, of->memory[i].size, call_and_leave, of);
        coroutine_resume(&of->c[i]);
    }
    threads_done++;
    if (of->way == EXIT)
        pthread_exit(of);
    if (of->way == CANCEL) {
        CHECK(pthread_cancel(pthread_self()) == 0);
        pthread_testcancel();
    }
    return of;
}

/* Checks that no upcall gets a stack of a suspended call. */
static int is_another(void *levels) {
    struct guest_where here;
    guest_bounds(&here);
    for (int i = 0; i < THREADS * HELD; i++)
        CHECK(left[i / HELD].pooled[i % HELD].low != here.low);
    return (intptr_t)levels > 0 ? guest_unwinding_plain_pooled(is_another, (void *)((intptr_t)levels - 1)) : 0;
}

static void suspended_calls(void) {
    attach_main();
    for (int i = 0; i < THREADS; i++) {
        pthread_attr_t attr;
        pthread_t thread;
        void *result;
        left[i].way = i % WAYS;
        CHECK(pthread_attr_init(&attr) == 0);
        if (left[i].way == DETACHED)
            CHECK(pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED) == 0);
        CHECK(pthread_create(&thread, &attr, leave_calls, &left[i]) == 0);
        if (left[i].way != DETACHED) {
            CHECK(pthread_join(thread, &result) == 0);
            CHECK(result == (left[i].way == CANCEL ? PTHREAD_CANCELED : &left[i]));
        }
    }
    for (int i = 0; threads_done < THREADS || guest_attached_threads() != 1; i++) {
        CHECK(i < 10000);
        usleep(1000);
    }
    /* A thread gives back the pooled stacks kept for itself a moment after it has left the list. */
    for (int i = 0; guest_stacks_in_use() != mains + THREADS * HELD; i++) {
        CHECK(i < 10000);
        usleep(1000);
    }
    /* The locals of the suspended calls are unchanged. */
    CHECK(guest_open_calls() == 0);
    CHECK(guest_unwinding_plain_pooled(is_another, (void *)500) == 0);
    for (int i = 0; i < THREADS * HELD; i++)
        for (int at = 0; at < FILLER; at++)
            CHECK(left[i / HELD].filler[i % HELD][at] == (char)(i % HELD + at));
    check_served();
}

#ifndef _WIN32
/* ---- threads that end in C under Rust ---- */

static int exit_thread(void *warm) {
    if (!warm)
        pthread_exit(NULL);
    return 7;
}

static int cancel_thread(void *warm) {
    if (!warm) {
        CHECK(pthread_cancel(pthread_self()) == 0);
        pthread_testcancel();
    }
    return 7;
}

static int (*call_unwinding)(guest_callback, void *);
static guest_callback ends_thread;

static void *end_under_rust(void *unused) {
    CHECK(call_unwinding(ends_thread, &unused) == 7);
    call_unwinding(ends_thread, NULL);
    CHECK(!"returned");
    return NULL;
}

/* Whether the C library unwinds the frames of a thread that ends. musl abandons them, as `longjmp`
 * does. */
static int unwinds_at_exit(void) {
#ifdef __GLIBC__
    return 1;
#else
    return 0;
#endif
}

static void *served_there(void *unused) {
    check_served();
    return unused;
}

static void end_in(int (*call)(guest_callback, void *), guest_callback ends) {
    call_unwinding = call;
    ends_thread = ends;
    on_thread(NULL, 0, end_under_rust, NULL);
    CHECK(!unwinds_at_exit());
    check_served();
    on_thread(NULL, 0, served_there, NULL);
}

static void exit_in_downcall(void) { end_in(guest_unwinding, exit_thread); }
static void exit_in_pooled_downcall(void) { end_in(guest_unwinding_pooled, exit_thread); }
static void exit_in_fiber(void) { end_in(guest_unwinding_on_fiber, exit_thread); }
static void cancel_in_downcall(void) { end_in(guest_unwinding, cancel_thread); }
static void cancel_in_upcall(void) { end_in(guest_unwinding_plain, cancel_thread); }
#endif

/* A cancelled thread continues to C's next cancellation point. Calls of Rust and their waits finish
 * first. */
static guest_channel *channel;
static _Atomic int waiting;

static void *wait_cancelled(void *unused) {
    check_served();
    CHECK(guest_receive_pooled(channel) == 1);
    waiting = 1;
    CHECK(guest_receive(channel) == 2);
    check_served();
    CHECK(guest_join(guest_spawn(returns_7, NULL)) == 7 && guest_sleep(1) == 0);
    pthread_testcancel();
    CHECK(!"cancelled");
    return unused;
}

static void cancelled_while_it_waits(void) {
    attach_main();
    CHECK(guest_join(guest_spawn(returns_7, NULL)) == 7);
    int attached = guest_attached_threads();
    channel = guest_channel_new(1);
    for (int i = 0; i < 50; i++) {
        pthread_t thread;
        void *result;
        waiting = 0;
        CHECK(pthread_create(&thread, NULL, wait_cancelled, NULL) == 0);
        CHECK(guest_send(channel, 1) == 0);
        while (!waiting)
            sched_yield();
        CHECK(pthread_cancel(thread) == 0);
        CHECK(guest_send(channel, 2) == 0);
        CHECK(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);
    }
    CHECK(guest_attached_threads() <= attached + 2 && guest_open_calls() == 0);
}

#ifndef _WIN32
/* ---- a pending panic in a call abandoned after upcall has handled the thread's exit ---- */

static pthread_key_t late;
static jmp_buf before_panic;

static int panic_and_leave(void *unused) {
    (void)unused;
    CHECK(guest_panic_with_heavy() == -1);
    longjmp(before_panic, 1);
}

/* Panics and leaves, further down the stack than later calls. */
static __attribute__((noinline)) void leave_a_panic(void) {
    *(volatile char *)alloca(64 << 10) = 1;
    if (!_setjmp(before_panic))
        guest_call(panic_and_leave, NULL);
}

static void leave_late(void *round) {
    if ((intptr_t)round < 3) {
        CHECK(pthread_setspecific(late, (void *)((intptr_t)round + 1)) == 0);
        return;
    }
    leave_a_panic();
    CHECK(guest_call_pooled(returns_7, NULL) == 7);
}

static void *leaves_late(void *unused) {
    CHECK(guest_empty() == 0);
    CHECK(pthread_setspecific(late, (void *)1) == 0);
    return unused;
}

static void panic_left_late(void) {
    if (no_query())
        return; /* nothing is found on an unknown stack */
    CHECK(pthread_key_create(&late, leave_late) == 0);
    on_thread(NULL, 1 << 20, leaves_late, NULL);
    CHECK(guest_heavies_dropped() == 1);
    CHECK(guest_attached_threads() == 0);
}
#endif

/* ---- key destructors, in every round, of threads with fibers ---- */

static pthread_key_t before_ours, after_ours;
static _Atomic int destructor_calls, fibers_run, fibers_dropped;
static guest_channel *never;

static void count_run(void *unused) {
    (void)unused;
    fibers_run++;
}

static void wait_for_ever(void *unused) {
    (void)unused;
    fibers_run++;
    CHECK(guest_receive(never) == -1);
    fibers_dropped++;
}

/* Uses the thread's runtime, begun here or earlier, if it can have one. Then leaves it with waiting
 * fibers in odd rounds, and ends it in even rounds.
 *
 * Once a thread's exit has ended its runtime, the thread gets no new one: nobody could end a
 * runtime remaining after the last round. */
static void with_runtime(intptr_t round) {
    CHECK(guest_join(guest_spawn(returns_7, NULL)) == 7);
    if (upcall_local_begin() == -1 && local_event() == NO_EVENT) {
        CHECK(upcall_local_spawn(count_run, NULL) == -1 && upcall_local_run_ready(1) == -1);
        CHECK(upcall_local_end() == -1);
        return;
    }
    CHECK(upcall_local_spawn(count_run, NULL) == 0 && upcall_local_spawn(wait_for_ever, NULL) == 0);
    CHECK(upcall_local_run_ready(SIZE_MAX) == 2);
    CHECK(guest_join(guest_spawn_local(returns_7, NULL)) == 7);
    if (round % 2 == 0)
        CHECK(upcall_local_end() == 0);
}

static void destroy(pthread_key_t key, intptr_t round) {
    check_served();
    with_runtime(round);
    CHECK(guest_panic("in a key destructor") == -1);
    destructor_calls++;
    CHECK(pthread_setspecific(key, (void *)(round + 1)) == 0);
}

static void destroy_before(void *round) { destroy(before_ours, (intptr_t)round); }
static void destroy_after(void *round) { destroy(after_ours, (intptr_t)round); }

static void *with_keys(void *begins) {
    if (begins)
        with_runtime(1);
    pthread_setspecific(before_ours, (void *)1);
    pthread_setspecific(after_ours, (void *)1);
    return NULL;
}

/* The number of uses of a runtime until none can be begun. If the thread-locals of Rust have a key,
 * those are the first destructor's and an earlier one. */
static int uses_of_runtimes(int begins) {
    if (!locals_go_first())
        return 1 + begins;
    return begins ? 1 : destructor_calls;
}

static void key_destructors(void) {
    CHECK(pthread_key_create(&before_ours, destroy_before) == 0);
    attach_main();
    CHECK(guest_join(guest_spawn(returns_7, NULL)) == 7);
    CHECK(pthread_key_create(&after_ours, destroy_after) == 0);
    never = guest_channel_new(1);
    int descriptors = 0, in_use = 0, attached = guest_attached_threads();
    for (intptr_t i = 0; i < 20; i++) {
        destructor_calls = fibers_run = fibers_dropped = 0;
        on_thread(NULL, 0, with_keys, (void *)(i % 2));
        CHECK(destructor_calls == 2 * PTHREAD_DESTRUCTOR_ITERATIONS);
        CHECK(fibers_run == 2 * uses_of_runtimes(i % 2));
        CHECK(fibers_dropped == fibers_run / 2);
        CHECK(guest_attached_threads() <= attached + 2 && guest_open_calls() == 0);
        if (i == 3) {
            descriptors = open_descriptors();
            in_use = guest_stacks_in_use();
        }
    }
    CHECK(open_descriptors() == descriptors && guest_stacks_in_use() <= in_use + 16);
}

#ifndef _WIN32
/* ---- exit() while everything is running, with handlers that call Rust ---- */

static int handlers_run;

static void at_exit_call(void) {
    handlers_run++;
    check_served();
    CHECK(guest_sleep(1) == 0 && guest_yield() == 0);
    CHECK(guest_join(guest_spawn(returns_7, NULL)) == 7);
    CHECK(guest_panic("at exit") == -1);
    if (handlers_run == 2)
        _exit(42);
}

static int yield_often(void *unused) {
    (void)unused;
    while (guest_yield() == 0)
        ;
    return 0;
}

static int block_often(void *unused) {
    (void)unused;
    while (usleep(100) == 0)
        ;
    return 0;
}

static int receive_for_ever(void *unused) {
    (void)unused;
    return guest_receive(never);
}

static void *call_often(void *unused) {
    for (;;)
        check_served();
    return unused;
}

static int exit_now(void *unused) {
    (void)unused;
    exit(1);
}

static int exit_deeper(void *unused) {
    (void)unused;
    return guest_call_pooled(exit_now, NULL);
}

static void exit_in_local_fiber(void *unused) { exit_deeper(unused); }

static void *exit_there(void *unused) {
    guest_call(exit_deeper, NULL);
    return unused;
}

static void exit_on_coroutine(struct coroutine *c, void *unused) {
    (void)c;
    exit_there(unused);
}

static struct coroutine exiting;

/* Runs in the child: starts everything, and calls exit() at the given place. */
static _Noreturn void exit_busily(int where) {
    pthread_t thread;
    struct memory stack = memory_new(GUARDED, 256 << 10);
    atexit(at_exit_call);
    atexit(at_exit_call);
    never = guest_channel_new(1);
    CHECK(upcall_local_begin() == 0 && upcall_local_spawn(wait_for_ever, NULL) == 0);
    CHECK(upcall_local_run_ready(SIZE_MAX) == 1);
    for (int i = 0; i < 4; i++) {
        guest_detach(guest_spawn_on_fiber("waits", receive_for_ever, NULL));
        guest_detach(guest_spawn_on_fiber("yields", yield_often, NULL));
        CHECK(pthread_create(&thread, NULL, call_often, NULL) == 0);
    }
    guest_detach(guest_spawn(block_often, NULL));
    CHECK(guest_sleep(2) == 0);
    switch (where) {
    case 0: exit(1);
    case 1: exit_there(NULL); break;
    case 2: on_thread(NULL, 0, exit_there, NULL); break;
    case 3:
        coroutine_init(&exiting, stack.base, stack.size, exit_on_coroutine, NULL);
        coroutine_resume(&exiting);
        break;
    case 4: guest_join(guest_spawn(exit_deeper, NULL)); break;
    case 5: guest_join(guest_spawn_on_fiber("exits", exit_deeper, NULL)); break;
    case 6:
        /* A waiting handler suspends its fiber in the middle of exit(). */
        CHECK(upcall_local_spawn(exit_in_local_fiber, NULL) == 0);
        for (;;)
            upcall_local_run_ready(SIZE_MAX);
    default: guest_blocking(exit_deeper, NULL);
    }
    CHECK(!"exited");
    _exit(1);
}

static void exit_anywhere(void) {
    for (int i = 0; i < 24; i++) {
        pid_t child = fork();
        if (child == 0)
            exit_busily(i % 8);
        int status;
        CHECK(child > 0 && waitpid(child, &status, 0) == child);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 42)
            fprintf(stderr, "exit from %d: status %#x\n", i % 8, status);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
    }
}
#endif

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"suspended_calls", suspended_calls},
        {"cancelled_while_it_waits", cancelled_while_it_waits},
        {"key_destructors", key_destructors},
#ifndef _WIN32
        {"exit_in_downcall", exit_in_downcall},
        {"exit_in_pooled_downcall", exit_in_pooled_downcall},
        {"exit_in_fiber", exit_in_fiber},
        {"cancel_in_downcall", cancel_in_downcall},
        {"cancel_in_upcall", cancel_in_upcall},
        {"panic_left_late", panic_left_late},
        {"exit_anywhere", exit_anywhere},
#endif
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
