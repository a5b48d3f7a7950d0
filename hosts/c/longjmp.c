/* Hosts abandon Rust's frames by longjmp. On described stacks, memory stays flat; later calls are
 * right everywhere. */
#include "host.h"

#include <setjmp.h>

static int times(void) {
    const char *text = getenv("HOST_TIMES");
    return text ? atoi(text) : unoptimised() ? 300000 : 10000000;
}

/* ---- ways to leave, and depths from which to leave ---- */

enum way { LONGJMP, UNDERSCORE, SIGNALS, CONTEXT, WAYS };

static __thread enum way way;
static __thread jmp_buf plain;
static __thread sigjmp_buf with_signals;
static __thread ucontext_t context;
static __thread volatile int has_left;

static int leave(void *unused) {
    (void)unused;
    switch (way) {
    case LONGJMP: longjmp(plain, 1);
    case UNDERSCORE: _longjmp(plain, 1);
    case SIGNALS: siglongjmp(with_signals, 1);
    default: has_left = 1, setcontext(&context);
    }
    CHECK(!"came back");
    return 0;
}

static int leave_from_pooled(void *unused) { return guest_call_pooled(leave, unused); }
static int leave_from_in_place(void *unused) { return guest_call(leave, unused); }
static int leave_from_both(void *unused) { return guest_call_pooled(leave_from_in_place, unused); }

/* Calls Rust, which calls C, which leaves. The jump arrives in this function. */
static __attribute__((noinline)) void call_and_leave(int (*call)(guest_callback, void *), guest_callback from) {
    has_left = 0;
    switch (way) {
    case SIGNALS:
        if (sigsetjmp(with_signals, 0))
            return;
        break;
    case CONTEXT:
        CHECK(getcontext(&context) == 0);
        if (has_left)
            return;
        break;
    default:
        if (_setjmp(plain))
            return;
    }
    CHECK(call(from, NULL) == -1); /* refused */
}

/* ---- later calls are right ---- */

static int panics(void *message) { return guest_panic(message); }
static int returns_7(void *unused) {
    (void)unused;
    return 7;
}

static void calls_are_right(void) {
    char message[32] = "";
    CHECK(guest_increment(41) == 42);
    CHECK(guest_call(returns_7, NULL) == 7);
    CHECK(guest_call_pooled(returns_7, NULL) == 7);
    CHECK(guest_catch(panics, "after", message, sizeof message) == -2 && strcmp(message, "after") == 0);
    CHECK(guest_panic("alone") == -1 && last_panic_says("alone"));
}

/* ---- described stacks: any number of times ---- */

typedef int call(guest_callback, void *);

static void leaves_in_place(void) {
    for (int i = 0; i < times(); i++)
        call_and_leave(guest_call, leave);
}

static void leaves_pooled(void) {
    for (int i = 0; i < times(); i++)
        call_and_leave(guest_call_pooled, leave);
}

static void leaves_in_every_way(void) {
    static call *const calls[] = {guest_call, guest_call_pooled, guest_call_caller};
    static const guest_callback froms[] = {leave, leave_from_pooled, leave_from_in_place, leave_from_both};
    for (int i = 0; i < times() / 50; i++) {
        way = i % WAYS;
        call_and_leave(calls[i / WAYS % 3], froms[i / WAYS / 3 % 4]);
    }
    way = LONGJMP;
}

static void flat(void (*leaves)(void)) {
    leaves();
    calls_are_right();
    long before = resident_kib();
    int stacks = guest_stacks_in_use();
    leaves();
    calls_are_right();
    long grown = resident_kib() - before;
    printf("%d times over: %ld KiB more resident, %d stacks in use, %d calls open\n", times(), grown,
           guest_stacks_in_use(), guest_open_calls());
    CHECK(grown < 1024);
    CHECK(guest_stacks_in_use() <= stacks + 64 && stacks < 4096);
    CHECK(guest_open_calls() < 4096);
}

static void all_flat(void) {
    calls_are_right();
    struct guest_where here;
    guest_bounds(&here);
    if (!here.exact)
        return; /* the thread's own stack is unknown here */
    flat(leaves_in_place);
    flat(leaves_pooled);
    flat(leaves_in_every_way);
}

static void *all_flat_on_thread(void *unused) {
    all_flat();
    return unused;
}

/* A thread with abandoned calls leaves nothing behind at its exit. */
static void on_pthread(void) {
    CHECK(guest_empty() == 0);
    int stacks = guest_stacks_in_use();
    on_thread(NULL, 0, all_flat_on_thread, NULL);
    CHECK(guest_attached_threads() == 1);
    CHECK(guest_stacks_in_use() == stacks);
}

static void all_flat_on_coroutine(struct coroutine *c, void *unused) {
    (void)c;
    (void)unused;
    all_flat();
}

static void on_registered(void) {
    struct coroutine c;
    struct memory stack = memory_new(GUARDED, 512 << 10);
    void *registration = guest_register(stack.base, stack.size);
    CHECK(registration);
    coroutine_init(&c, stack.base, stack.size, all_flat_on_coroutine, NULL);
    coroutine_resume(&c);
    CHECK(c.done);
    guest_unregister(registration);
}

/* ---- undescribed stacks: up to the limit ---- */

enum { LIMIT = 1000 };

