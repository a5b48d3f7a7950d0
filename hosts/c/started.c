/* C starts operations, waits for them, cancels them, and is told once of each end. */
#include "forks.h"

/* A completion's calls: their number, the last status and thread. */
struct told {
    volatile int calls, status;
    pthread_t by;
    upcall_task *task;
};

static void hear(void *data, upcall_task *task, int status) {
    struct told *told = data;
    told->status = status;
    told->by = pthread_self();
    told->task = task;
    __atomic_add_fetch(&told->calls, 1, __ATOMIC_SEQ_CST);
}

static int calls(struct told *told) { return __atomic_load_n(&told->calls, __ATOMIC_SEQ_CST); }

static void wait_for_call(struct told *told) {
    for (int i = 0; !calls(told); i++) {
        CHECK(i < 10000);
        usleep(1000);
    }
}

/* Each kind of executor, and of first poll. */
static const unsigned OPTIONS[] = {0, GUEST_ON_WORKERS, GUEST_LATER, GUEST_ON_WORKERS | GUEST_LATER};
enum { KINDS = sizeof OPTIONS / sizeof OPTIONS[0] };

static void ends(void) {
    static const struct {
        enum guest_operation operation;
        int status;
        const char *message;
    } ends[] = {
        {GUEST_VALUE, UPCALL_TASK_DONE, NULL},
        {GUEST_ERROR, UPCALL_TASK_FAILED, "no such name: the list is empty"},
        {GUEST_PANIC, UPCALL_TASK_PANICKED, "the task panicked: out of names"},
        {GUEST_NEVER, UPCALL_TASK_CANCELLED, "the task was cancelled"},
    };
    int alive = guest_operations_alive(); /* in the child of a fork, those of the parent */
    for (int kind = 0; kind < KINDS; kind++) {
        for (unsigned i = 0; i < sizeof ends / sizeof ends[0]; i++) {
            for (unsigned ms = 0; ms < 4; ms += 3) {
                struct told told = {0};
                int value = 0;
                upcall_task *task = guest_start(ends[i].operation, ms, OPTIONS[kind], hear, &told);
                CHECK(task);
                if (ends[i].operation == GUEST_NEVER) {
                    CHECK(upcall_task_wait(task, 1) == UPCALL_TASK_RUNNING && upcall_task_status(task) == UPCALL_TASK_RUNNING);
                    CHECK(guest_task_value(task, &value) == -1 && last_panic_says("has not ended"));
                    CHECK(upcall_task_cancel(task) == 0 && upcall_task_cancel(task) == 0);
                }
                CHECK(upcall_task_wait(task, -1) == ends[i].status);
                CHECK(!ends[i].message || last_panic_says(ends[i].message));
                wait_for_call(&told);
                CHECK(told.status == ends[i].status && told.task == task);
                CHECK(guest_task_value(task, &value) == (ends[i].message ? -1 : 0));
                CHECK(ends[i].message ? last_panic_says(ends[i].message) : value == 7);
                CHECK(guest_task_value(task, &value) == -1);
                CHECK(upcall_task_status(task) == ends[i].status);
                CHECK(upcall_task_free(task, 1) == 0);
                CHECK(calls(&told) == 1);
            }
        }
    }
    struct told told = {0};
    upcall_task *task = guest_start_with_deadline(5, hear, &told);
    CHECK(upcall_task_wait(task, 10000) == UPCALL_TASK_DEADLINE_EXCEEDED && last_panic_says("deadline"));
    wait_for_call(&told);
    CHECK(upcall_task_free(task, 0) == 0);
    CHECK(guest_operations_alive() == alive && guest_running_tasks() == 0);
}

/* An operation that is ready at once is told of inside the start, on its thread. */
static void at_once(void) {
    struct told told = {0};
    upcall_task *task = guest_start(GUEST_VALUE, 0, 0, hear, &told);
    CHECK(calls(&told) == 1 && told.task == task && pthread_equal(told.by, pthread_self()));
    CHECK(threads_named("upcall") == 0);
    CHECK(upcall_task_free(task, 0) == 0);
}

