/* Backtraces pass every switch of stacks.
 *
 * They are taken in the innermost of nested calls, on a pooled stack or a fiber, and reach main. A
 * debugger finds the same frames from a breakpoint at `innermost`: ci/gdb.sh. */
#include "host.h"

static const char *const *expected;

/* Checks that the backtrace contains the expected names, innermost first. */
__attribute__((noinline)) int innermost(void *unused) {
    static char text[1 << 16];
    (void)unused;
    CHECK(guest_backtrace(text, sizeof text) == 0);
    const char *rest = text;
    for (const char *const *name = expected; *name; name++) {
        rest = strstr(rest, *name);
        if (!rest)
            fprintf(stderr, "%s is missing in\n%s", *name, text);
        CHECK(rest);
        rest += strlen(*name);
    }
    return 1;
}

/* The addition prevents a tail call, which would leave no frame. */
__attribute__((noinline)) int middle(void *unused) { return guest_call_pooled(innermost, unused) + 1; }

static __attribute__((noinline)) void pooled(void) {
    static const char *const names[] = {
        "guest_backtrace", "innermost", "guest_call_pooled", "middle", "guest_call_pooled", "pooled", ": main\n", NULL};
    expected = names;
    CHECK(guest_call_pooled(middle, NULL) == 2);
}

static __attribute__((noinline)) void run_fiber(guest_callback callback) {
    CHECK(upcall_local_begin() == 0);
    guest_fiber *fiber = guest_spawn_local(callback, NULL);
    CHECK(upcall_local_run_ready(SIZE_MAX) == 1);
    CHECK(guest_join(fiber) > 0);
    CHECK(upcall_local_end() == 0);
}

static __attribute__((noinline)) void on_fiber(void) {
    static const char *const names[] = {
        "guest_backtrace", "innermost", "local_run_ready", "run_fiber", ": main\n", NULL};
    expected = names;
    run_fiber(innermost);
}

__attribute__((noinline)) int leaves_fiber(void *unused) { return guest_call(innermost, unused) + 1; }

/* C on the fiber's stack stays there. */
static __attribute__((noinline)) void below_fiber(void) {
    static const char *const names[] = {
        "guest_backtrace", "innermost", "guest_call", "leaves_fiber", "local_run_ready",
        "run_fiber", ": main\n", NULL};
    expected = names;
    run_fiber(leaves_fiber);
}

/* Errors on purpose, for memcheck and AddressSanitizer to find: ci/valgrind.sh, ci/asan.sh. */
static void uninitialised(void) { guest_misread(3); }
static void overrun(void) { guest_misread(64); }

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"pooled", pooled},
        {"on_fiber", on_fiber},
        {"below_fiber", below_fiber},
        {"uninitialised", uninitialised},
        {"overrun", overrun},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
