/* Stacks registered by a host: refusals, the bounds found by upcalls, and the uses that prevent
 * unregistering. */
#include "host.h"

#define SIZE (256 << 10)

static struct memory stack;

static char *map_stack(void) {
    stack = memory_new(GUARDED, SIZE);
    return stack.base;
}

/* The call fails, with a message that contains `text`. */
#define REFUSED(call, text)                                                                    \
    do {                                                                                       \
        CHECK((call) == -1);                                                                   \
        CHECK(last_panic_says(text));                                                          \
    } while (0)

static void errors(void) {
    char *base = map_stack(), other[64], name[] = "first";
    int local;
    CHECK(upcall_stack_register(base, SIZE, name) == 0);
    memset(name, 'x', sizeof name - 1); /* the library has copied it */
    snprintf(other, sizeof other, "\"first\", %#zx..%#zx", (size_t)base, (size_t)base + SIZE);

    REFUSED(upcall_stack_register(NULL, SIZE, "null"), "stack_register: the stack's low end is null");
    REFUSED(upcall_stack_register(base - 4096, 0, "empty"), "stack_register: the stack is empty");
    REFUSED(upcall_stack_register(base, (size_t)-4096, "wraps"), "past the end of the address space");
    REFUSED(upcall_stack_register(base, SIZE, "twice"), other);
    REFUSED(upcall_stack_register(base + SIZE - 16, 4096, "its end"), other);
    REFUSED(upcall_stack_register(base - 16, 17, "its beginning"), other);
    REFUSED(upcall_stack_register(base - 4096, SIZE + 8192, "all of it"), "unregister that first");
    if (!no_query())
        REFUSED(upcall_stack_register(&local, sizeof local, "ours"), "overlaps the calling thread's own");

    REFUSED(upcall_stack_unregister(NULL), "stack_unregister: no stack is registered at 0x0");
    REFUSED(upcall_stack_unregister(base - 4096), "no stack is registered at");
    REFUSED(upcall_stack_unregister(base + 4096), "pass its lowest address");
    REFUSED(upcall_stack_unregister(base + 4096), other);
    CHECK(upcall_stack_unregister(base) == 0);
    REFUSED(upcall_stack_unregister(base), "was unregistered already");
    /* C cannot unregister a stack registered by Rust. */
    void *registration = guest_register(base, SIZE);
    REFUSED(upcall_stack_unregister(base), "by stack_register");
    REFUSED(upcall_stack_register(base, SIZE, NULL), "already registered");
    guest_unregister(registration);
    /* No trace of it all remains. */
    CHECK(upcall_stack_register(base, SIZE, NULL) == 0 && upcall_stack_unregister(base) == 0);
}

/* ---- upcalls on a registered stack ---- */

static struct guest_where here;

static int look(void *unused) {
    (void)unused;
    return guest_where(&here);
}

static void look_around(struct coroutine *c, void *answer) {
    (void)c;
    *(int *)answer = guest_where(&here) == 0 && guest_call(look, NULL) == 0;
}

static int bounds_from(char *base) {
    struct coroutine c;
    int done = 0;
    coroutine_init(&c, base, SIZE, look_around, &done);
    coroutine_resume(&c);
    CHECK(c.done && done);
    return here.low == (uintptr_t)base && here.high == (uintptr_t)base + SIZE && here.exact && !here.own;
}

static void *bounds_there(void *base) {
    CHECK(bounds_from(base));
    return NULL;
}

/* On every thread, from registering to unregistering, bounds are exact, and upcalls run in
 * place. */
static void bounds(void) {
    char *base = map_stack();
    CHECK(!bounds_from(base) && within(here.low, here.high, (void *)here.sp));
    CHECK(upcall_stack_register(base, SIZE, NULL) == 0);
    CHECK(bounds_from(base));
    on_thread(NULL, 0, bounds_there, base);
    CHECK(upcall_stack_unregister(base) == 0);
    CHECK(!bounds_from(base));
    CHECK(upcall_stack_register(base, SIZE / 2, NULL) == 0);
    CHECK(upcall_stack_unregister(base) == 0);
}

