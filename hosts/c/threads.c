/* Threads of every kind, from their first upcall until after their end. */
#include "host.h"

#include <limits.h>

/* The stacks kept by the main thread for itself: none if its own stack is known and large
 * enough. */
static int mains;

static void attach_main(void) {
    CHECK(guest_empty() == 0);
    mains = guest_stacks_in_use();
    CHECK(mains == (no_query() ? 1 : 0));
}

static int returns_0(void *unused) {
    (void)unused;
    return 0;
}

static void *some_calls(void *argument) {
    for (int i = 0; i < 1000; i++)
        CHECK(guest_increment(i) == i + 1);
    CHECK(guest_call(returns_0, NULL) == 0);
    CHECK(guest_call_pooled(returns_0, NULL) == 0);
    return argument;
}

enum { THREADS = 64 };
static pthread_barrier_t barrier;

static void *call_together(void *argument) {
    pthread_barrier_wait(&barrier);
    some_calls(NULL);
    pthread_barrier_wait(&barrier); /* all are attached now */
    usleep(((size_t)argument * 37 % THREADS) * 300);
    return NULL;
}

/* The threads exit in an irregular order. */
static void sixty_four(void) {
    pthread_t threads[THREADS];
    pthread_barrier_init(&barrier, NULL, THREADS + 1);
    attach_main();
    for (size_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, call_together, (void *)i) == 0);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    for (int i = THREADS - 1; i >= 0; i--)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(guest_attached_threads() == 1);
    CHECK(guest_stacks_in_use() == mains);
}

static void detached(void) {
    pthread_attr_t attr;
    attach_main();
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    for (int i = 0; i < THREADS; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, &attr, some_calls, NULL) == 0);
    }
    for (int i = 0; guest_attached_threads() != 1 || guest_stacks_in_use() != mains; i++) {
        CHECK(i < 10000);
        usleep(1000);
    }
}

static void tiny_stacks(void) {
    for (int i = 0; i < 100; i++)
        on_thread(NULL, PTHREAD_STACK_MIN, some_calls, NULL);
    CHECK(guest_empty() == 0 && guest_attached_threads() == 1);
}

static void *one_pooled_call(void *argument) {
    CHECK(guest_call_pooled(returns_0, NULL) == 0);
    return argument;
}

/* An upcall runs in place if the stack has room for it and for the margin. */
static void *calls_by_size(void *unused) {
    enum { MIN_STACK = 128 << 10, MARGIN = 96 << 10, FRAMES = 16 << 10 };
    struct guest_where where;
    size_t size = (uintptr_t)&where - low_end();
    CHECK(guest_where(&where) == 0 && where.exact);
    if (!no_query())
        CHECK(where.own == (size >= MIN_STACK + MARGIN + FRAMES));
    return some_calls(unused);
}

/* The default size of a stack is 8 MiB with glibc, and 128 KiB with musl. */
static void of_each_size(void) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, calls_by_size, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    on_thread(NULL, PTHREAD_STACK_MIN, calls_by_size, NULL);
    for (size_t size = 64 << 10; size <= 16 << 20; size *= 2)
        on_thread(NULL, size, calls_by_size, NULL);
}

static void hundred_thousand(void) {
    long before = 0;
    for (int i = 0; i < 100000; i++) {
        if (i == 1000)
            before = resident_kib();
        on_thread(NULL, 64 << 10, one_pooled_call, NULL);
    }
    long grown = resident_kib() - before;
    printf("100,000 threads: %ld KiB more resident than after 1,000\n", grown);
    CHECK(grown < 512);
    CHECK(guest_stacks_in_use() == 0);
    CHECK(guest_empty() == 0 && guest_attached_threads() == 1);
}

/* Keys created before and after upcall's, with destructors that call Rust in every round made by
 * the system. */
static pthread_key_t before_ours, after_ours;
static int destructor_calls;

static void destroy(pthread_key_t key, intptr_t round) {
    CHECK(guest_increment(1) == 2);
    CHECK(guest_call_pooled(returns_0, NULL) == 0);
    CHECK(guest_call(returns_0, NULL) == 0);
    CHECK(guest_panic("in a key destructor") == -1);
    __atomic_add_fetch(&destructor_calls, 1, __ATOMIC_RELAXED);
    CHECK(pthread_setspecific(key, (void *)(round + 1)) == 0);
}

static void destroy_before(void *round) { destroy(before_ours, (intptr_t)round); }
static void destroy_after(void *round) { destroy(after_ours, (intptr_t)round); }

