/* Errors that must not pass unnoticed: the overflow of a pooled stack, and upcalls from unexpected
 * stacks. */
#include "host.h"

#ifndef _WIN32
static struct guest_where where;

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)context;
    uintptr_t address = (uintptr_t)info->si_addr;
    /* The address is in the guard, within one frame of its upper end. */
    if (where.low - (16 << 10) <= address && address < where.low) {
        static const char proof[] = "overflow stopped by the guard\n";
        if (write(1, proof, sizeof proof - 1) > 0)
            _exit(0);
    }
    _exit(3);
}

static void overflow(void) {
    struct memory alt = memory_new(GUARDED, 64 << 10);
    stack_t stack = {.ss_sp = alt.base, .ss_size = alt.size};
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    CHECK(sigaltstack(&stack, NULL) == 0);
    CHECK(sigaction(SIGSEGV, &action, NULL) == 0 && sigaction(SIGBUS, &action, NULL) == 0);
    CHECK(guest_overflow(&where) == 0);
    CHECK(!"a gigabyte fitted");
}
#endif

static void call_10_times(struct coroutine *c, void *answers) {
    (void)c;
    for (int i = 0; i < 10; i++)
        ((int *)answers)[i] = guest_increment(i);
}

static void on_foreign_stack(int *answers) {
    struct coroutine c;
    struct memory stack = memory_new(GUARDED, 64 << 10);
    CHECK(guest_increment(0) == 1);
    coroutine_init(&c, stack.base, stack.size, call_10_times, answers);
    coroutine_resume(&c);
    CHECK(c.done && guest_increment(0) == 1);
    memory_free(stack);
}

/* Upcalls from undescribed stacks are served. With UPCALL_FOREIGN_STACKS=report, they are also
 * reported once on stderr. */
static void foreign_served(void) {
    int answers[10];
    on_foreign_stack(answers);
    for (int i = 0; i < 10; i++)
        CHECK(answers[i] == i + 1);
}

/* With UPCALL_FOREIGN_STACKS=refuse, upcalls from undescribed stacks are refused. */
static void foreign_refused(void) {
    int answers[10];
    char message[256];
    on_foreign_stack(answers);
    for (int i = 0; i < 10; i++)
        CHECK(answers[i] == (no_query() ? i + 1 : -1));
    if (no_query())
        return;
    CHECK(upcall_last_message(message, sizeof message) > 0 && strstr(message, "a stack that nobody described"));
    puts(message);
    /* A registered stack is described. */
    struct coroutine c;
    struct memory stack = memory_new(GUARDED, 64 << 10);
    void *registration = guest_register(stack.base, stack.size);
    coroutine_init(&c, stack.base, stack.size, call_10_times, answers);
    coroutine_resume(&c);
    guest_unregister(registration);
    CHECK(answers[0] == 1 && answers[9] == 10);
}

/* Dirties 200 stacks by deep use. With UPCALL_IDLE_STACKS=16, idle stacks beyond 16 give their
 * pages back. */
static long deepest;

static int use_and_go_deeper(void *levels) {
    intptr_t left = (intptr_t)levels;
    if (left > 0)
        return guest_use_and_call(100 << 10, use_and_go_deeper, (void *)(left - 1));
    deepest = resident_kib();
    return 0;
}

static void idle_stacks(void) {
    CHECK(guest_empty() == 0);
    long before = resident_kib();
    CHECK(use_and_go_deeper((void *)200) == 0);
    long after = resident_kib();
    printf("%ld KiB in use, %ld KiB kept\n", deepest - before, after - before);
    CHECK(deepest - before > 9 << 10 && after - before < 6 << 10);
    CHECK(guest_stacks_in_use() <= 8);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"foreign_served", foreign_served},
        {"foreign_refused", foreign_refused},
        {"idle_stacks", idle_stacks},
#ifndef _WIN32
        {"overflow", overflow},
#endif
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