static void misused(void) {
    upcall_task *task = guest_start(GUEST_VALUE, 0, 0, NULL, NULL), *others[] = {NULL, (upcall_task *)&task, task};
    CHECK(upcall_task_free(task, 0) == 0);
    for (unsigned i = 0; i < 3; i++) {
        CHECK(upcall_task_wait(others[i], -1) == -1 && last_panic_says("task_wait: "));
        CHECK(upcall_task_status(others[i]) == -1 && last_panic_says("task_status: "));
        CHECK(upcall_task_cancel(others[i]) == -1 && last_panic_says("task_cancel: "));
        CHECK(task_event(others[i]) == NO_EVENT && last_panic_says("task_" EVENT ": "));
        CHECK(upcall_task_next(others[i], 0) == -1 && last_panic_says("task_next: "));
        CHECK(upcall_task_free(others[i], 1) == -1 && last_panic_says("task_free: "));
    }
    CHECK(last_panic_says("freed already"));
    task = guest_start(GUEST_NEVER, 0, 0, NULL, NULL);
    CHECK(upcall_task_next(task, -1) == -1 && last_panic_says("does not come in parts"));
    CHECK(upcall_task_free(task, 1) == 0);
}

/* A completion that frees its own task, starts the next one, waits, and panics. */
static void chain(void *data, upcall_task *task, int status) {
    struct told *told = data;
    int value = 0;
    CHECK(status == UPCALL_TASK_DONE);
    CHECK(upcall_task_wait(task, -1) == status && guest_task_value(task, &value) == 0 && value == 7);
    CHECK(guest_sleep(1) == 0);
    CHECK(upcall_task_free(task, 1) == 0 && upcall_task_free(task, 1) == -1);
    if (__atomic_add_fetch(&told->calls, 1, __ATOMIC_SEQ_CST) < 40)
        CHECK(guest_start(GUEST_VALUE, told->calls % 2, OPTIONS[told->calls % KINDS], chain, told));
    CHECK(guest_panic("in a completion") == -1);
}

static void chained(void) {
    struct told told = {0};
    CHECK(guest_start(GUEST_VALUE, 1, 0, chain, &told));
    for (int i = 0; calls(&told) < 40 || guest_running_tasks(); i++) {
        CHECK(i < 10000);
        usleep(1000);
    }
    CHECK(guest_operations_alive() == 0);
}

/* ---- the host's own event loop ---- */

static void descriptors(void) {
    upcall_task *task = guest_start(GUEST_VALUE, 20, 0, NULL, NULL);
    event told = task_event(task);
    CHECK(told != NO_EVENT && task_event(task) == told && !is_signalled(told, 0));
    CHECK(upcall_task_wait(task, 1) == UPCALL_TASK_RUNNING && !is_signalled(told, 0));
    CHECK(is_signalled(told, 10000) && upcall_task_status(task) == UPCALL_TASK_DONE);
    CHECK(is_signalled(told, 0)); /* level-triggered */
    CHECK(upcall_task_free(task, 0) == 0);
    task = guest_start(GUEST_VALUE, 0, 0, NULL, NULL);
    CHECK(is_signalled(task_event(task), 0));
    CHECK(upcall_task_free(task, 0) == 0);

    /* In parts: signalled while there is one, and at the end. */
    int part = -1;
    task = guest_start_parts(3, 1, NULL, NULL);
    told = task_event(task);
    for (int i = 0; i < 3; i++) {
        CHECK(is_signalled(told, 10000) && upcall_task_next(task, 0) == 1);
        CHECK(upcall_task_wait(task, 0) >= 0 && is_signalled(told, 0)); /* the part is still there */
        CHECK(guest_task_part(task, &part) == 1 && part == i);
    }
    CHECK(is_signalled(told, 10000) && upcall_task_next(task, -1) == 2);
    CHECK(guest_task_part(task, &part) == 0 && upcall_task_status(task) == UPCALL_TASK_DONE);
    CHECK(upcall_task_free(task, 0) == 0);
    int before = open_descriptors();
    for (int i = 0; i < 100; i++) {
        task = guest_start(GUEST_NEVER, 0, 0, NULL, NULL);
        CHECK(task_event(task) != NO_EVENT && upcall_task_free(task, 1) == 0);
    }
    for (int i = 0; guest_operations_alive() || open_descriptors() > before; i++) {
        CHECK(i < 10000);
        usleep(1000);
    }
}

