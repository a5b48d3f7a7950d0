/* Panics never cross C as unwinding. C gets the declared value, and the downcall enclosing the
 * upcall gets the panic. */
#include "host.h"

static char message[128];

static int panics(void *text) { return guest_panic(text) == -1 ? 5 : 6; }

/* Without an enclosing downcall, only the message remains, for C to read. */
static void without_downcall(void) {
    CHECK(upcall_last_message(message, sizeof message) == -1);
    CHECK(guest_empty() == 0);
    CHECK(upcall_last_message(message, sizeof message) == -1);
    CHECK(guest_panic("no such row") == -1);
    CHECK(upcall_last_message(NULL, 0) == 11);
    CHECK(upcall_last_message(message, sizeof message) == 11 && strcmp(message, "no such row") == 0);
    CHECK(upcall_last_message(message, 4) == 11 && strcmp(message, "no ") == 0);
    CHECK(guest_increment(1) == 2);
}

static void one_frame(void) {
    CHECK(guest_catch(panics, "through one frame", message, sizeof message) == -2);
    CHECK(strcmp(message, "through one frame") == 0);
    CHECK(guest_open_calls() == 0);
}

/* The panic continues through all upcalls and downcalls in between that do not catch it. */
static int three_deep(void *text) { return guest_call_pooled(panics, text); }
static int two_deep(void *text) { return guest_call(three_deep, text); }

static void several_frames(void) {
    CHECK(guest_catch(two_deep, "through three", message, sizeof message) == -2);
    CHECK(strcmp(message, "through three") == 0);
}

/* Only the directly enclosing downcall gets the panic. */
static int inner_catch(void *text) {
    char inner[64];
    CHECK(guest_catch(panics, text, inner, sizeof inner) == -2 && strcmp(inner, text) == 0);
    return 9;
}

static void inner_only(void) { CHECK(guest_catch(inner_catch, "inner", message, sizeof message) == 9); }

/* Checks that a downcall on the thread's own stack gets a panic from a coroutine. Returns whether
 * `text` is the message.
 *
 * If the thread's own stack is unknown, nothing proves that the downcall is beneath the coroutine.
 * Then the panic is left for C. */
static int caught_outside(guest_callback callback, void *argument, int returned, const char *text) {
    memset(message, 0, sizeof message);
    int result = guest_catch(callback, argument, message, sizeof message);
    if (no_query()) {
        CHECK(result == returned);
        CHECK(upcall_last_message(message, sizeof message) > 0);
    } else {
        CHECK(result == -2);
    }
    return strcmp(message, text) == 0;
}

/* The upcall comes from a coroutine above or below the stack of the downcall:
 *
 *     low │ coroutine │ thread's stack │ coroutine │ high
 */
static char *block;
enum { PART = 256 << 10 };

static void panic_on_coroutine(struct coroutine *c, void *text) {
    (void)c;
    CHECK(panics(text) == 5);
}

static int via_coroutine(void *stack) {
    struct coroutine c;
    coroutine_init(&c, stack, PART, panic_on_coroutine, "from a coroutine");
    coroutine_resume(&c);
    CHECK(c.done);
    return 3;
}

static void *above_and_below_there(void *unused) {
    for (int i = 0; i < 3; i += 2) {
        CHECK(caught_outside(via_coroutine, block + i * PART, 3, "from a coroutine"));
    }
    return unused;
}

static void above_and_below(void) {
    block = memory_new(GUARDED, 3 * PART).base;
    on_thread(block + PART, PART, above_and_below_there, NULL);
}

/* The downcall and the upcall are on one coroutine. A walk over its frames finds the downcall. */
static void catch_on_coroutine(struct coroutine *c, void *unused) {
    (void)c;
    (void)unused;
    char inner[64];
    CHECK(guest_catch(panics, "on the same coroutine", inner, sizeof inner) == -2);
    CHECK(strcmp(inner, "on the same coroutine") == 0);
    CHECK(guest_catch(two_deep, "deeper", inner, sizeof inner) == -2 && strcmp(inner, "deeper") == 0);
}

