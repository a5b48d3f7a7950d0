/* Two coroutines of a thread call Rust in turn, on stacks of every kind. */
#include "host.h"

enum { ROUNDS = 2000 };

static void call_and_yield(struct coroutine *c, void *argument) {
    int *calls = argument;
    for (int i = 0; i < ROUNDS; i++) {
        struct guest_where where, bounds;
        CHECK(guest_increment(i) == i + 1);
        CHECK(guest_where(&where) == 0);
        /* This stack is undescribed, so the upcall runs on another one, with exact bounds. */
        CHECK(where.exact && !where.own && !within(where.low, where.high, &where));
        CHECK(where.sp - where.low >= 128 * 1024);
        guest_bounds(&bounds);
        CHECK(!bounds.exact && within(bounds.low, bounds.high, &bounds));
        ++*calls;
        coroutine_yield(c);
    }
}

static void check_own_stack(void) {
    struct guest_where where;
    CHECK(guest_where(&where) == 0);
    CHECK(where.exact);
    CHECK(no_query() || (where.own && within(where.low, where.high, &where)));
}

static void take_turns(char *stack_a, char *stack_b, size_t size) {
    struct coroutine a, b;
    int calls = 0;
    coroutine_init(&a, stack_a, size, call_and_yield, &calls);
    coroutine_init(&b, stack_b, size, call_and_yield, &calls);
    while (!a.done || !b.done) {
        if (!a.done)
            coroutine_resume(&a);
        if (!b.done)
            coroutine_resume(&b);
        check_own_stack();
    }
    CHECK(calls == 2 * ROUNDS);
}

static void *all_kinds(void *unused) {
    (void)unused;
    static const size_t sizes[] = {8 << 10, 16 << 10, 64 << 10, 256 << 10};
    for (int i = 0; i < 4; i++) {
        for (int kind = MALLOCED; kind <= GUARDED; kind++) {
            struct memory a = memory_new(kind, sizes[i]), b = memory_new(kind, sizes[i]);
            take_turns(a.base, b.base, sizes[i]);
            memory_free(a);
            memory_free(b);
        }
    }
    return NULL;
}

static void on_main(void) {
    guest_empty();
    all_kinds(NULL);
}

static void on_pthread(void) { on_thread(NULL, 0, all_kinds, NULL); }

/* One block of memory for three stacks:
 *
 *     low │ coroutine a │ thread's stack │ coroutine b │ high
 */
static char *block;
enum { PART = 256 << 10 };

static void *between(void *unused) {
    (void)unused;
    check_own_stack();
    take_turns(block, block + 2 * PART, PART);
    return NULL;
}

static void above_and_below(void) {
    block = memory_new(GUARDED, 3 * PART).base;
    on_thread(block + PART, PART, between, NULL);
}

static void *first_on_coroutine_of_this_thread(void *unused) {
    (void)unused;
    /* The thread's very first upcall comes from a coroutine. Its own stack is still found. */
    struct memory a = memory_new(GUARDED, 64 << 10), b = memory_new(GUARDED, 64 << 10);
    take_turns(a.base, b.base, 64 << 10);
    check_own_stack();
    return NULL;
}

static void first_on_coroutine(void) { first_on_coroutine_of_this_thread(NULL); }
static void first_on_coroutine_pthread(void) { on_thread(NULL, 0, first_on_coroutine_of_this_thread, NULL); }

/* The host registers its stacks, and upcalls run on them in place. */
static void on_registered(struct coroutine *c, void *argument) {
    struct memory *stack = argument;
    for (int i = 0; i < ROUNDS; i++) {
        struct guest_where where;
        CHECK(guest_where(&where) == 0);
        CHECK(where.exact && !where.own);
        CHECK(where.low == (uintptr_t)stack->base && where.high == (uintptr_t)stack->base + stack->size);
        coroutine_yield(c);
    }
}

static void registered(void) {
    struct memory a = memory_new(GUARDED, 512 << 10), b = memory_new(GUARDED, 512 << 10);
    void *ra = guest_register(a.base, a.size), *rb = guest_register(b.base, b.size);
    CHECK(ra && rb && !guest_register(a.base, a.size));
    struct coroutine ca, cb;
    coroutine_init(&ca, a.base, a.size, on_registered, &a);
    coroutine_init(&cb, b.base, b.size, on_registered, &b);
    while (!ca.done || !cb.done) {
        coroutine_resume(&ca);
        coroutine_resume(&cb);
        check_own_stack();
    }
    guest_unregister(ra);
    guest_unregister(rb);
    /* The same memory is a foreign stack again. */
    take_turns(a.base, b.base, a.size);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"on_main", on_main},
        {"on_pthread", on_pthread},
        {"above_and_below", above_and_below},
        {"first_on_coroutine", first_on_coroutine},
        {"first_on_coroutine_pthread", first_on_coroutine_pthread},
        {"registered", registered},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