static void count_in_place(struct coroutine *c, void *in_place) {
    (void)c;
    for (int i = 0; i < 100000; i++) {
        CHECK(guest_where(&here) == 0);
        *(int *)in_place += within((uintptr_t)stack.base, (uintptr_t)stack.base + SIZE, (void *)here.sp);
    }
}

static void in_place(void) {
    struct coroutine c;
    int count = 0;
    map_stack();
    CHECK(upcall_stack_register(stack.base, SIZE, "in place") == 0);
    coroutine_init(&c, stack.base, SIZE, count_in_place, &count);
    coroutine_resume(&c);
    CHECK(count == 100000);
    CHECK(upcall_stack_unregister(stack.base) == 0);
}

static int yields(void *c) {
    coroutine_yield(c);
    return 7;
}

static void yields_in_call(struct coroutine *c, void *answer) { *(int *)answer = guest_call(yields, c); }

#ifndef _WIN32
enum { MANY = 10000, EACH = 10, SMALL = 16 << 10 };

static struct coroutine coroutines[MANY];

/* Every tenth stack has a suspended call. Stacks are unregistered in another order than they were
 * registered. */
static void ten_thousand(void) {
    static int answers[MANY];
    char *all = mmap(NULL, (size_t)MANY * SMALL, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(all != MAP_FAILED);
    for (int i = 0; i < MANY; i++) {
        char name[32];
        snprintf(name, sizeof name, "stack %d", i);
        CHECK(upcall_stack_register(all + (size_t)i * SMALL, SMALL, name) == 0);
        coroutine_init(&coroutines[i], all + (size_t)i * SMALL, SMALL, yields_in_call, &answers[i]);
        if (i % EACH == 0)
            coroutine_resume(&coroutines[i]);
    }
    for (int i = 0; i < MANY; i++) {
        int k = (int)((long)i * 7919 % MANY);
        char *low = all + (size_t)k * SMALL;
        if (k % EACH == 0) {
            REFUSED(upcall_stack_unregister(low), "is in use: an upcall");
            coroutine_resume(&coroutines[k]);
            CHECK(coroutines[k].done && answers[k] == 7);
        }
        CHECK(upcall_stack_unregister(low) == 0);
    }
    CHECK(munmap(all, (size_t)MANY * SMALL) == 0);
}
#endif

/* ---- in use ---- */

static int unregister_refused(const char *text) {
    char thread[64];
    CHECK(upcall_stack_unregister(stack.base) == -1);
    CHECK(last_panic_says("stack_unregister: the registered stack \"in use\", "));
    CHECK(last_panic_says(text));
    snprintf(thread, sizeof thread, "on thread %#zx (", thread_number());
    return last_panic_says(thread);
}

static void pooled_then_yield(struct coroutine *c, void *answer) {
    *(int *)answer = guest_call_pooled(yields, c);
}

static void caller_then_yield(struct coroutine *c, void *answer) {
    *(int *)answer = guest_call_caller(yields, c);
}

/* A call is suspended in C under Rust, in place or on a pooled stack. After it has finished, the
 * stack is free. */
static void suspended(void) {
    void (*bodies[])(struct coroutine *, void *) = {yields_in_call, pooled_then_yield, caller_then_yield};
    map_stack();
    for (int i = 0; i < 3; i++) {
        struct coroutine c;
        int answer = 0;
        CHECK(upcall_stack_register(stack.base, SIZE, "in use") == 0);
        coroutine_init(&c, stack.base, SIZE, bodies[i], &answer);
        coroutine_resume(&c);
        CHECK(unregister_refused("is in use: an upcall (C → Rust) that was made at SP "));
        /* The refusal has changed nothing. */
        REFUSED(upcall_stack_register(stack.base, SIZE, "other"), "\"in use\"");
        CHECK(guest_open_calls() == 2);
        coroutine_resume(&c);
        CHECK(c.done && answer == 7);
        CHECK(upcall_stack_unregister(stack.base) == 0);
        CHECK(!bounds_from(stack.base));
    }
}

static void plain_then_yield(struct coroutine *c, void *answer) { *(int *)answer = guest_call_plain(yields, c); }

/* Rust has called C as a plain function. Only the thread itself knows of such a call, and only if
 * the upcall runs on another stack. */
static void suspended_in_plain_call(void) {
    struct coroutine c;
    int answer = 0;
    stack = memory_new(GUARDED, 64 << 10);
    CHECK(upcall_stack_register(stack.base, 64 << 10, "in use") == 0);
    coroutine_init(&c, stack.base, 64 << 10, plain_then_yield, &answer);
    coroutine_resume(&c);
    for (int i = 0; i < 20; i++)
        /* Other stacks of the thread come and go. */
        CHECK(guest_call_pooled(look, NULL) == 0);
    CHECK(upcall_stack_unregister(stack.base) == -1);
    CHECK(last_panic_says("is in use: an upcall (C → Rust) that left it at SP "));
    coroutine_resume(&c);
    CHECK(c.done && answer == 7);
    CHECK(upcall_stack_unregister(stack.base) == 0);
}

static pthread_barrier_t both;

static void *suspended_on_this_thread(void *number) {
    struct coroutine c;
    int answer = 0;
    *(size_t *)number = thread_number();
    name_thread("the other");
    coroutine_init(&c, stack.base, SIZE, yields_in_call, &answer);
    coroutine_resume(&c);
    pthread_barrier_wait(&both);
    pthread_barrier_wait(&both); /* main tries */
    coroutine_resume(&c);
    CHECK(c.done && answer == 7);
    pthread_barrier_wait(&both);
    pthread_barrier_wait(&both); /* main unregisters while this thread lives */
    return NULL;
}

static void suspended_elsewhere(void) {
    pthread_t thread;
    size_t number;
    char text[64];
    map_stack();
    CHECK(pthread_barrier_init(&both, NULL, 2) == 0);
    CHECK(upcall_stack_register(stack.base, SIZE, "in use") == 0);
    CHECK(pthread_create(&thread, NULL, suspended_on_this_thread, &number) == 0);
    pthread_barrier_wait(&both);
    snprintf(text, sizeof text, "on thread %#zx (the other)", number);
    CHECK(!unregister_refused(text));
    pthread_barrier_wait(&both);
    pthread_barrier_wait(&both);
    CHECK(upcall_stack_unregister(stack.base) == 0);
    pthread_barrier_wait(&both);
    CHECK(pthread_join(thread, NULL) == 0);
}

/* ---- unregistering by code on the stack ---- */

static int unregister_in_call(void *unused) {
    (void)unused;
    return unregister_refused("is in use: an upcall (C → Rust) that was made at SP ");
}

static void unregister_itself(struct coroutine *c, void *answer) {
    (void)c;
    CHECK(guest_call(unregister_in_call, NULL) == 1);
    CHECK(guest_call_pooled(unregister_in_call, NULL) == 1);
    CHECK(guest_call_plain(unregister_in_call, NULL) == 1);
    /* The coroutine's last action. */
    *(int *)answer = upcall_stack_unregister(stack.base);
}

/* On a stack with room for upcalls in place, and on one without. */
static void by_itself(void) {
    for (size_t size = SIZE; size >= 32 << 10; size /= 8) {
        struct coroutine c;
        int answer = -1;
        stack = memory_new(GUARDED, size);
        CHECK(upcall_stack_register(stack.base, size, "in use") == 0);
        coroutine_init(&c, stack.base, size, unregister_itself, &answer);
        coroutine_resume(&c);
        CHECK(c.done && answer == 0);
        CHECK(guest_open_calls() == 0);
    }
}

/* ---- fibers resumed from the stack ---- */

static guest_fiber *fiber;
static guest_channel *channel;

static int receive(void *unused) {
    (void)unused;
    return guest_receive(channel);
}

static void run_ready(struct coroutine *c, void *unused) {
    (void)c;
    (void)unused;
    while (upcall_local_run_ready(10) > 0)
        ;
}

static void run_fibers_there(void) {
    struct coroutine c;
    coroutine_init(&c, stack.base, SIZE, run_ready, NULL);
    coroutine_resume(&c);
    CHECK(c.done);
}

/* A suspended fiber no longer uses the stack from which it was resumed. */
static void of_fibers(void) {
    map_stack();
    channel = guest_channel_new(1);
    CHECK(upcall_local_begin() == 0);
    fiber = guest_spawn_local(receive, NULL);
    for (int i = 0; i < 2; i++) {
        CHECK(upcall_stack_register(stack.base, SIZE, "loop") == 0);
        run_fibers_there();
        CHECK(upcall_stack_unregister(stack.base) == 0);
    }
    CHECK(guest_send(channel, 9) == 0);
    while (upcall_local_run_ready(10) > 0)
        ;
    CHECK(guest_join(fiber) == 9);
    guest_channel_free(channel);
    CHECK(upcall_local_end() == 0);
}

static int unregister_in_fiber(void *unused) {
    (void)unused;
    CHECK(upcall_stack_unregister(stack.base) == -1);
    return last_panic_says("the registered stack \"loop\", ") && last_panic_says(" is in use: ");
}

static int unregister_once_in_fiber(void *unused) {
    CHECK(unregister_in_fiber(unused));
    return 0;
}

static int unregister_in_call_of_fiber(void *unused) { return guest_call(unregister_in_fiber, unused); }

/* A running fiber does use the stack from which it was resumed. */
static void in_fibers(void) {
    map_stack();
    CHECK(upcall_local_begin() == 0);
    CHECK(upcall_stack_register(stack.base, SIZE, "loop") == 0);
    guest_fiber *fibers[] = {
        guest_spawn_local(unregister_in_fiber, NULL),
        guest_spawn_local(unregister_in_call_of_fiber, NULL),
        guest_spawn_repeating(0, unregister_once_in_fiber, NULL),
    };
    run_fibers_there();
    for (int i = 0; i < 3; i++)
        CHECK(guest_join(fibers[i]) == (i < 2));
    CHECK(upcall_stack_unregister(stack.base) == 0);
    CHECK(upcall_local_end() == 0);
}

static int call_of_fiber_yields(void *c) { return guest_call(yields, c); }

static void run_ready_and_stop(struct coroutine *c, void *unused) {
    (void)unused;
    fiber = guest_spawn_local(call_of_fiber_yields, c);
    run_ready(c, NULL);
}

/* A fiber is resumed from the stack. C on the fiber's own stack then switches away. */
static void suspended_under_fiber(void) {
    struct coroutine c;
    map_stack();
    CHECK(upcall_local_begin() == 0);
    CHECK(upcall_stack_register(stack.base, SIZE, "in use") == 0);
    coroutine_init(&c, stack.base, SIZE, run_ready_and_stop, NULL);
    coroutine_resume(&c);
    CHECK(!c.done && guest_empty() == 0);
    REFUSED(upcall_stack_unregister(stack.base), "is in use: a fiber that left it at SP ");
    coroutine_resume(&c);
    CHECK(c.done && guest_join(fiber) == 7);
    CHECK(upcall_stack_unregister(stack.base) == 0);
    CHECK(upcall_local_end() == 0);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"errors", errors},
        {"bounds", bounds},
        {"in_place", in_place},
        {"suspended", suspended},
        {"suspended_in_plain_call", suspended_in_plain_call},
        {"suspended_elsewhere", suspended_elsewhere},
        {"suspended_under_fiber", suspended_under_fiber},
        {"by_itself", by_itself},
        {"in_fibers", in_fibers},
        {"of_fibers", of_fibers},
#ifndef _WIN32
        {"ten_thousand", ten_thousand},
#endif
        {NULL, NULL},
    };
    name_thread("the host"); /* some systems give threads no names */
    return run_case(cases, argc, argv);
}
