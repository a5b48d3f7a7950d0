/* upcall_shutdown ends the workers. Everything that needs no worker continues. */
#include "host.h"

static guest_channel *never;

static int returns_4(void *unused) {
    (void)unused;
    return 4;
}

static int sleep_50(void *unused) {
    (void)unused;
    CHECK(guest_sleep(50) == 0);
    return 5;
}

static int receive(void *unused) {
    (void)unused;
    return guest_receive(never);
}

static _Atomic int ran;

static void run_once(void *unused) {
    (void)unused;
    CHECK(guest_sleep(1) == 0);
    ran++;
}

static int is_same_thread(void *thread) { return pthread_equal(*(pthread_t *)thread, pthread_self()); }

static void check_refused(guest_fiber *fiber) {
    CHECK(guest_is_finished(fiber));
    CHECK(guest_join(fiber) == -1);
    CHECK(last_panic_says("the fiber was not begun: upcall::shutdown has been called"));
}

/* Checks that nothing can be spawned. Everything else works as before. */
static void *check_closing(void *unused) {
    check_refused(guest_spawn(returns_4, NULL));
    check_refused(guest_spawn_on_fiber("late", returns_4, NULL));
    CHECK(guest_increment(1) == 2 && guest_call_pooled(returns_4, NULL) == 4);
    CHECK(guest_sleep(1) == 0 && guest_yield() == 0);
    int before = ran;
    CHECK(upcall_local_begin() == 0 && upcall_local_spawn(run_once, NULL) == 0);
    CHECK(guest_join(guest_spawn_local(sleep_50, NULL)) == 5 && ran == before + 1);
    CHECK(upcall_local_end() == 0);
    return unused;
}

static void *check_after(void *unused) {
    pthread_t self = pthread_self();
    CHECK(guest_blocking(is_same_thread, &self) == 1);
    return check_closing(unused);
}

/* Waits until the threads are gone: a joined thread may stay listed for some time. */
static void check_threads_gone(void) {
    for (int i = 0; threads_named("upcall-") - threads_named("upcall-watcher") > 0; i++) {
        CHECK(i < 5000);
        usleep(1000);
    }
}

static void nothing_started(void) {
    CHECK(upcall_shutdown(0) == 0);
    CHECK(upcall_shutdown(1000) == 0);
    CHECK(threads_named("upcall-") == 0);
    check_after(NULL);
    on_thread(NULL, 0, check_after, NULL);
    CHECK(upcall_shutdown(0) == 0);
}

enum { FIBERS = 20 };

static void that_finish(void) {
    guest_fiber *fibers[FIBERS];
    for (int i = 0; i < FIBERS; i++)
        fibers[i] = i % 2 ? guest_spawn(sleep_50, NULL) : guest_spawn_on_fiber("sleeps", sleep_50, NULL);
    CHECK(guest_blocking(returns_4, NULL) == 4);
    CHECK(upcall_shutdown(30000) == 0);
    check_threads_gone();
    for (int i = 0; i < FIBERS; i++) {
        CHECK(guest_is_finished(fibers[i]));
        CHECK(guest_join(fibers[i]) == 5);
    }
    CHECK(upcall_shutdown(0) == 0);
    check_after(NULL);
    on_thread(NULL, 0, check_after, NULL);
}

static int spawn_late(void *unused) {
    CHECK(receive(unused) == 6);
    guest_fiber *late = guest_spawn(returns_4, NULL);
    CHECK(guest_is_finished(late)); /* refused: joining it would be a panic of this fiber */
    guest_detach(late);
    CHECK(guest_sleep(1) == 0 && guest_blocking(returns_4, NULL) == 4);
    return 6;
}

static void that_do_not_finish(void) {
    char message[1024];
    never = guest_channel_new(4);
    guest_fiber *stubborn = guest_spawn_on_fiber("stubborn", spawn_late, NULL);
    guest_fiber *finishes = guest_spawn_on_fiber("finishes", sleep_50, NULL);
    double began = milliseconds(CLOCK_MONOTONIC);
    CHECK(upcall_shutdown(200) == -1);
    double took = milliseconds(CLOCK_MONOTONIC) - began;
    CHECK(took >= 199 && took < 10000);
    CHECK(guest_is_finished(finishes) && !guest_is_finished(stubborn));
    CHECK(guest_join(finishes) == 5);
    CHECK(upcall_shutdown(1) == -1);
    CHECK(upcall_last_message(message, sizeof message) > 0);
    puts(message);
    CHECK(strstr(message, "shutdown ran out of time: a fiber has not ended\n  stubborn, spawned at "));
    CHECK(strstr(message, "waiting.rs:") && strstr(message, ", waits at ") && strstr(message, " on upcall-"));
    CHECK(!strstr(message, "finishes"));
    check_closing(NULL);
    CHECK(guest_send(never, 6) == 0);
    CHECK(guest_join(stubborn) == 6);
    CHECK(upcall_shutdown(10000) == 0);
    check_threads_gone();
    check_after(NULL);
}

