/* Signals between any two instructions of a call: the processor's trap flag sends one after
 * each. */
#include "host.h"

#ifdef HAS_TRAP_FLAG
static long at, handle_at;
static void (*handler_does)(void);
static int taken;

static void handle(int signal, siginfo_t *unused, void *context) {
    (void)signal;
    (void)unused;
    if (at++ == handle_at) {
        handler_does();
        ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~TRAP;
    }
}

static void steps(bool on) {
    write_flags(on ? read_flags() | TRAP : read_flags() & ~TRAP);
}

static void returns(void) {}

static void panics(void) { CHECK(guest_panic_is_taken(false)); }

static int returns_7(void *unused) {
    (void)unused;
    return 7;
}

/* Makes a call, interrupted at one instruction. Returns its number of instructions.
 *
 * If the handler's panic counts as taken, it must be raised at the downcall, and only then. */
static long interrupted(bool pooled, long instruction) {
    at = taken = 0;
    handle_at = instruction;
    steps(true);
    int is_raised = guest_is_raised(pooled, returns);
    steps(false);
    CHECK(is_raised == taken);
    return at;
}

/* Interrupts a call once at each instruction, or at some of the thousands of an unoptimised one.
 * Later calls stay right. Returns the number of panics raised. */
static int interrupt(bool pooled, int flags, void (*what)(void)) {
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = flags | SA_SIGINFO};
    CHECK(sigaction(SIGTRAP, &action, NULL) == 0);
    handler_does = what;
    CHECK(guest_is_raised(pooled, returns) == 0);
    int raised = 0, in_use = guest_stacks_in_use();
    long length = interrupted(pooled, -1);
    CHECK(length > 50);
    for (long i = 0; i < length; i += 1 + length * length / 100000) {
        interrupted(pooled, i);
        raised += taken;
        CHECK(guest_is_raised(pooled, returns) == 0);
        CHECK(guest_is_raised(pooled, panics) == 1);
    }
    printf("%ld instructions\n", length);
    CHECK(guest_open_calls() == 0 && guest_stacks_in_use() <= in_use + 3);
    return raised;
}

/* ---- actions of the handlers ---- */

static void panic_in_place(void) { taken = guest_panic_is_taken(false); }

static void panic_pooled(void) { taken = guest_panic_is_taken(true); }

static void call(void) {
    CHECK(guest_increment(41) == 42);
    CHECK(guest_call(returns_7, NULL) == 7);
    CHECK(guest_call_pooled(returns_7, NULL) == 7);
    CHECK(guest_is_raised(false, panics) == 1);
}

/* On a signal stack, a call may be refused; if served, its answer is right. */
static void call_or_not(void) {
    int answer = guest_call(returns_7, NULL);
    CHECK(answer == 7 || answer == -1);
}

/* ---- cases ---- */

static void panic(void) {
    CHECK(upcall_thread_attach() == 0);
    CHECK(interrupt(false, 0, panic_in_place) > 0);
    CHECK(interrupt(false, 0, panic_pooled) > 0);
}

/* C asks for the last panic's message, and a handler panics meanwhile. Returns the number of
 * instructions. */
static long asks(long instruction) {
    char text[64];
    at = 0;
    handle_at = instruction;
    steps(true);
    int length = upcall_last_message(text, sizeof text);
    steps(false);
    CHECK(length > 0 && strlen(text) == (size_t)length);
    return at;
}

static void message(void) {
    CHECK(upcall_thread_attach() == 0);
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGTRAP, &action, NULL) == 0);
    handler_does = panic_in_place;
    panic_in_place();
    long length = asks(-1);
    for (long i = 0; i < length; i++)
        asks(i);
}

static void calls(struct coroutine *unused, void *flags) {
    (void)unused;
    for (int pooled = 0; pooled < 2; pooled++)
        interrupt(pooled, flags ? SA_ONSTACK : 0, flags ? call_or_not : call);
}

static void on_own_stack(void) {
    CHECK(upcall_thread_attach() == 0);
    calls(NULL, NULL);
}

static void on_coroutine(void *flags) {
    struct coroutine c;
    struct memory stack = memory_new(GUARDED, 256 << 10);
    CHECK(upcall_thread_attach() == 0);
    coroutine_init(&c, stack.base, stack.size, calls, flags);
    coroutine_resume(&c);
    CHECK(c.done);
}

static void on_coroutines_stack(void) { on_coroutine(NULL); }

static void on_signal_stack(void) {
    static char low[64 << 10];
    stack_t stack = {.ss_sp = low, .ss_size = sizeof low};
    CHECK(sigaltstack(&stack, NULL) == 0 && upcall_thread_attach() == 0);
    calls(NULL, low);
    on_coroutine(low);
}
#endif

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
#ifdef HAS_TRAP_FLAG
        {"panic", panic},
        {"message", message},
        {"on_own_stack", on_own_stack},
        {"on_coroutine", on_coroutines_stack},
        {"on_signal_stack", on_signal_stack},
#endif
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
