/* Functions with the attribute upcall::export: the value for C after a panic or a refusal, and the
 * cases of an abort. */
#include "host.h"

static char message[256];

static void answers(void) {
    CHECK(guest_exported_divide(6, 3) == 2);
    CHECK(guest_exported_divide(6, 0) == -1 && last_panic_says("divide by zero"));
    guest_callback callback = guest_exported_pointer();
    CHECK(callback(message) == 1);
    CHECK(callback(NULL) == -1 && last_panic_says("nothing to work on"));
}

/* If an export names no value for C, C gets zero, of any type, while a panic is pending. */
static int all_panic(void *unused) {
    (void)unused;
    guest_exported_panic();
    CHECK(last_panic_says("no () to return"));
    CHECK(!guest_exported_panic_bool() && !guest_exported_panic_char() && !guest_exported_panic_size());
    CHECK(guest_exported_panic_double() == 0 && !guest_exported_panic_pointer());
    CHECK(!guest_exported_panic_callback() && !guest_exported_panic_box());
    CHECK(last_panic_says("Box<i32>> to return"));
    return 5;
}

static void zeros(void) {
    CHECK(guest_catch(all_panic, NULL, message, sizeof message) == -2);
    CHECK(strcmp(message, "no () to return") == 0);
}

/* Parameters are dropped on the stack of the body, and their panics are caught. */
static int ends(void *count) { return ++*(int *)count; }

static void parameters(void) {
    int one = 1, failed = 0, ended = 0;
    struct guest_pair pair = {10, 20};
    CHECK(guest_exported_sum(pair, 100, 1000, &one) == 1131);
    CHECK(guest_exported_sum(pair, 100, 1000, NULL) == 100);
    CHECK(guest_exported_sum(pair, -5, 1000, &one) == -1);
    CHECK(guest_exported_end(guest_exported_end_new(ends, &ended), &failed) == -1);
    CHECK(ended == 1 && failed == 1 && last_panic_says("dropped at its end"));
}

static struct guest_where own;
static int refused;

static void divide_with_little_left(void) { refused = guest_exported_divide(6, 3); }

static void *stacks_of_this_thread(void *unused) {
    struct guest_where where;
    guest_bounds(&own);
    guest_exported_where(&where);
    CHECK(!within(own.low, own.high, (void *)where.sp) || no_query());
    CHECK(!where.own && where.exact && where.sp - where.low >= 1 << 20);
    if (!no_query()) {
        with_left(own.low, 8 << 10, divide_with_little_left);
        CHECK(refused == -2 && last_panic_says("must run on the caller's stack"));
    }
    return unused;
}

static void stacks(void) { on_thread(NULL, 256 << 10, stacks_of_this_thread, NULL); }

/* A panic continues from downcall to downcall, and the calls made by C in between are served. */
static int count;

static int compares(void *unused) {
    int one = 1, two = 2;
    (void)unused;
    CHECK(guest_exported_compare(&count, &one, &two) == &two);
    CHECK(guest_exported_compare(&count, &two, &one) == NULL);
    CHECK(guest_exported_compare(&count, &two, &two) == NULL);
    CHECK(guest_exported_compare(&count, &one, &two) == &two);
    return 7;
}

static int calls_once(void *unused) { return guest_exported_call(compares, unused) == 0 ? 8 : 9; }
static int calls_twice(void *unused) { return guest_exported_call(calls_once, unused) == 0 ? 8 : 9; }

static void on_its_way(void) {
    CHECK(guest_catch(calls_twice, NULL, message, sizeof message) == -2);
    CHECK(strcmp(message, "comparison 2") == 0);
    CHECK(count == 4 && guest_open_calls() == 0);
}

/* Runs `body` on a coroutine. */
static void on_coroutine(void (*body)(struct coroutine *, void *), size_t size) {
    struct coroutine c;
    struct memory stack = memory_new(GUARDED, size);
    coroutine_init(&c, stack.base, stack.size, body, NULL);
    coroutine_resume(&c);
    CHECK(c.done);
    memory_free(stack);
}