static void run_until_told(struct told *told, int all) {
    for (int woken = 0; calls(told) < all; woken++) {
        CHECK(woken < 1000 && is_signalled(local_event(), 10000));
        CHECK(upcall_local_run_ready(SIZE_MAX) >= 0);
    }
}

static void on_a_loop(void) {
    struct told told = {0};
    CHECK(upcall_local_begin() == 0);
    for (int kind = 0; kind < KINDS; kind++) {
        told.calls = 0;
        upcall_task *task = guest_start(GUEST_VALUE, 1, OPTIONS[kind] | GUEST_ON_LOOP, hear, &told);
        usleep(5000);
        CHECK(calls(&told) == 0);
        run_until_told(&told, 1);
        CHECK(pthread_equal(told.by, pthread_self()) && told.task == task);
        CHECK(upcall_task_free(task, 0) == 0);
    }
    /* The operation itself runs there. */
    told.calls = 0;
    upcall_task *task = guest_start(GUEST_VALUE, 1, GUEST_LOCAL, hear, &told);
    run_until_told(&told, 1);
    CHECK(pthread_equal(told.by, pthread_self()));
    CHECK(upcall_task_free(task, 0) == 0);
    /* The end of the runtime is the end of its operations, and of the calls still to be made. */
    struct told lost = {0};
    told.calls = 0;
    task = guest_start(GUEST_NEVER, 0, GUEST_LOCAL, hear, &lost);
    upcall_task *ready = guest_start(GUEST_VALUE, 0, GUEST_ON_LOOP, hear, &told);
    CHECK(calls(&lost) == 0 && calls(&told) == 0);
    CHECK(upcall_local_end() == 0);
    CHECK(calls(&lost) == 1 && lost.status == UPCALL_TASK_LOST && calls(&told) == 1 && told.status == UPCALL_TASK_DONE);
    CHECK(upcall_task_status(task) == UPCALL_TASK_LOST && last_panic_says("executor has ended"));
    CHECK(upcall_task_free(task, 0) == 0 && upcall_task_free(ready, 0) == 0);
}

static void *starts_local_and_exits(void *told) {
    CHECK(upcall_local_begin() == 0);
    CHECK(guest_start(GUEST_NEVER, 0, GUEST_LOCAL, hear, told));
    return NULL;
}

static void at_thread_exit(void) {
    struct told told = {0};
    on_thread(NULL, 0, starts_local_and_exits, &told);
    CHECK(calls(&told) == 1 && told.status == UPCALL_TASK_LOST);
    CHECK(guest_operations_alive() == 0);
}

static int waiters;

static void waits_for(void *task) {
    CHECK(upcall_task_wait(task, -1) == UPCALL_TASK_DONE);
    waiters++;
}

static void on_fibers(void) {
    upcall_task *task = guest_start(GUEST_VALUE, 20, 0, NULL, NULL);
    CHECK(upcall_local_begin() == 0);
    for (int i = 0; i < 10; i++)
        CHECK(upcall_local_spawn(waits_for, task) == 0);
    CHECK(upcall_local_run_ready(SIZE_MAX) == 10 && waiters == 0);
    while (waiters < 10) {
        CHECK(is_signalled(local_event(), 10000));
        CHECK(upcall_local_run_ready(SIZE_MAX) >= 0);
    }
    CHECK(upcall_local_end() == 0 && upcall_task_free(task, 0) == 0);
}

static void waits_then_yields(struct coroutine *c, void *task) {
    CHECK(upcall_task_wait(task, 1) == UPCALL_TASK_RUNNING);
    coroutine_yield(c);
    CHECK(upcall_task_wait(task, -1) == UPCALL_TASK_CANCELLED);
}

