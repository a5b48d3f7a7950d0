/* A host that forks: the child calls Rust at once and gets right answers. Nothing waits for
 * anything that only the parent has. */
#include "forks.h"

#include <poll.h>

static void nothing_started(void) {
    in_child(all_is_right);
    calls_are_right();
    in_child(all_is_right);
    all_is_right();
}

static void workers_started(void) {
    starts_afresh();
    in_child(all_is_right);
    all_is_right();
    in_child(calls_are_right);
}

/* ---- fibers and workers that only the parent has ---- */

static guest_channel *never;
static guest_fiber *fibers[4];

static int waits(void *unused) {
    (void)unused;
    return guest_receive(never);
}

static int yields_for_a_while(void *unused) {
    (void)unused;
    for (int i = 0; i < 100000; i++)
        guest_yield();
    return 0;
}

/* Joins of the parent's fibers are errors, so nobody waits for ever. */
static void joins_are_errors(void) {
    for (int i = 0; i < 4; i++) {
        CHECK(guest_is_finished(fibers[i]));
        CHECK(guest_join(fibers[i]) == -1);
        CHECK(last_panic_says("runs only in the process that this one was forked from"));
    }
    all_is_right();
}

static void fibers_of_the_parent(void) {
    never = guest_channel_new(1);
    fibers[0] = guest_spawn_on_fiber("suspended", waits, NULL);
    fibers[1] = guest_spawn_on_fiber("yielding", yields_for_a_while, NULL);
    fibers[2] = guest_spawn(waits, NULL);
    fibers[3] = guest_spawn_on_fiber("not begun, perhaps", waits, NULL);
    in_child(joins_are_errors);
    for (int i = 0; i < 3; i++)
        CHECK(guest_send(never, i) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(guest_join(fibers[i]) >= 0);
    all_is_right();
}

/* ---- forks in the middle of calls ---- */

static int forks(void *unused) {
    (void)unused;
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(20);
        nested_calls_are_right();
        return 1;
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    return 0;
}

static int forks_pooled(void *unused) { return guest_call_pooled(forks, unused); }
static int forks_deeper(void *unused) { return guest_call(forks_pooled, unused); }

/* Both processes return through all frames of the call. */
static void ends_in_both(int is_child) {
    CHECK(is_child == 0 || is_child == 1);
    all_is_right();
    if (is_child)
        _exit(0);
}

static void in_nested_upcalls(void) {
    ends_in_both(guest_call_pooled(forks_deeper, NULL));
}

static void forks_on_coroutine(struct coroutine *c, void *is_child) {
    *(int *)is_child = guest_call(forks_deeper, NULL);
    coroutine_yield(c);
    calls_are_right();
}

/* Upcalls suspended on other coroutines continue in both processes. */
static void on_coroutine(void) {
    enum { MANY = 50 };
    static struct coroutine others[MANY];
    struct coroutine c;
    int is_child = -1;
    struct memory stack = memory_new(GUARDED, 64 << 10);
    for (int i = 0; i < MANY; i++) {
        struct memory other = memory_new(MALLOCED, 32 << 10);
        coroutine_init(&others[i], other.base, other.size, suspend, NULL);
        coroutine_resume(&others[i]);
    }
    coroutine_init(&c, stack.base, stack.size, forks_on_coroutine, &is_child);
    coroutine_resume(&c);
    for (int i = 0; i < MANY; i++) {
        coroutine_resume(&others[i]);
        CHECK(others[i].done);
    }
    coroutine_resume(&c);
    CHECK(c.done);
    ends_in_both(is_child);
}

static void *forks_on_thread(void *unused) {
    starts_afresh();
    int is_child = guest_call(forks_deeper, NULL);
    ends_in_both(is_child);
    return unused;
}

static void on_pthread(void) {
    starts_afresh();
    on_thread(NULL, 0, forks_on_thread, NULL);
}

/* A worker forks, in C called by a fiber. In the child, it is the only thread, and the fiber
 * continues. */
static int forks_and_exits(void *unused) {
    if (forks(unused) == 1) {
        nested_calls_are_right();
        _exit(0);
    }
    return 7;
}

static void on_worker(void) {
    CHECK(guest_join(guest_spawn(forks_and_exits, NULL)) == 7);
    CHECK(guest_join(guest_spawn_on_fiber("forks", forks_and_exits, NULL)) == 7);
    all_is_right();
}

/* ---- a LocalRuntime belongs to its thread, in both processes ---- */

static int ended;

static void sleeps(void *unused) {
    (void)unused;
    CHECK(guest_sleep(30) == 0);
    ended++;
}

static void joins_lost(void *fiber) {
    CHECK(guest_join(fiber) == -1);
    ended++;
}

static void run_until(int count) {
    struct pollfd ready = {upcall_local_fd(), POLLIN, 0};
    while (ended < count) {
        CHECK(poll(&ready, 1, 10000) == 1);
        CHECK(upcall_local_run_ready(SIZE_MAX) >= 0);
    }
    CHECK(upcall_local_run_ready(SIZE_MAX) == 0);
    CHECK(poll(&ready, 1, 0) == 0);
}

static void runs_on(void) {
    run_until(4);
    CHECK(upcall_local_spawn(sleeps, NULL) == 0);
    run_until(5);
    CHECK(upcall_local_end() == 0);
    all_is_right();
}

static void local_runtime(void) {
    never = guest_channel_new(1);
    CHECK(upcall_local_begin() == 0);
    for (int i = 0; i < 3; i++)
        CHECK(upcall_local_spawn(sleeps, NULL) == 0);
    guest_fiber *lost = guest_spawn(waits, NULL);
    CHECK(upcall_local_spawn(joins_lost, lost) == 0);
    CHECK(upcall_local_run_ready(SIZE_MAX) == 4);
    in_child(runs_on);
    run_until(3);
    CHECK(guest_send(never, -1) == 0);
    runs_on();
}

/* ---- under load: at some moment, other threads hold each lock of the library ---- */

/* Forks many times while `threads` threads run `load`. Every fourth child is `fourth`. */
static void forks_under(void *(*load)(void *), int threads, void (*child)(void), void (*fourth)(void)) {
    int times = unoptimised() ? 100 : 500;
    pthread_t loading[4];
    CHECK(threads <= 4);
    for (int i = 0; i < threads; i++)
        CHECK(pthread_create(&loading[i], NULL, load, (void *)(intptr_t)i) == 0);
    for (int i = 0; i < times; i++)
        in_child(i % 4 ? child : fourth);
    stop = 1;
    for (int i = 0; i < threads; i++)
        pthread_join(loading[i], NULL);
    printf("%d forks under load\n", times);
    all_is_right();
}

static void calls_and_starts(void) {
    calls_are_right();
    starts_afresh_on_thread(NULL);
}

static void under_load(void) { forks_under(loads, 4, calls_are_right, calls_and_starts); }

/* While no C++ runtime is known, each new fiber looks for one among the loaded objects at its first
 * call of C. glibc guards these by a lock that it does not free in children. */

static void *makes_fibers(void *unused) {
    CHECK(upcall_local_begin() == 0);
    while (!stop)
        CHECK(guest_join(guest_spawn_local(returns_7, NULL)) == 7);
    CHECK(upcall_local_end() == 0);
    return unused;
}

static void looks(void) { CHECK(guest_join(guest_spawn_on_fiber("looks", returns_7, NULL)) == 7); }

static void while_fibers_look(void) { forks_under(makes_fibers, 3, looks, looks); }

/* The child forks in turn, for 20 generations. */
static int generations;

static void next_generation(void) {
    calls_are_right();
    starts_afresh();
    if (++generations < 20)
        in_child(next_generation);
    all_is_right();
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"nothing_started", nothing_started},
        {"workers_started", workers_started},
        {"fibers_of_the_parent", fibers_of_the_parent},
        {"in_nested_upcalls", in_nested_upcalls},
        {"on_coroutine", on_coroutine},
        {"on_pthread", on_pthread},
        {"on_worker", on_worker},
        {"local_runtime", local_runtime},
        {"under_load", under_load},
        {"while_fibers_look", while_fibers_look},
        {"generations", next_generation},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