static void *with_keys(void *first_upcall) {
    if (first_upcall)
        CHECK(guest_call_pooled(returns_0, NULL) == 0);
    pthread_setspecific(before_ours, (void *)1);
    pthread_setspecific(after_ours, (void *)1);
    return NULL;
}

static void key_destructors(void) {
    CHECK(pthread_key_create(&before_ours, destroy_before) == 0);
    attach_main();
    CHECK(pthread_key_create(&after_ours, destroy_after) == 0);
    for (int i = 0; i < 20; i++) {
        destructor_calls = 0;
        on_thread(NULL, 0, with_keys, (void *)(intptr_t)(i % 2));
        CHECK(destructor_calls == 2 * PTHREAD_DESTRUCTOR_ITERATIONS);
        CHECK(guest_attached_threads() == 1);
        CHECK(guest_stacks_in_use() == mains);
    }
}

/* exit() in the middle of a nested upcall, with exit handlers that call Rust as the process's last
 * action. */
static int handlers_run;

static void at_exit_call(void) {
    handlers_run++;
    CHECK(guest_increment(handlers_run) == handlers_run + 1);
    CHECK(guest_call_pooled(returns_0, NULL) == 0);
    if (handlers_run == 2)
        puts("both handlers ran");
}

static int exits(void *unused) {
    (void)unused;
    exit(0);
}

static int nested_exit(void *unused) {
    (void)unused;
    return guest_call_pooled(exits, NULL);
}

static void exit_inside(void) {
    atexit(at_exit_call);
    atexit(at_exit_call);
    guest_call(nested_exit, NULL);
    CHECK(!"exit returned");
}

static void exit_on_coroutine_body(struct coroutine *c, void *unused) {
    (void)c;
    (void)unused;
    exit_inside();
}

static void exit_on_coroutine(void) {
    static struct coroutine c;
    struct memory stack = memory_new(GUARDED, 256 << 10);
    coroutine_init(&c, stack.base, stack.size, exit_on_coroutine_body, NULL);
    coroutine_resume(&c);
}

static void *exit_on_pthread_body(void *unused) {
    exit_inside();
    return unused;
}

static void exit_on_pthread(void) { on_thread(NULL, 0, exit_on_pthread_body, NULL); }

/* A host that cleans up after a thread finishes its coroutines in a key destructor, run before or
 * after upcall's. */
static pthread_key_t cleanup;

static void finish_coroutine(void *coroutine) {
    coroutine_resume(coroutine);
    CHECK(((struct coroutine *)coroutine)->done);
    CHECK(guest_call_pooled(returns_0, NULL) == 0);
}

static int yield_there(void *coroutine) {
    coroutine_yield(coroutine);
    return 0;
}

/* The coroutine is suspended in a downcall, or in C called as a plain function. Then only its stack
 * is in use. */
static int plainly;

static void call_yielding(struct coroutine *c, void *unused) {
    (void)unused;
    if (plainly)
        CHECK(guest_call_plain_then(yield_there, returns_0, c) == 0);
    else
        CHECK(guest_call(yield_there, c) == 0);
    CHECK(guest_call(returns_0, c) == 0);
}

static void *leave_suspended(void *stack) {
    struct coroutine *c = malloc(sizeof *c);
    coroutine_init(c, stack, 64 << 10, call_yielding, NULL);
    coroutine_resume(c);
    pthread_setspecific(cleanup, c);
    return NULL;
}

static void finished_by_destructor(void) {
    struct memory stack = memory_new(GUARDED, 64 << 10);
    for (int before = 0; before < 2; before++) {
        if (before)
            CHECK(pthread_key_create(&cleanup, finish_coroutine) == 0);
        attach_main();
        if (!before)
            CHECK(pthread_key_create(&cleanup, finish_coroutine) == 0);
        for (int i = 0; i < 20; i++) {
            plainly = i % 2;
            on_thread(NULL, 0, leave_suspended, stack.base);
        }
        CHECK(guest_attached_threads() == 1);
        CHECK(guest_stacks_in_use() == mains);
    }
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"sixty_four", sixty_four},
        {"detached", detached},
        {"tiny_stacks", tiny_stacks},
        {"of_each_size", of_each_size},
        {"hundred_thousand", hundred_thousand},
        {"key_destructors", key_destructors},
        {"exit_inside", exit_inside},
        {"exit_on_coroutine", exit_on_coroutine},
        {"exit_on_pthread", exit_on_pthread},
        {"finished_by_destructor", finished_by_destructor},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
