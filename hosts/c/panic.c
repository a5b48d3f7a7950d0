/* Panics never cross C as unwinding: C gets the declared value, and the downcall that encloses the upcall gets the panic. */
#include "host.h"

static char message[128];

static int panics(void *text) { return guest_panic(text) == -1 ? 5 : 6; }

/* Without an enclosing downcall, the message waits for C. */
static void without_downcall(void) {
    CHECK(upcall_last_panic(message, sizeof message) == -1);
    CHECK(guest_empty() == 0);
    CHECK(upcall_last_panic(message, sizeof message) == -1);
    CHECK(guest_panic("no such row") == -1);
    CHECK(upcall_last_panic(NULL, 0) == 11);
    CHECK(upcall_last_panic(message, sizeof message) == 11 && strcmp(message, "no such row") == 0);
    CHECK(upcall_last_panic(message, 4) == 11 && strcmp(message, "no ") == 0);
    CHECK(guest_increment(1) == 2);
}

static void one_frame(void) {
    CHECK(guest_catch(panics, "through one frame", message, sizeof message) == -2);
    CHECK(strcmp(message, "through one frame") == 0);
    CHECK(guest_open_calls() == 0);
}

/* Upcalls and downcalls in between that do not catch: the panic goes on through each. */
static int three_deep(void *text) { return guest_call_pooled(panics, text); }
static int two_deep(void *text) { return guest_call(three_deep, text); }

static void several_frames(void) {
    CHECK(guest_catch(two_deep, "through three", message, sizeof message) == -2);
    CHECK(strcmp(message, "through three") == 0);
}

/* The one that encloses it directly, and no other. */
static int inner_catch(void *text) {
    char inner[64];
    CHECK(guest_catch(panics, text, inner, sizeof inner) == -2 && strcmp(inner, text) == 0);
    return 9;
}

static void inner_only(void) { CHECK(guest_catch(inner_catch, "inner", message, sizeof message) == 9); }

/* Whether a panic on a coroutine, under a downcall on the thread's own stack, was raised there. Where it is not known
   which stack is the thread's own, nothing says that this downcall is beneath, and the panic is left for C. */
static int caught_outside(guest_callback callback, void *argument, int returned, const char *text) {
    memset(message, 0, sizeof message);
    int result = guest_catch(callback, argument, message, sizeof message);
    if (no_query()) {
        CHECK(result == returned);
        CHECK(upcall_last_panic(message, sizeof message) > 0);
    } else {
        CHECK(result == -2);
    }
    return strcmp(message, text) == 0;
}

/* The upcall comes from a coroutine above or below the stack of the downcall. */
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

/* Downcall and upcall on one coroutine: found by walking its frames. */
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
    /* With a downcall outside that must not get it. */
    CHECK(guest_catch(catches_on_coroutine, NULL, message, sizeof message) == 4);
}

/* A is suspended inside a downcall on its coroutine when B panics: A is not concerned. */
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
    /* B right below A, 8 KiB stacks: near enough to be mistaken for it. */
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
    CHECK(upcall_last_panic(message, sizeof message) > 0 && strcmp(message, "from b") == 0);
    CHECK(caught_outside(b_panics_while_a_waits, NULL, 2, "from b"));
}

/* Payloads are carried as they are; one that panics on drop harms nobody. */
static int bomb(void *unused) {
    (void)unused;
    return guest_panic_with_bomb();
}

static int bomb_and_panic(void *unused) {
    (void)unused;
    CHECK(guest_panic("came first") == -1);
    return guest_panic_with_bomb(); /* dropped: the first is on its way */
}

static void payloads(void) {
    CHECK(guest_panic_with_bomb() == -1);
    CHECK(upcall_last_panic(message, sizeof message) > 0 && strstr(message, "not a string"));
    CHECK(guest_catch(bomb, NULL, message, sizeof message) == -3);
    CHECK(guest_catch(bomb_and_panic, NULL, message, sizeof message) == -2);
    CHECK(strcmp(message, "came first") == 0);
    CHECK(guest_open_calls() == 0);
}

/* A destructor calls C, whose upcall panics, while another panic unwinds: raising the second would abort. */
static void while_dropping(void) {
    CHECK(guest_panic_while_dropping(panics, "the second panic") == -1);
    CHECK(upcall_last_panic(message, sizeof message) > 0 && strcmp(message, "the first panic") == 0);
    CHECK(guest_open_calls() == 0);
}

/* From a coroutine that has next to nothing left: the panic is seen to on the pooled stack, message, walk and all. */
static struct memory small;

static void panic_here(void) { message[0] = (char)guest_panic("from a small stack"); }

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
        CHECK(small_stack_under((void *)left) == 1);
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
        {"small_stack", small_stack},
        {"many", many},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