static void on_coroutines(void) {
    struct memory stack = memory_new(MALLOCED, 64 << 10);
    struct coroutine c;
    upcall_task *task = guest_start(GUEST_NEVER, 0, 0, NULL, NULL);
    coroutine_init(&c, stack.base, stack.size, waits_then_yields, task);
    coroutine_resume(&c);
    CHECK(upcall_task_cancel(task) == 0);
    coroutine_resume(&c);
    CHECK(upcall_task_free(task, 0) == 0);
    memory_free(stack);
}

/* ---- many threads ---- */

enum { THREADS = 4, ROUNDS = 3000 };
static struct told all_told;

static void *starts_many(void *number) {
    for (int i = 0; i < ROUNDS; i++) {
        enum guest_operation operation = (enum guest_operation)(i % 2 ? GUEST_VALUE : GUEST_NEVER);
        upcall_task *task = guest_start(operation, i % 3, OPTIONS[(i + (int)(intptr_t)number) % KINDS], hear, &all_told);
        CHECK(task);
        if (i % 5 == 0)
            CHECK(upcall_task_cancel(task) == 0);
        if (i % 7 == 0)
            CHECK(upcall_task_wait(task, operation == GUEST_VALUE ? -1 : 0) >= 0);
        CHECK(upcall_task_free(task, operation == GUEST_NEVER) == 0);
    }
    return number;
}

static void many(void) {
    pthread_t threads[THREADS];
    for (intptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, starts_many, (void *)i) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; calls(&all_told) < THREADS * ROUNDS; i++) {
        CHECK(i < 20000);
        usleep(1000);
    }
    usleep(10000);
    CHECK(calls(&all_told) == THREADS * ROUNDS);
    CHECK(guest_running_tasks() == 0 && guest_operations_alive() == 0);
}

/* ---- the end of the executor, and of the process ---- */

static void shut_down(void) {
    struct told soon = {0}, never[KINDS] = {{0}};
    upcall_task *tasks[KINDS], *ends = guest_start(GUEST_VALUE, 20, 0, hear, &soon);
    for (int kind = 0; kind < KINDS; kind++)
        tasks[kind] = guest_start(GUEST_NEVER, 0, OPTIONS[kind], hear, &never[kind]);
    upcall_task *on_worker = guest_start(GUEST_VALUE, 20, GUEST_ON_WORKERS, NULL, NULL);
    /* Those that end soon do so; the others are ended. */
    CHECK(upcall_shutdown(300) == 0);
    for (int kind = 0; kind < KINDS; kind++) {
        wait_for_call(&never[kind]);
        CHECK(never[kind].status == UPCALL_TASK_LOST && calls(&never[kind]) == 1);
        CHECK(upcall_task_wait(tasks[kind], -1) == UPCALL_TASK_LOST && last_panic_says("shutdown"));
        CHECK(upcall_task_free(tasks[kind], 0) == 0);
    }
    wait_for_call(&soon);
    CHECK(upcall_task_status(on_worker) == UPCALL_TASK_DONE && soon.status == UPCALL_TASK_DONE);
    CHECK(upcall_task_free(ends, 0) == 0 && upcall_task_free(on_worker, 0) == 0);
    CHECK(guest_operations_alive() == 0 && guest_running_tasks() == 0);
    CHECK(!guest_start(GUEST_VALUE, 0, 0, hear, &soon) && last_panic_says("shutdown has been called"));
    CHECK(calls(&soon) == 1);
    CHECK(upcall_local_begin() == 0);
    upcall_task *local = guest_start(GUEST_VALUE, 1, GUEST_LOCAL, NULL, NULL);
    CHECK(upcall_task_wait(local, -1) == UPCALL_TASK_DONE && upcall_task_free(local, 0) == 0);
}

#ifndef _WIN32
static struct told in_parent[KINDS];
static upcall_task *of_parent[KINDS], *finished;

