/* Upcalls at very different depths of one stack, and with almost no stack remaining. */
#include "host.h"

#ifndef _WIN32
#include <sys/resource.h>
#endif

static int results[3];

/* No CHECK here: printing a failure takes more stack than remains. */
static void call_thrice(void) {
    results[0] = guest_increment(1);
    results[1] = guest_increment(2);
    results[2] = guest_increment(3);
}

static void check_results(void) {
    CHECK(results[0] == 2 && results[1] == 3 && results[2] == 4);
    memset(results, 0, sizeof results);
}

static void *first_call_with_left(void *left) {
    with_left(low_end(), (size_t)left, call_thrice);
    check_results();
    /* Then a call from a shallow depth again. */
    CHECK(guest_use_stack(100 << 10) == 0);
    return NULL;
}

static void *later_call_with_left(void *left) {
    CHECK(guest_increment(0) == 1);
    return first_call_with_left(left);
}

static const size_t lefts[] = {64 << 10, 16 << 10, 4 << 10, 2 << 10, 1 << 10};

static int lefts_here(void) { return unoptimised() ? 3 : 5; }

static void first_calls(void) {
    for (int i = 0; i < lefts_here(); i++)
        on_thread(NULL, 256 << 10, first_call_with_left, (void *)lefts[i]);
}

static void later_calls(void) {
    for (int i = 0; i < lefts_here(); i++)
        on_thread(NULL, 256 << 10, later_call_with_left, (void *)lefts[i]);
}

static void on_main(void) {
    CHECK(guest_increment(0) == 1);
    for (int i = 0; i < lefts_here(); i++)
        later_call_with_left((void *)lefts[i]);
}

/* The very first upcall, on the main thread, where the query for the stack's bounds takes the most
 * stack. */
static void first_of_the_process(void) {
    with_left(low_end(), unoptimised() ? 4 << 10 : 1 << 10, call_thrice);
    check_results();
}

static int depth_callback(void *argument) {
    int *levels = argument;
    volatile char filler[3000];
    filler[0] = 0;
    struct guest_where where;
    CHECK(guest_where(&where) == 0);
    CHECK(where.exact && where.sp - where.low >= 127 * 1024);
    return --*levels > 0 ? guest_call(depth_callback, levels) : filler[0];
}

static void *different_depths_there(void *unused) {
    for (int round = 0; round < 20; round++) {
        int levels = round % 2 ? 1 : 100 * round + 1;
        CHECK(guest_call(depth_callback, &levels) == 0);
    }
    return unused;
}

static void different_depths(void) { on_thread(NULL, 64 << 20, different_depths_there, NULL); }

/* An upcall restricted to the caller's stack is refused with a message if too little remains. */
static struct guest_where refused_where;
static int refused;

static void call_on_caller(void) { refused = guest_where_caller(&refused_where, 32 << 10); }

static void *caller_refused_on_this_thread(void *unused) {
    char message[256];
    (void)unused;
    CHECK(guest_where_caller(&refused_where, 32 << 10) == 0);
    CHECK(no_query() || refused_where.own);
    with_left(low_end(), 4 << 10, call_on_caller);
    if (no_query()) {
        /* The stack is unknown, so upcall promises nothing and refuses nothing. */
        CHECK(refused == 0);
        return NULL;
    }
    CHECK(refused == -1);
    CHECK(upcall_last_message(message, sizeof message) > 0);
    CHECK(strstr(message, "must run on the caller's stack"));
    CHECK(strstr(message, "of the 32768 that it needs"));
    puts(message);
    return NULL;
}

static void caller_refused(void) { on_thread(NULL, 256 << 10, caller_refused_on_this_thread, NULL); }

static int returns_7(void *unused) {
    (void)unused;
    return 7;
}

