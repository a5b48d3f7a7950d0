/* C → Rust → C → (another coroutine) → Rust → C → Rust …: the bounds are right at each level and
 * after each return. */
#include "host.h"

enum { LEVELS = 200 };

static struct coroutine coroutines[LEVELS];
static struct memory stacks[LEVELS];

static int descend(void *level);

static void check_here(int on_coroutine) {
    struct guest_where bounds, where;
    guest_bounds(&bounds);
    CHECK(within(bounds.low, bounds.high, &bounds));
    CHECK(bounds.exact == (!on_coroutine && !no_query()));
    CHECK(guest_where(&where) == 0 && where.exact);
    CHECK((where.low == bounds.low) == bounds.exact);
}

static void level_on_coroutine(struct coroutine *c, void *level) {
    (void)c;
    check_here(1);
    CHECK(guest_call(descend, level) == (int)(intptr_t)level);
    check_here(1);
}

static int descend(void *level) {
    intptr_t n = (intptr_t)level;
    check_here(n > 0);
    if (n + 1 < LEVELS) {
        stacks[n] = memory_new(n % 2 ? MALLOCED : GUARDED, 32 << 10);
        coroutine_init(&coroutines[n], stacks[n].base, 32 << 10, level_on_coroutine, (void *)(n + 1));
        coroutine_resume(&coroutines[n]);
        CHECK(coroutines[n].done);
        memory_free(stacks[n]);
    } else {
        /* One upcall and one downcall for each level, the thread's own stack included. */
        CHECK(guest_open_calls() == 2 * LEVELS);
    }
    check_here(n > 0);
    return (int)n;
}

static void over_200_stacks(void) {
    CHECK(guest_call(descend, (void *)0) == 0);
    CHECK(guest_open_calls() == 0);
    CHECK(guest_call(descend, (void *)0) == 0);
}

static void *over_200_stacks_there(void *unused) {
    (void)unused;
    over_200_stacks();
    return NULL;
}

static void over_200_stacks_pthread(void) { on_thread(NULL, 0, over_200_stacks_there, NULL); }

static int countdown(void *argument) {
    int *levels = argument;
    return --*levels > 0 ? guest_call(countdown, levels) + 1 : 0;
}

static void *ten_thousand_levels_there(void *unused) {
    for (int round = 0; round < 3; round++) {
        int levels = 10000;
        CHECK(guest_call(countdown, &levels) == 9999);
    }
    return unused;
}

static void ten_thousand_levels(void) { on_thread(NULL, 64 << 20, ten_thousand_levels_there, NULL); }

/* Every level is on a pooled stack, while C stays on the thread's own stack. */
static int countdown_pooled(void *argument) {
    int *levels = argument;
    char local;
    struct guest_where bounds;
    guest_bounds(&bounds);
    CHECK(no_query() || (bounds.own && within(bounds.low, bounds.high, &local)));
    return --*levels > 0 ? guest_call_pooled(countdown_pooled, levels) + 1 : 0;
}

static void pooled_levels(void) {
    int in_use = guest_stacks_in_use();
    int levels = 1000;
    CHECK(guest_call_pooled(countdown_pooled, &levels) == 999);
    /* Only the stacks kept by the thread itself. */
    CHECK(guest_stacks_in_use() <= in_use + 8);
}

/* Rust calls C without a downcall. C runs on the pooled stack, knows its bounds, and may call
 * back. */
static int on_pooled_stack(void *argument) {
    int *levels = argument;
    struct guest_where bounds;
    guest_bounds(&bounds);
    CHECK(bounds.exact && !bounds.own);
    CHECK(guest_increment(1) == 2);
    return --*levels > 0 ? guest_call_plain(on_pooled_stack, levels) + 1 : 0;
}

static int start_plain(void *argument) { return guest_call_plain(on_pooled_stack, argument); }

static void plain_on_coroutine(struct coroutine *c, void *argument) {
    (void)c;
    *(int *)argument = start_plain(argument);
}

static void plain_calls(void) {
    struct coroutine c;
    struct memory stack = memory_new(GUARDED, 64 << 10);
    int levels = 500;
    coroutine_init(&c, stack.base, stack.size, plain_on_coroutine, &levels);
    coroutine_resume(&c);
    CHECK(c.done && levels == 499);
}

/* Suspended upcalls return first in, first out, and the records stay right. */
enum { MANY = 1000 };
static struct coroutine many[MANY];

static int yield_inside(void *argument) {
    struct coroutine *c = argument;
    coroutine_yield(c);
    return (int)(c - many);
}

static void call_and_yield_inside(struct coroutine *c, void *unused) {
    (void)unused;
    CHECK(guest_call(yield_inside, c) == (int)(c - many));
}

static void first_in_first_out(void) {
    static struct memory memory[MANY];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < MANY; i++) {
            memory[i] = memory_new(GUARDED, 16 << 10);
            coroutine_init(&many[i], memory[i].base, 16 << 10, call_and_yield_inside, NULL);
            coroutine_resume(&many[i]);
        }
        CHECK(guest_stacks_in_use() >= MANY);
        for (int i = 0; i < MANY; i++) {
            /* 0, 7, 14 …: neither first nor last in, first out. */
            int j = round == 1 ? i * 7 % MANY : i;
            coroutine_resume(&many[j]);
            CHECK(many[j].done);
        }
        for (int i = 0; i < MANY; i++)
            memory_free(memory[i]);
        CHECK(guest_open_calls() == 0);
        CHECK(guest_stacks_in_use() <= 8);
    }
}

/* With UPCALL_IDLE_STACKS=0, stacks given back with their pages are not mistaken for stacks in
 * use. */
static int returns_5(void *unused) {
    (void)unused;
    return 5;
}

static void call_on_this_stack(struct coroutine *c, void *unused) {
    (void)c;
    (void)unused;
    CHECK(guest_call_caller(returns_5, NULL) == 5);
}

static void given_back_stacks(void) {
    first_in_first_out();
    struct coroutine c;
    struct memory stack = memory_new(MALLOCED, 64 << 10);
    coroutine_init(&c, stack.base, stack.size, call_on_this_stack, NULL);
    coroutine_resume(&c);
    CHECK(c.done);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"over_200_stacks", over_200_stacks},
        {"over_200_stacks_pthread", over_200_stacks_pthread},
        {"ten_thousand_levels", ten_thousand_levels},
        {"pooled_levels", pooled_levels},
        {"plain_calls", plain_calls},
        {"first_in_first_out", first_in_first_out},
        {"given_back_stacks", given_back_stacks},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
