/* What must not pass unnoticed: the overflow of a pooled stack, and upcalls from stacks that a host should not have. */
#include "host.h"

static struct guest_where where;

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)context;
    uintptr_t address = (uintptr_t)info->si_addr;
    /* In the guard, within one frame of its upper end. */
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

/* With UPCALL_FOREIGN_STACKS=report: served, and told once on stderr. Without: served. */
static void foreign_served(void) {
    int answers[10];
    on_foreign_stack(answers);
    for (int i = 0; i < 10; i++)
        CHECK(answers[i] == i + 1);
}

/* With UPCALL_FOREIGN_STACKS=refuse. */
static void foreign_refused(void) {
    int answers[10];
    char message[256];
    on_foreign_stack(answers);
    for (int i = 0; i < 10; i++)
        CHECK(answers[i] == (no_query() ? i + 1 : -1));
    if (no_query())
        return;
    CHECK(upcall_last_panic(message, sizeof message) > 0 && strstr(message, "a stack that nobody described"));
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

/* Stacks that deep use has dirtied give their pages back when they are idle. */
static int use_much(void *levels) {
    intptr_t left = (intptr_t)levels;
    CHECK(guest_use_sized_stack(1 << 20, 1000 << 10) == 0);
    return left > 1 ? guest_call_pooled(use_much, (void *)(left - 1)) : 0;
}

static void idle_stacks(void) {
    long size, before, after;
    FILE *statm;
    CHECK(guest_empty() == 0);
    statm = fopen("/proc/self/statm", "r");
    CHECK(statm && fscanf(statm, "%ld %ld", &size, &before) == 2);
    fclose(statm);
    CHECK(guest_call_pooled(use_much, (void *)200) == 0);
    statm = fopen("/proc/self/statm", "r");
    CHECK(statm && fscanf(statm, "%ld %ld", &size, &after) == 2);
    fclose(statm);
    CHECK((after - before) * sysconf(_SC_PAGESIZE) < 8 << 20);
    CHECK(guest_stacks_in_use() <= 8);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"overflow", overflow},
        {"foreign_served", foreign_served},
        {"foreign_refused", foreign_refused},
        {"idle_stacks", idle_stacks},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