static void sized(void) {
    CHECK(guest_use_sized_stack(8 << 20, 7 << 20) == 0);
    CHECK(guest_use_sized_stack(100 << 20, 99 << 20) == 0);
    CHECK(guest_use_sized_stack(1, 100) == 0);
    CHECK(guest_with_stack(64 << 20, returns_7, NULL) == 7);
    CHECK(guest_with_stack(0, returns_7, NULL) == 7);
}

#ifndef _WIN32
static void out_of_memory(void) {
    char message[256];
    CHECK(guest_use_sized_stack((size_t)-1, 1) == -1);
    CHECK(upcall_last_message(message, sizeof message) > 0 && strstr(message, "no memory for a stack of"));
    puts(message);
    struct rlimit limit = {1 << 30, 1 << 30};
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    CHECK(guest_use_sized_stack((size_t)1 << 30, 1) == -1);
    CHECK(guest_with_stack((size_t)1 << 30, returns_7, NULL) == -1);
    CHECK(upcall_last_message(message, sizeof message) > 0 && strstr(message, "with_stack: there is no memory"));
    /* The failures have broken nothing. */
    CHECK(guest_use_sized_stack(1 << 20, 1 << 19) == 0);
    CHECK(guest_call_pooled(returns_7, NULL) == 7);
}
/* ---- the caller's stack used by a call before it continues on another stack ---- */

enum { PAINT = 0xa5, PAINTED = 64 << 10 };

static uintptr_t began_at;
static void (*painted_call)(void);

static void call_painted(struct coroutine *c, void *unused) {
    (void)c, (void)unused;
    began_at = (uintptr_t)__builtin_frame_address(0);
    painted_call();
}

/* Returns the bytes used by `call` on an undescribed coroutine. */
static size_t used_by(void (*call)(void)) {
    struct coroutine c;
    struct memory stack = memory_new(GUARDED, PAINTED);
    memset(stack.base, PAINT, PAINTED);
    painted_call = call;
    coroutine_init(&c, stack.base, stack.size, call_painted, NULL);
    coroutine_resume(&c);
    CHECK(c.done);
    char *lowest = stack.base;
    while (*lowest == (char)PAINT)
        lowest++;
    size_t used = began_at - (uintptr_t)lowest;
    memory_free(stack);
    return used;
}

static int answer;
static void call(void) { answer = guest_increment(1); }
static void call_pooled(void) { answer = guest_call_pooled(returns_7, NULL); }
static void call_panicking(void) { answer = guest_panic("on a painted stack"); }

static void *takes_there(void *unused) {
    static const struct {
        const char *what;
        void (*call)(void);
        int answer;
    } calls[] = {
        {"a thread's first", call, 2},
        {"a later one", call, 2},
        {"one with a downcall", call_pooled, 7},
        {"one that panics", call_panicking, -1},
    };
    size_t most = 0;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        size_t used = used_by(calls[i].call);
        CHECK(answer == calls[i].answer);
        printf("%s takes %zu bytes of the caller's stack\n", calls[i].what, used);
        if (used > most)
            most = used;
    }
    /* ci/unoptimised.sh builds upcall itself without optimisation, too. */
    size_t all_unoptimised = getenv("HOST_ALL_UNOPTIMISED") ? 8192 : 4096;
    /* This includes the frames of `call_painted` and of the measured function. */
    CHECK(most <= (unoptimised() ? all_unoptimised : 1280));
    return unused;
}

static void takes(void) {
    CHECK(guest_panic("bind the symbols") == -1);
    CHECK(guest_call_pooled(returns_7, NULL) == 7);
    on_thread(NULL, 0, takes_there, NULL);
}
#endif

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"first_calls", first_calls},
        {"later_calls", later_calls},
        {"on_main", on_main},
        {"first_of_the_process", first_of_the_process},
        {"different_depths", different_depths},
        {"caller_refused", caller_refused},
        {"sized", sized},
#ifndef _WIN32
        {"out_of_memory", out_of_memory},
        {"takes", takes},
#endif
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