/* Fibers stuck in C, on a worker and on a thread for blocking calls. */
static int gates[2][2];
static _Atomic int stuck;

static int read_gate(void *gate) {
    char byte;
    stuck++;
    return (int)read(*(int *)gate, &byte, 1);
}

static void *read_blocking(void *unused) {
    CHECK(guest_blocking(read_gate, gates[1]) == 1);
    return unused;
}

static void that_are_stuck(void) {
    pthread_t thread;
    CHECK(pipe(gates[0]) == 0 && pipe(gates[1]) == 0);
    CHECK(pthread_create(&thread, NULL, read_blocking, NULL) == 0);
    guest_fiber *fiber = guest_spawn_on_fiber("stuck", read_gate, gates[0]);
    while (stuck < 2)
        usleep(100);
    CHECK(upcall_shutdown(50) == -1);
    CHECK(last_panic_says("a fiber has not ended\n  unnamed, spawned at ") && last_panic_says(", runs on upcall-"));
    CHECK(write(gates[0][1], "x", 1) == 1 && guest_join(fiber) == 1);
    CHECK(upcall_shutdown(1000) == -1 && last_panic_says("a blocking call has not returned"));
    check_after(NULL);
    CHECK(write(gates[1][1], "x", 1) == 1 && pthread_join(thread, NULL) == 0);
    CHECK(upcall_shutdown(10000) == 0);
    check_threads_gone();
    check_after(NULL);
}

/* With a time limit of 0, either everything is done, or the message names the rest. */
static void at_once(void) {
    CHECK(guest_join(guest_spawn(returns_4, NULL)) == 4);
    for (int i = 0; i < FIBERS; i++)
        guest_detach(guest_spawn(returns_4, NULL));
    while (upcall_shutdown(0) == -1) {
        CHECK(!last_panic_says("time: 0 "));
        CHECK(guest_panic("another") == -1);
    }
    check_threads_gone();
}

/* Several threads call it at once. When it returns in any of them, no worker remains, not even one
 * with a slow exit. */
static pthread_key_t key;
static _Atomic int workers, gone;

static void exit_slowly(void *unused) {
    (void)unused;
    usleep(300000);
    gone++;
}

static int on_worker(void *unused) {
    if (!pthread_getspecific(key)) {
        CHECK(pthread_setspecific(key, &key) == 0);
        workers++;
    }
    return sleep_50(unused);
}

static void *shut_down(void *unused) {
    CHECK(upcall_shutdown(20000) == 0);
    CHECK(workers > 0 && gone == workers);
    return unused;
}

static void from_two_threads(void) {
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    CHECK(pthread_key_create(&key, exit_slowly) == 0);
    for (int i = 0; i < FIBERS; i++)
        guest_detach(guest_spawn(on_worker, NULL));
    while (workers == 0)
        usleep(100);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, shut_down, NULL) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    check_threads_gone();
    check_after(NULL);
}

/* Called in a worker's fiber, still running during the call, and in a fiber of the thread's own
 * runtime. */
static int shut_down_in_fiber(void *unused) {
    CHECK(upcall_shutdown(20) == -1);
    CHECK(last_panic_says("a fiber has not ended\n  unnamed, spawned at ") && last_panic_says(", runs on upcall-"));
    return returns_4(unused);
}

static int shut_down_in_local_fiber(void *unused) {
    shut_down(unused);
    return 9;
}

static void from_fibers(void) {
    CHECK(pthread_key_create(&key, exit_slowly) == 0);
    CHECK(guest_join(guest_spawn(on_worker, NULL)) == 5);
    CHECK(guest_join(guest_spawn_on_fiber("itself", shut_down_in_fiber, NULL)) == 4);
    CHECK(upcall_local_begin() == 0);
    CHECK(guest_join(guest_spawn_local(shut_down_in_local_fiber, NULL)) == 9);
    CHECK(upcall_local_end() == 0);
    check_after(NULL);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"nothing_started", nothing_started},
        {"that_finish", that_finish},
        {"that_do_not_finish", that_do_not_finish},
        {"that_are_stuck", that_are_stuck},
        {"at_once", at_once},
        {"from_two_threads", from_two_threads},
        {"from_fibers", from_fibers},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
