/* A scheduler that switches coroutines in a signal handler.
 *
 * The switch comes between any two instructions of a call, except while signals are blocked. Other
 * coroutines then make calls, are suspended in the middle of them, and continue in another order.
 * The processor's trap flag sends a signal after each instruction. */
#include "host.h"

#ifdef HAS_TRAP_FLAG
enum { VICTIMS = 3, OTHERS = 5, STACK = 256 << 10 };

enum what { IN_PLACE, DOWNCALL, POOLED, CALLER, RAISED, RAISED_POOLED, KINDS };

struct victim {
    struct coroutine coroutine;
    enum what what;
    /* The instruction to interrupt, and the count of instructions so far. */
    long interrupted_at, at;
    bool is_stepped;
};

static struct victim *volatile stepping;
static struct victim victims[VICTIMS];
static struct coroutine others[OTHERS];
static char *victim_stacks[VICTIMS], *other_stacks[OTHERS];
static int begun;

static void steps(bool on) {
    __asm__ volatile("" ::: "memory"); /* the stores for the handler are done */
    write_flags(on ? read_flags() | TRAP : read_flags() & ~TRAP);
}

static int returns_argument(void *argument) { return *(int *)argument; }

static void panics(void) { CHECK(guest_panic_is_taken(begun % 2) == 1); }

static void returns(void) {}

static void call(enum what what, int number) {
    switch (what) {
    case IN_PLACE: CHECK(guest_increment(number) == number + 1); break;
    case DOWNCALL: CHECK(guest_call(returns_argument, &number) == number); break;
    case POOLED: CHECK(guest_call_pooled(returns_argument, &number) == number); break;
    case CALLER: CHECK(guest_call_caller(returns_argument, &number) == number); break;
    case RAISED: CHECK(guest_is_raised(false, returns) == 0); break;
    case RAISED_POOLED: CHECK(guest_is_raised(true, returns) == 0); break;
    default: abort();
    }
}

/* ---- the other coroutines ---- */

static int yields(void *c) {
    coroutine_yield(c);
    return 7;
}

static void is_left_in_the_middle(struct coroutine *c, void *number) {
    switch ((uintptr_t)number % 3) {
    case 0: CHECK(guest_call(yields, c) == 7); break;
    case 1: CHECK(guest_call_pooled(yields, c) == 7); break;
    default: CHECK(guest_call_caller(yields, c) == 7); break;
    }
}

/* Makes all kinds of calls. Suspends one of them in the middle, and finishes the one suspended for
 * longest. */
static void others_call(void) {
    for (enum what what = 0; what < KINDS; what++)
        call(what, begun + what);
    CHECK(guest_is_raised(begun % 2, panics) == 1);
    struct coroutine *c = &others[begun % OTHERS];
    if (begun >= OTHERS) {
        coroutine_resume(c);
        CHECK(c->done);
    }
    coroutine_init(c, other_stacks[begun % OTHERS], STACK, is_left_in_the_middle, (void *)(uintptr_t)begun);
    coroutine_resume(c);
    begun++;
}

/* ---- interrupted coroutines ---- */

static void handle(int signal, siginfo_t *unused, void *context) {
    (void)signal;
    (void)unused;
    struct victim *victim = stepping;
    if (victim->at++ < victim->interrupted_at || victim->interrupted_at < 0)
        return;
    /* A trap comes even while signals are blocked, as in the library's cold paths. A scheduler's
     * signal comes at the first instruction after those. */
    if (sigismember(&((ucontext_t *)context)->uc_sigmask, SIGALRM) == 1)
        return;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~TRAP;
    victim->is_stepped = true;
    if (victim->coroutine.body)
        coroutine_yield(&victim->coroutine);
    else
        others_call();
}

static void steps_through_a_call(struct victim *victim) {
    victim->at = 0;
    victim->is_stepped = false;
    stepping = victim;
    steps(true);
    call(victim->what, 41);
    steps(false);
}