static int catches_on_coroutine(void *unused) {
    struct coroutine c;
    struct memory stack = memory_new(GUARDED, 256 << 10);
    (void)unused;
    coroutine_init(&c, stack.base, stack.size, catch_on_coroutine, NULL);
    coroutine_resume(&c);
    CHECK(c.done);
    return 4;
}

static void same_coroutine(void) {
    CHECK(catches_on_coroutine(NULL) == 4);
    /* The outer downcall must not get the panic. */
    CHECK(guest_catch(catches_on_coroutine, NULL, message, sizeof message) == 4);
}

/* A is suspended inside a downcall on its coroutine when B panics. A does not get the panic. */
static struct coroutine a;

static int yield_a(void *unused) {
    (void)unused;
    coroutine_yield(&a);
    return 8;
}

static void catch_and_yield(struct coroutine *c, void *unused) {
    char inner[64];
    (void)c;
    (void)unused;
    CHECK(guest_catch(yield_a, NULL, inner, sizeof inner) == 8);
}

static int b_panics_while_a_waits(void *unused) {
    struct coroutine b;
    /* B is right below A, with 16 KiB each: near enough to be mistaken for it. */
    struct memory stacks = memory_new(GUARDED, 32 << 10);
    (void)unused;
    coroutine_init(&a, stacks.base + (16 << 10), 16 << 10, catch_and_yield, NULL);
    coroutine_resume(&a);
    coroutine_init(&b, stacks.base, 16 << 10, panic_on_coroutine, "from b");
    coroutine_resume(&b);
    coroutine_resume(&a);
    CHECK(a.done && b.done);
    return 2;
}

static void suspended_is_not_concerned(void) {
    CHECK(b_panics_while_a_waits(NULL) == 2);
    CHECK(upcall_last_message(message, sizeof message) > 0 && strcmp(message, "from b") == 0);
    CHECK(caught_outside(b_panics_while_a_waits, NULL, 2, "from b"));
}

/* Payloads arrive unchanged. A payload that panics on drop harms nobody. */
static int bomb(void *unused) {
    (void)unused;
    return guest_panic_with_bomb();
}

static int bomb_and_panic(void *unused) {
    (void)unused;
    CHECK(guest_panic("came first") == -1);
    return guest_panic_with_bomb(); /* dropped: the first panic is pending */
}

static void payloads(void) {
    CHECK(guest_panic_with_bomb() == -1);
    CHECK(upcall_last_message(message, sizeof message) > 0 && strstr(message, "not a string"));
    CHECK(guest_catch(bomb, NULL, message, sizeof message) == -3);
    CHECK(guest_catch(bomb_and_panic, NULL, message, sizeof message) == -2);
    CHECK(strcmp(message, "came first") == 0);
    CHECK(guest_open_calls() == 0);
}

/* While a panic unwinds, a destructor calls C, whose upcall panics. Raising the second panic would
 * abort. */
static void while_dropping(void) {
    CHECK(guest_panic_while_dropping(panics, "the second panic") == -1);
    CHECK(upcall_last_message(message, sizeof message) > 0 && strcmp(message, "the first panic") == 0);
    CHECK(guest_open_calls() == 0);
}

/* A function that gives C its own error: the panic does not continue. */
static int keeps(void *text) {
    CHECK(guest_panic_kept(text) == -1);
    CHECK(guest_serves() == 1 && !guest_panic_waits());
    return 7;
}

static void keep_on_coroutine(struct coroutine *c, void *text) {
    (void)c;
    CHECK(keeps(text) == 7);
}

static int keeps_on_coroutine(void *text) {
    struct coroutine c;
    struct memory stack = memory_new(GUARDED, 256 << 10);
    coroutine_init(&c, stack.base, stack.size, keep_on_coroutine, text);
    coroutine_resume(&c);
    CHECK(c.done);
    memory_free(stack);
    return 8;
}