static void panics_there(struct coroutine *c, void *unused) {
    (void)c;
    (void)unused;
    guest_exported_panic();
}

static void catches_there(struct coroutine *c, void *unused) {
    (void)c;
    (void)unused;
    on_its_way();
}

static void from_coroutine(void) { on_coroutine(catches_there, 64 << 10); }

static int fail(void *unused) {
    (void)unused;
    return guest_exported_error("no such row");
}

static void fails_there(struct coroutine *c, void *unused) {
    (void)c;
    CHECK(fail(unused) == -1 && last_panic_says("no such row"));
}

/* An error is no panic: nothing is pending afterwards, and C gets the value on any stack. */
static void errors(void) {
    CHECK(fail(NULL) == -1 && last_panic_says("no such row"));
    CHECK(guest_call(fail, NULL) == -1);
    on_coroutine(fails_there, 16 << 10);
}

static void status_on_this_stack(struct coroutine *c, void *unused) {
    (void)c;
    (void)unused;
    CHECK(guest_exported_status(UPCALL_OK) == UPCALL_REFUSED);
}

static void statuses(void) {
    CHECK(guest_exported_status(UPCALL_OK) == UPCALL_OK);
    CHECK(guest_exported_status(UPCALL_ERROR) == UPCALL_ERROR && last_panic_says("an error"));
    CHECK(guest_exported_status(UPCALL_PANIC) == UPCALL_PANIC && last_panic_says("a panic"));
    struct memory stack = memory_new(MALLOCED, 24 << 10);
    void *registration = guest_register(stack.base, 24 << 10);
    struct coroutine c;
    coroutine_init(&c, stack.base, 24 << 10, status_on_this_stack, NULL);
    coroutine_resume(&c);
    CHECK(c.done);
    guest_unregister(registration);
    memory_free(stack);
}

static void error_then_panic(void) { guest_exported_error_then_panic("the first error"); }

/* A fiber is dropped while an upcall waits. C gets zero from this upcall and from all later ones
 * until it has returned. */
static _Atomic int waits, has_returned;

static int waits_for_ever(void *unused) {
    waits = 1;
    CHECK(guest_exported_wait() == 0 && last_panic_says("the fiber was dropped while it waited"));
    CHECK(guest_exported_call(compares, unused) == 0 && last_panic_says("the fiber that the upcall belongs to was dropped"));
    CHECK(count == 0);
    has_returned = 1;
    return 7;
}

static void dropped(void) {
    guest_fiber *fiber = guest_spawn_on_fiber("waits", waits_for_ever, NULL);
    while (!waits)
        usleep(100);
    guest_abort(fiber);
    CHECK(guest_join(fiber) == -1 && last_panic_says("the fiber was aborted"));
    CHECK(has_returned);
}

/* ---- failures with nobody to tell: upcall aborts ---- */

static void nobody_to_hear(void) { guest_exported_panic(); }

static void nobody_to_hear_on_coroutine(void) { on_coroutine(panics_there, unoptimised() ? 16 << 10 : 4 << 10); }

static void hosts_handler(void) {
    CHECK(guest_end_when_stopped() == 0);
    guest_exported_panic();
}

static void two_panics(void) { guest_exported_panic_twice("the first panic"); }

static void *is_refused_on_this_thread(void *unused) {
    guest_bounds(&own);
    with_left(own.low, 8 << 10, guest_exported_on_caller);
    return unused;
}

static void is_refused(void) {
    guest_exported_on_caller();
    on_thread(NULL, 256 << 10, is_refused_on_this_thread, NULL);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"answers", answers},
        {"zeros", zeros},
        {"parameters", parameters},
        {"stacks", stacks},
        {"on_its_way", on_its_way},
        {"from_coroutine", from_coroutine},
        {"dropped", dropped},
        {"nobody_to_hear", nobody_to_hear},
        {"nobody_to_hear_on_coroutine", nobody_to_hear_on_coroutine},
        {"hosts_handler", hosts_handler},
        {"errors", errors},
        {"statuses", statuses},
        {"error_then_panic", error_then_panic},
        {"two_panics", two_panics},
        {"is_refused", is_refused},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