static void leave_until_refused(struct coroutine *c, void *left) {
    (void)c;
    for (;;) {
        way = *(int *)left % WAYS;
        if (guest_empty() == -1)
            break;
        call_and_leave(guest_call, leave);
        ++*(int *)left;
    }
}

static void leave_often(struct coroutine *c, void *unused) {
    (void)c;
    (void)unused;
    way = LONGJMP;
    for (int i = 0; i < 100000; i++)
        call_and_leave(guest_call, leave);
    calls_are_right();
}

static void undescribed(void) {
    if (no_query())
        return; /* the thread's own stack is undescribed, too */
    struct coroutine c;
    struct memory stack = memory_new(GUARDED, 256 << 10);
    int left = 0;
    calls_are_right();
    coroutine_init(&c, stack.base, stack.size, leave_until_refused, &left);
    coroutine_resume(&c);
    CHECK(c.done);
    printf("%d calls left, then refused\n", left);
    CHECK(left >= LIMIT / 2 && left <= LIMIT);
    CHECK(last_panic_says("register its stacks"));
    CHECK(guest_open_calls() >= left);
    /* Calls elsewhere are served, and also on this stack once it is described. */
    calls_are_right();
    int in_use = guest_stacks_in_use();
    void *registration = guest_register(stack.base, stack.size);
    CHECK(registration);
    coroutine_init(&c, stack.base, stack.size, leave_often, NULL);
    coroutine_resume(&c);
    CHECK(c.done);
    CHECK(guest_stacks_in_use() <= in_use);
    guest_unregister(registration);
}

/* Suspended calls stay intact, however many others are abandoned. */
enum { SUSPENDED = 300 };
static struct coroutine suspended[SUSPENDED];

static int yields(void *c) {
    coroutine_yield(c);
    return ((struct coroutine *)c - suspended) + 1;
}

static void suspend(struct coroutine *c, void *unused) {
    (void)unused;
    CHECK(guest_call(yields, c) == (c - suspended) + 1);
    CHECK(guest_call_pooled(yields, c) == (c - suspended) + 1);
}

static void suspended_are_kept(void) {
    if (no_query())
        return;
    for (int i = 0; i < SUSPENDED; i++) {
        struct memory stack = memory_new(MALLOCED, 32 << 10);
        if (i % 2)
            CHECK(guest_register(stack.base, stack.size));
        coroutine_init(&suspended[i], stack.base, stack.size, suspend, NULL);
        coroutine_resume(&suspended[i]);
    }
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 100000; i++)
            call_and_leave(i % 2 ? guest_call_pooled : guest_call, leave);
        for (int i = 0; i < SUSPENDED; i++)
            coroutine_resume(&suspended[i]);
    }
    for (int i = 0; i < SUSPENDED; i++)
        CHECK(suspended[i].done);
    calls_are_right();
}

/* Abandons downcalls made outside any upcall of their own. They are on a pooled stack that returns
 * and is used again. */
static __attribute__((noinline)) int leaves_downcall(void *unused) {
    (void)unused;
    call_and_leave(guest_downcall, leave);
    return 7;
}

static void without_upcall(void) {
    if (no_query())
        return;
    for (int i = 0; i < 10000; i++)
        CHECK(guest_call_plain_pooled(leaves_downcall, NULL) == 7);
    CHECK(guest_open_calls() < 4096);
    flat(leaves_pooled);
}

/* C abandons extension stacks of fibers. When these stacks are used again, C does not stay on
 * them. */
static jmp_buf on_fiber;
static char *on_own;

static int jump_on_fiber(void *unused) {
    (void)unused;
    longjmp(on_fiber, 1);
}

static int leaves_further_stack(void *unused) {
    /* After this, the fiber's own stack has too little room for 160 KiB. */
    *(volatile char *)alloca(64 << 10) = 1;
    if (!_setjmp(on_fiber))
        guest_with_stack_on_own_fiber(160 << 10, jump_on_fiber, unused);
    return 0;
}

static __attribute__((noinline)) int nested_on_own(void *left) {
    char here;
    CHECK((size_t)(on_own - &here) < 4 << 20);
    return left ? guest_call_pooled(nested_on_own, (char *)left - 1) : 7;
}

/* Runs the fiber from further down than the scan for abandoned stacks. The offset within the page
 * varies, and so does the beginning of the pooled stacks. */
static __attribute__((noinline)) int run_fiber(int i) {
    *(volatile char *)alloca((2 << 20) + i * 208 % 4096) = 1;
    return guest_join(guest_spawn_local(leaves_further_stack, NULL));
}

static void of_fibers(void) {
    enum { FIBERS = 2000, NESTED = 300 };
    char here;
    if (no_query())
        return;
    on_own = &here;
    CHECK(upcall_local_begin() == 0);
    for (int i = 0; i < FIBERS; i++) {
        CHECK(run_fiber(i) == 0);
        if (i % 100 == 0)
            CHECK(nested_on_own((void *)NESTED) == 7);
    }
    CHECK(upcall_local_end() == 0);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"on_main", all_flat},
        {"on_pthread", on_pthread},
        {"on_registered", on_registered},
        {"undescribed", undescribed},
        {"suspended_are_kept", suspended_are_kept},
        {"of_fibers", of_fibers},
        {"without_upcall", without_upcall},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