static void victim_body(struct coroutine *c, void *victim) {
    (void)c;
    steps_through_a_call(victim);
}

/* Returns the length of a call in instructions, without interruptions. */
static long length_of(struct victim *victim) {
    victim->interrupted_at = -1;
    steps_through_a_call(victim);
    CHECK(victim->at > 20);
    return victim->at;
}

/* Returns the distance between tested instructions: 1, or more for the thousands of an unoptimised
 * library. */
static long stride(long length) { return 1 + length * length / 100000; }

static void finish_others(void) {
    for (int i = 0; i < OTHERS && i < begun; i++) {
        coroutine_resume(&others[(begun + i) % OTHERS]);
        CHECK(others[(begun + i) % OTHERS].done);
    }
    begun = 0;
}

static void begin(void) {
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGTRAP, &action, NULL) == 0);
    CHECK(upcall_thread_attach() == 0);
    for (int i = 0; i < OTHERS; i++)
        other_stacks[i] = memory_new(GUARDED, STACK).base;
    for (int i = 0; i < VICTIMS; i++)
        victim_stacks[i] = memory_new(GUARDED, STACK).base;
    for (int i = 0; i < 8; i++)
        others_call();
    finish_others();
}

static void end(void) {
    CHECK(guest_open_calls() == 0);
    CHECK(guest_stacks_in_use() <= 12);
    CHECK(guest_is_raised(false, panics) == 1 && guest_is_raised(true, panics) == 1);
}

/* ---- cases ---- */

static void on_own_stack(void) {
    begin();
    for (enum what what = 0; what < KINDS; what++) {
        struct victim *victim = &victims[0];
        victim->what = what;
        long length = length_of(victim);
        for (long i = 0; i < length; i += stride(length)) {
            call(what, 1);
            victim->interrupted_at = i;
            steps_through_a_call(victim);
        }
        printf("%d: %ld instructions\n", what, length);
        finish_others();
    }
    end();
}

/* Three coroutines are in the middle of one call each, at three instructions. They continue in the
 * order of their interruption. */
static void on_coroutines(bool registered) {
    begin();
    if (registered) {
        for (int i = 0; i < VICTIMS; i++)
            CHECK(upcall_stack_register(victim_stacks[i], STACK, "victim") == 0);
        for (int i = 0; i < OTHERS; i += 2)
            CHECK(upcall_stack_register(other_stacks[i], STACK, "other") == 0);
    }
    for (enum what what = 0; what < KINDS; what++) {
        long length = length_of(&(struct victim){.what = what}) + 60, count = 0;
        for (long i = 0; i < length; i += stride(length), count++) {
            struct victim *victim = &victims[count % VICTIMS];
            if (count >= VICTIMS) {
                coroutine_resume(&victim->coroutine);
                CHECK(victim->coroutine.done);
            }
            *victim = (struct victim){.what = (enum what)((what + count) % KINDS), .interrupted_at = i};
            coroutine_init(&victim->coroutine, victim_stacks[count % VICTIMS], STACK, victim_body, victim);
            coroutine_resume(&victim->coroutine);
            if (victim->coroutine.done) {
                /* This call was shorter. */
                CHECK(!victim->is_stepped);
                victim->interrupted_at = 10;
                coroutine_init(&victim->coroutine, victim_stacks[count % VICTIMS], STACK, victim_body, victim);
                coroutine_resume(&victim->coroutine);
                CHECK(!victim->coroutine.done);
            }
            others_call();
        }
        for (int i = 0; i < VICTIMS; i++) {
            coroutine_resume(&victims[i].coroutine);
            CHECK(victims[i].coroutine.done);
        }
        printf("%d: %ld instructions\n", what, length);
        finish_others();
    }
    end();
}

static void on_undescribed(void) { on_coroutines(false); }

static void on_registered(void) { on_coroutines(true); }
#endif

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
#ifdef HAS_TRAP_FLAG
        {"on_own_stack", on_own_stack},
        {"on_undescribed", on_undescribed},
        {"on_registered", on_registered},
#endif
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
