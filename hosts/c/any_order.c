/* Upcalls suspended on coroutines return in any order, each with its own value, panic and waits. */
#include "tasks.h"

/* ---- two coroutines ---- */

static int leave(void *coroutine) {
    coroutine_yield(coroutine);
    return 7;
}

static void call_and_leave(struct coroutine *c, void *call) {
    int (*const calls[])(guest_callback, void *) = {guest_call, guest_call_pooled, guest_call_caller};
    CHECK(calls[(intptr_t)call](leave, c) == 7);
    CHECK(guest_increment(1) == 2);
}

/* The coroutine with the first call returns first, whatever stacks the upcalls run on. */
static void *a_returns_first(void *unused) {
    for (intptr_t i = 0; i < 9; i++) {
        struct coroutine a, b;
        struct memory memory = memory_new(GUARDED, 128 << 10);
        coroutine_init(&a, memory.base, 64 << 10, call_and_leave, (void *)(i % 3));
        coroutine_init(&b, memory.base + (64 << 10), 64 << 10, call_and_leave, (void *)(i / 3));
        coroutine_resume(&a);
        coroutine_resume(&b);
        CHECK(guest_open_calls() == 4);
        coroutine_resume(&a);
        CHECK(a.done && guest_open_calls() == 2 && guest_increment(2) == 3);
        coroutine_resume(&b);
        CHECK(b.done && guest_open_calls() == 0);
        memory_free(memory);
    }
    return unused;
}

static void two_coroutines(void) {
    a_returns_first(NULL);
    on_thread(NULL, 0, a_returns_first, NULL);
}

/* ---- generators: a sieve, one coroutine for each prime, resumed by the next prime's Rust ---- */

enum { PRIMES = 60, LIMIT = 282 };

struct generator {
    struct coroutine coroutine;
    struct memory stack;
    struct generator *source; /* NULL: counts by itself */
    int prime, value;
};

/* Returns the next number, or 0 at the end. The way leads through Rust: C in a downcall resumes the
 * generator. */
static int resume_generator(void *generator) {
    struct generator *g = generator;
    coroutine_resume(&g->coroutine);
    return g->coroutine.done ? 0 : g->value;
}

static int next_of(struct generator *g) {
    return (g->prime % 3 ? guest_call : guest_call_pooled)(resume_generator, g);
}

static int generate(void *generator) {
    struct generator *g = generator;
    if (g->source) {
        while ((g->value = next_of(g->source)) != 0)
            if (g->value % g->prime != 0)
                coroutine_yield(&g->coroutine);
    } else {
        for (g->value = 2; g->value < LIMIT; g->value = guest_increment(g->value))
            coroutine_yield(&g->coroutine);
    }
    /* The panic goes to the downcall beneath it on this coroutine, not to the resumer's
     * downcall. */
    CHECK(guest_panic("no more") == -1);
    return 0;
}

static void run_generator(struct coroutine *c, void *generator) {
    char message[32];
    (void)c;
    CHECK(guest_catch(generate, generator, message, sizeof message) == -2 && strcmp(message, "no more") == 0);
}

static struct generator *generator_new(struct generator *source, int prime) {
    struct generator *g = calloc(1, sizeof *g);
    CHECK(g);
    *g = (struct generator){.stack = memory_new(GUARDED, 64 << 10), .source = source, .prime = prime};
    coroutine_init(&g->coroutine, g->stack.base, g->stack.size, run_generator, g);
    return g;
}

static void *sieve(void *unused) {
    struct generator *last = generator_new(NULL, 1);
    int primes = 0, largest = 0;
    for (int prime; (prime = next_of(last)) != 0; primes++) {
        largest = prime;
        last = generator_new(last, prime);
    }
    CHECK(primes == PRIMES && largest == 281);
    while (last) {
        struct generator *source = last->source;
        CHECK(last->coroutine.done);
        memory_free(last->stack);
        free(last);
        last = source;
    }
    CHECK(guest_open_calls() == 0 && guest_stacks_in_use() <= 16);
    return unused;
}

static void generators(void) {
    sieve(NULL);
    on_thread(NULL, 0, sieve, NULL);
}

/* ---- tasks on stacks of their own, registered or not ---- */

struct stack_task {
    struct coroutine coroutine;
    struct memory stack;
    void *registration;
};

static void stack_task_new(struct task *t) {
    struct stack_task *own = t->coroutine = calloc(1, sizeof *own);
    CHECK(own);
    int registered = draw(&t->random, 3) == 0;
    own->stack = memory_new(draw(&t->random, 2) ? GUARDED : MALLOCED, registered ? 256 << 10 : 64 << 10);
    if (registered)
        CHECK((own->registration = guest_register(own->stack.base, own->stack.size)) != NULL);
}

static void run_on_stack(struct coroutine *c, void *task) {
    (void)c;
    task_run(task);
}

static void stack_task_begin(struct task *t) {
    struct stack_task *own = t->coroutine;
    coroutine_init(&own->coroutine, own->stack.base, own->stack.size, run_on_stack, t);
}

static void stack_task_resume(struct task *t) { coroutine_resume(&((struct stack_task *)t->coroutine)->coroutine); }
static void stack_task_leave(struct task *t) { coroutine_yield(&((struct stack_task *)t->coroutine)->coroutine); }

static void stack_task_free(struct task *t) {
    struct stack_task *own = t->coroutine;
    if (own->registration)
        guest_unregister(own->registration);
    memory_free(own->stack);
    free(own);
}

static const struct coroutines on_own_stacks = {
    stack_task_new, stack_task_begin, stack_task_resume, stack_task_leave, stack_task_free, 1,
};

static void *run_there(void *locally) {
    run_seeds(&on_own_stacks, locally != NULL);
    return NULL;
}

static void on_main(void) { run_there(NULL); }
static void on_pthread(void) { on_thread(NULL, 0, run_there, NULL); }
static void on_main_with_local_runtime(void) { run_there(&seed); }
static void on_pthread_with_local_runtime(void) { on_thread(NULL, 0, run_there, &seed); }

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"two_coroutines", two_coroutines},
        {"generators", generators},
        {"on_main", on_main},
        {"on_pthread", on_pthread},
        {"on_main_with_local_runtime", on_main_with_local_runtime},
        {"on_pthread_with_local_runtime", on_pthread_with_local_runtime},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
