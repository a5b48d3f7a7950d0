/* A host resumes a coroutine with live Rust frames on another thread.
 *
 * At the first return into Rust, upcall reports the function by name and aborts. */
#include "host.h"

enum { BYTES = 256 << 10 };

#ifdef _WIN32
static char *stack_new(void) { return memory_new(GUARDED, BYTES).base; }
#else
/* The stack of the coroutine has a fixed address, to be found in messages. */
static char *stack_new(void) {
    char *low = (char *)0x20000000;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    CHECK(mmap(low, BYTES, PROT_READ | PROT_WRITE, flags, -1, 0) == low);
    return low;
}
#endif

static struct coroutine moved;

static int yields(void *unused) {
    (void)unused;
    coroutine_yield(&moved);
    return 0;
}

static void *suspends(void *unused) {
    name_thread("first");
    coroutine_resume(&moved);
    return unused;
}

static int goes_on(void *unused) {
    (void)unused;
    coroutine_resume(&moved);
    CHECK(!"came back");
    return 0;
}

static int goes_on_deeper(void *unused) { return guest_call_pooled(goes_on, unused); }

/* HOST_MOVE describes the two threads. */
static int is(const char *what) { return strstr(getenv("HOST_MOVE"), what) != NULL; }

static void *resumes(void *unused) {
    name_thread("second");
    if (is("attached"))
        CHECK(guest_empty() == 0);
    if (is("inside"))
        guest_call(goes_on_deeper, NULL);
    goes_on(NULL);
    return unused;
}

static void moves(void (*body)(struct coroutine *, void *), int registered) {
    char *low = stack_new();
    if (registered)
        CHECK(upcall_stack_register(low, BYTES, "the coroutine's") == 0);
    coroutine_init(&moved, low, BYTES, body, NULL);
    /* The second thread may well get the stack, thread pointer and pthread_t of an exited first
     * one. */
    if (is("exited"))
        on_thread(NULL, 0, suspends, NULL);
    else
        suspends(NULL);
    on_thread(NULL, 0, resumes, NULL);
}

static int nested(void *unused) { return guest_moving_pooled(yields, unused); }

/* On its new thread, C may call Rust like any code there. But a wait would suspend the fiber into
 * frames of the other thread. */
static int yields_and_waits(void *unused) {
    guest_channel *never = guest_channel_new(1);
    yields(unused);
    CHECK(guest_increment(1) == 2);
    return guest_receive(never);
}

/* Each `call` is the body of the coroutine. */
#define MOVES(name, registered, call)                             \
    static void name##_body(struct coroutine *c, void *unused) {  \
        (void)c;                                                  \
        (void)unused;                                             \
        call;                                                     \
    }                                                             \
    static void name(void) { moves(name##_body, registered); }

MOVES(in_place, 1, guest_moving(yields, NULL))
MOVES(pooled, 0, guest_moving(yields, NULL))
MOVES(pooled_registered, 1, guest_moving_pooled(yields, NULL))
MOVES(by_choice, 0, guest_moving_caller(yields, NULL))
MOVES(plain_in_place, 1, guest_call_plain(yields, NULL))
MOVES(plain_pooled, 0, guest_call_plain(yields, NULL))
MOVES(with_stack, 1, guest_moving_with_stack(yields, NULL))
MOVES(in_fiber, 1, guest_moving_in_fiber(yields, NULL))
MOVES(on_fiber, 1, guest_moving_on_fiber(yields, NULL))
MOVES(plain_in_fiber, 1, guest_moving_plain_in_fiber(yields, NULL))
MOVES(waits_on_fiber, 1, guest_moving_on_fiber(yields_and_waits, NULL))
MOVES(inner, 1, guest_moving(nested, NULL))
MOVES(inner_on_fiber, 0, guest_moving_on_fiber(nested, NULL))

/* The coroutine runs a thread, and this thread continues on the first thread's own stack. */
static void *takes_over(void *unused) {
    name_thread("second");
    if (is("attached"))
        CHECK(guest_empty() == 0);
    if (is("inside"))
        guest_call_pooled(yields, NULL);
    coroutine_yield(&moved);
    return unused;
}

static void passes_on(struct coroutine *c, void *unused) {
    (void)c;
    on_thread(NULL, 0, takes_over, unused);
}

static int leaves(void *unused) {
    (void)unused;
    coroutine_resume(&moved);
    return 0;
}

static void own_stack(void) {
    name_thread("first");
    coroutine_init(&moved, memory_new(MALLOCED, BYTES).base, BYTES, passes_on, NULL);
    guest_moving(leaves, NULL);
}

/* The host has its own handler for a fatal error. */
static void hosts_handler(void) {
    CHECK(guest_end_when_stopped() == 0);
    pooled();
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"in_place", in_place},
        {"pooled", pooled},
        {"pooled_registered", pooled_registered},
        {"by_choice", by_choice},
        {"plain_in_place", plain_in_place},
        {"plain_pooled", plain_pooled},
        {"with_stack", with_stack},
        {"in_fiber", in_fiber},
        {"on_fiber", on_fiber},
        {"plain_in_fiber", plain_in_fiber},
        {"waits_on_fiber", waits_on_fiber},
        {"inner", inner},
        {"inner_on_fiber", inner_on_fiber},
        {"own_stack", own_stack},
        {"hosts_handler", hosts_handler},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