static void kept(void) {
    CHECK(guest_catch(keeps, "kept", message, sizeof message) == 7);
    CHECK(guest_catch(keeps_on_coroutine, "kept", message, sizeof message) == 8);
    CHECK(upcall_last_message(message, sizeof message) == 4 && strcmp(message, "kept") == 0);
}

/* A function refuses calls after a panic, until the downcall that gets the panic has returned. */
static int serves(void *unused) {
    (void)unused;
    CHECK(guest_serves() == 1 && !guest_panic_waits());
    return 1;
}

static int refuses(void *text) {
    CHECK(serves(NULL) == 1);
    CHECK(guest_panic(text) == -1);
    for (int i = 0; i < 3; i++) {
        CHECK(guest_serves() == -2 && guest_panic_waits());
        CHECK(guest_call(serves, NULL) == 1 && guest_call_pooled(serves, NULL) == 1);
    }
    CHECK(upcall_last_message(message, sizeof message) > 0 && strcmp(message, text) == 0);
    return 1;
}

static void refuse_on_coroutine(struct coroutine *c, void *text) {
    (void)c;
    char inner[64];
    CHECK(guest_catch(refuses, text, inner, sizeof inner) == -2 && strcmp(inner, text) == 0);
    CHECK(serves(NULL) == 1);
}

static void after_a_panic(void) {
    CHECK(guest_catch(refuses, "came first", message, sizeof message) == -2);
    CHECK(strcmp(message, "came first") == 0);
    CHECK(serves(NULL) == 1);
    struct coroutine c;
    struct memory stack = memory_new(GUARDED, 256 << 10);
    coroutine_init(&c, stack.base, stack.size, refuse_on_coroutine, "on a coroutine");
    coroutine_resume(&c);
    CHECK(c.done);
    memory_free(stack);
}

/* A panic from a coroutine with almost no stack remaining is handled on the pooled stack, with its
 * message and walk. */
static struct memory small;
static bool under_downcall;

static void panic_here(void) {
    message[0] = (char)guest_panic("from a small stack");
    /* The check for a pending panic runs on a service stack. */
    int expected = no_query() ? 1 : -2;
    if (under_downcall) {
        CHECK(guest_serves() == expected);
    }
}

static void panic_with_little_left(struct coroutine *c, void *left) {
    (void)c;
    with_left((uintptr_t)small.base, (size_t)left, panic_here);
}

static int small_stack_under(void *left) {
    struct coroutine c;
    small = memory_new(GUARDED, 16 << 10);
    coroutine_init(&c, small.base, small.size, panic_with_little_left, left);
    coroutine_resume(&c);
    CHECK(c.done && message[0] == (char)-1);
    memory_free(small);
    return 1;
}

static void small_stack(void) {
    CHECK(guest_panic("bind the symbols") == -1);
    for (size_t left = 8 << 10; left >= (size_t)(unoptimised() ? 4 << 10 : 1 << 10); left /= 2) {
        under_downcall = false;
        CHECK(small_stack_under((void *)left) == 1);
        under_downcall = true;
        CHECK(caught_outside(small_stack_under, (void *)left, 1, "from a small stack"));
    }
}

static void many(void) {
    for (int i = 0; i < 2000; i++) {
        CHECK(guest_catch(two_deep, "again", message, sizeof message) == -2);
    }
    CHECK(guest_open_calls() == 0 && guest_stacks_in_use() <= 8);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"without_downcall", without_downcall},
        {"one_frame", one_frame},
        {"several_frames", several_frames},
        {"inner_only", inner_only},
        {"above_and_below", above_and_below},
        {"same_coroutine", same_coroutine},
        {"suspended_is_not_concerned", suspended_is_not_concerned},
        {"payloads", payloads},
        {"while_dropping", while_dropping},
        {"kept", kept},
        {"after_a_panic", after_a_panic},
        {"small_stack", small_stack},
        {"many", many},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