static void tasks_of_the_parent(void) {
    for (int kind = 0; kind < KINDS; kind++) {
        CHECK(calls(&in_parent[kind]) == 0);
        CHECK(upcall_task_wait(of_parent[kind], -1) == UPCALL_TASK_LOST && last_panic_says("forked"));
        CHECK(calls(&in_parent[kind]) == 1 && in_parent[kind].status == UPCALL_TASK_LOST);
        CHECK(upcall_task_cancel(of_parent[kind]) == 0 && task_event(of_parent[kind]) != NO_EVENT);
        CHECK(is_signalled(task_event(of_parent[kind]), 0));
        CHECK(upcall_task_free(of_parent[kind], 1) == 0 && calls(&in_parent[kind]) == 1);
    }
    int value = 0;
    CHECK(guest_task_value(finished, &value) == 0 && value == 7 && upcall_task_free(finished, 0) == 0);
    /* Tasks of the child's own. */
    ends();
    CHECK(upcall_shutdown(5000) == 0);
}

static void forked(void) {
    finished = guest_start(GUEST_VALUE, 0, 0, NULL, NULL);
    for (int kind = 0; kind < KINDS; kind++) {
        of_parent[kind] = guest_start(GUEST_NEVER, 0, OPTIONS[kind], hear, &in_parent[kind]);
        CHECK(task_event(of_parent[kind]) != NO_EVENT);
    }
    in_child(tasks_of_the_parent);
    for (int kind = 0; kind < KINDS; kind++) {
        CHECK(calls(&in_parent[kind]) == 0 && upcall_task_free(of_parent[kind], 1) == 0);
        wait_for_call(&in_parent[kind]);
        CHECK(in_parent[kind].status == UPCALL_TASK_CANCELLED);
    }
    int value = 0;
    CHECK(guest_task_value(finished, &value) == 0 && upcall_task_free(finished, 0) == 0);
}

static struct told on_loop;

static void the_loop_goes_on(void) {
    run_until_told(&on_loop, 1);
    CHECK(on_loop.status == UPCALL_TASK_DONE && upcall_local_end() == 0);
}

static void forked_loop(void) {
    CHECK(upcall_local_begin() == 0);
    CHECK(guest_start(GUEST_VALUE, 30, GUEST_LOCAL, hear, &on_loop));
    in_child(the_loop_goes_on);
    the_loop_goes_on();
}
#endif

/* A completion that ends its thread: the thread sleeps, and others go on. */
static void end_thread(void *data, upcall_task *task, int status) {
    hear(data, task, status);
    pthread_exit(NULL);
}

static void thread_ends(void) {
#ifndef __GLIBC__
    return; /* pthread_exit unwinds nothing, and ends the thread */
#endif
    for (int kind = 0; kind < KINDS; kind++) {
        struct told told = {0};
        upcall_task *task = guest_start(GUEST_VALUE, 1, OPTIONS[kind], end_thread, &told);
        wait_for_call(&told);
        CHECK(upcall_task_wait(task, -1) == UPCALL_TASK_DONE && upcall_task_free(task, 0) == 0);
    }
    CHECK(guest_join(guest_spawn(returns_7, NULL)) == 7);
}

/* Nothing hangs or aborts at exit while operations run. */
static void at_exit(void) {
    for (int i = 0; i < 1000; i++)
        CHECK(guest_start(i % 2 ? GUEST_NEVER : GUEST_VALUE, i % 5, OPTIONS[i % KINDS], hear, &all_told));
    exit(0);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"ends", ends},
        {"at_once", at_once},
        {"misused", misused},
        {"chained", chained},
        {"descriptors", descriptors},
        {"on_a_loop", on_a_loop},
        {"at_thread_exit", at_thread_exit},
        {"on_fibers", on_fibers},
        {"on_coroutines", on_coroutines},
        {"many", many},
        {"shut_down", shut_down},
        {"thread_ends", thread_ends},
        {"at_exit", at_exit},
#ifndef _WIN32
        {"forked", forked},
        {"forked_loop", forked_loop},
#endif
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
