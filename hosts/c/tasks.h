/* Random tasks on coroutines of any kind, resumed in any order. The values and panics of each are
 * known in advance. */
#ifndef TASKS_H
#define TASKS_H

#include "host.h"

/* The thread's current seed, printed if a check fails. HOST_SEED runs one seed alone. */
static __thread long seed = -1;

static _Noreturn void failed(const char *file, int line, const char *condition) {
    fprintf(stderr, "%s:%d: failed with HOST_SEED=%ld: %s\n", file, line, seed, condition);
    fflush(NULL);
    _exit(1);
}

#undef CHECK
#define CHECK(condition)                            \
    do {                                            \
        if (!(condition))                           \
            failed(__FILE__, __LINE__, #condition); \
    } while (0)

static unsigned draw(uint64_t *state, unsigned below) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (unsigned)((*state >> 24) % below);
}

static uint64_t generator_of(long number) { return ((uint64_t)number + 1) * 0x9e3779b97f4a7c15; }

/* ---- a service for waits ---- */

struct service {
    guest_channel *questions, *answers;
};

static int serve(void *argument) {
    struct service *service = argument;
    int question;
    while ((question = guest_receive(service->questions)) != 0)
        CHECK(guest_send(service->answers, question + 1) == 0);
    return 0;
}

static void serve_locally(void *service) { serve(service); }

/* ---- tasks: coroutines that go C → Rust → C → Rust → C and back, suspended at every level ---- */

enum { LEVELS = 3, MANY = 1000, SEEDS = 1000 };
enum entry { AUTO, POOLED, CALLER, CATCHING, ENTRIES };

struct task;

/* A kind of coroutine: how to make one and how to switch to it and back. */
struct coroutines {
    void (*new)(struct task *);
    void (*begin)(struct task *); /* makes a coroutine that will call task_run */
    void (*resume)(struct task *);
    void (*leave)(struct task *);
    void (*free)(struct task *);
    int at_own_addresses;
};

struct task {
    const struct coroutines *by;
    void *coroutine;
    int done;
    struct service *service;
    uint64_t random;
    int number;
    int levels;                    /* how deep it goes */
    enum entry entry[LEVELS + 1];  /* how to call Rust for each level */
    int panics_at;                 /* the C level with a panicking upcall, or -1 */
    int level;                     /* current level */
    int escaped;                   /* the panic has left the coroutine */
    int runs;                      /* how often to begin again, on the same stack */
    char text[32];
};

static long switches, waits, panics;

static void leave_or_wait(struct task *t) {
    unsigned what = draw(&t->random, 12);
    if (what < 6) {
        switches++;
        t->by->leave(t);
    } else if (what == 6) {
        waits++;
        CHECK(guest_send(t->service->questions, t->number + 1) == 0);
        CHECK((t->number % 2 ? guest_receive : guest_receive_pooled)(t->service->answers) == t->number + 2);
    }
}

static int value_of(struct task *t, int level) { return t->number * (LEVELS + 1) + level; }

/* Returns the expected result of the upcall to a level: -2 if it catches the panic, -1 if the panic
 * passes through. */
static int expected_of(struct task *t, int level) {
    if (t->panics_at < level)
        return value_of(t, level);
    for (int at = t->panics_at; at > level; at--)
        if (t->entry[at] == CATCHING)
            return value_of(t, level);
    return t->entry[level] == CATCHING ? -2 : -1;
}

static int at_level(void *task);

static void go_down(struct task *t, int level) {
    char message[sizeof t->text] = "";
    int result = 0;
    t->level = level;
    switch (t->entry[level]) {
    case AUTO: result = guest_call(at_level, t); break;
    case POOLED: result = guest_call_pooled(at_level, t); break;
    case CALLER: result = guest_call_caller(at_level, t); break;
    default: result = guest_catch(at_level, t, message, sizeof message);
    }
    t->level = level - 1;
    CHECK(result == expected_of(t, level));
    CHECK(result != -1 || last_panic_says(t->text));
    CHECK(result != -2 || strcmp(message, t->text) == 0);
    t->escaped |= result == -1 && level == 1;
}

static int at_level(void *task) {
    struct task *t = task;
    int level = t->level;
    volatile char filler[200];
    for (size_t i = 0; i < sizeof filler; i++)
        filler[i] = (char)(value_of(t, level) + i);
    leave_or_wait(t);
    if (level == t->panics_at) {
        panics++;
        CHECK(guest_panic(t->text) == -1 && last_panic_says(t->text));
        /* Only C is told: another panic is pending already. */
        CHECK(guest_panic("later") == -1 && last_panic_says("later"));
        t->escaped |= level == 0;
        leave_or_wait(t);
    }
    if (level < t->levels) {
        go_down(t, level + 1);
        leave_or_wait(t);
    }
    for (size_t i = 0; i < sizeof filler; i++)
        CHECK(filler[i] == (char)(value_of(t, level) + i));
    CHECK(t->level == level);
    return value_of(t, level);
}

static void task_run(struct task *t) {
    CHECK(at_level(t) == value_of(t, 0));
    t->done = 1;
}

static void task_begin(struct task *t) {
    uint64_t *random = &t->random;
    t->levels = (int)draw(random, LEVELS + 1);
    for (int level = 1; level <= LEVELS; level++)
        t->entry[level] = draw(random, ENTRIES);
    t->panics_at = draw(random, 4) == 0 ? (int)draw(random, (unsigned)t->levels + 1) : -1;
    snprintf(t->text, sizeof t->text, "from task %d, run %d", t->number, t->runs);
    t->done = 0;
    t->by->begin(t);
}

static void task_new(struct task *t, const struct coroutines *by, int number, struct service *service) {
    memset(t, 0, sizeof *t);
    t->by = by;
    t->service = service;
    t->number = number;
    t->random = generator_of(seed * MANY + number);
    t->runs = (int)draw(&t->random, 2);
    by->new(t);
    task_begin(t);
}

static int resume_from_c(void *task) {
    struct task *t = task;
    t->by->resume(t);
    return 1;
}

/* A panic that leaves the coroutine is raised at its resumer's downcall. No other panic is raised
 * there. */
static void task_resume(struct task *t, int catching) {
    t->escaped = 0;
    if (catching) {
        char message[sizeof t->text] = "";
        int result = guest_catch(resume_from_c, t, message, sizeof message);
        /* If the thread's own stack is unknown, nothing proves that this downcall is beneath. */
        int raised = t->escaped && !no_query();
        CHECK(result == (raised ? -2 : 1) && strcmp(message, raised ? t->text : "") == 0);
    } else {
        resume_from_c(t);
    }
}

/* ---- the order of resumption ---- */

enum order { FIRST_IN_FIRST_OUT, LAST_IN_FIRST_OUT, IN_TURN, RANDOM, ORDERS };

static int open_calls(struct task *tasks, int count) {
    int calls = 0;
    for (int i = 0; i < count; i++)
        calls += 2 * tasks[i].level;
    return calls;
}

static void run_tasks(const struct coroutines *by, int count, enum order order, int catching,
                      struct service *service, int counts_calls) {
    struct task *tasks = calloc((size_t)count, sizeof *tasks);
    int *live = calloc((size_t)count, sizeof *live), left = count;
    uint64_t random = generator_of(seed);
    CHECK(tasks && live);
    for (int i = 0; i < count; i++) {
        live[i] = i;
        task_new(&tasks[i], by, i, service);
        task_resume(&tasks[i], catching);
    }
    for (unsigned step = 0; left > 0; step++) {
        int next[ORDERS] = {0, left - 1, (int)step % left, (int)draw(&random, (unsigned)left)};
        int at = next[order];
        struct task *t = &tasks[live[at]];
        if (!t->done)
            task_resume(t, catching);
        if (t->done && t->runs > 0) {
            t->runs--;
            task_begin(t);
        } else if (t->done) {
            memmove(&live[at], &live[at + 1], (size_t)(--left - at) * sizeof *live);
        }
        if (counts_calls && step % 64 == 0)
            CHECK(guest_open_calls() == open_calls(tasks, count));
    }
    for (int i = 0; i < count; i++)
        by->free(&tasks[i]);
    free(live);
    free(tasks);
}

/* Runs the first seeds with a thousand coroutines each, the others with a few. */
static void run_seeds(const struct coroutines *by, int locally) {
    struct service service = {guest_channel_new(1), guest_channel_new(1)};
    guest_fiber *fiber = NULL;
    if (locally)
        CHECK(upcall_local_begin() == 0 && upcall_local_spawn(serve_locally, &service) == 0);
    else
        fiber = guest_spawn(serve, &service);
    const char *only = getenv("HOST_SEED");
    for (seed = only ? atol(only) : 0; seed < (only ? atol(only) + 1 : SEEDS); seed++) {
        int count = seed < ORDERS ? MANY : 1 + (int)(seed % 12);
        run_tasks(by, count, (enum order)(seed % ORDERS), seed / ORDERS % 2, &service,
                  by->at_own_addresses && !locally);
        CHECK(locally || guest_open_calls() == 0);
        CHECK(guest_stacks_in_use() <= 16);
    }
    CHECK(guest_send(service.questions, 0) == 0);
    if (locally)
        CHECK(upcall_local_run_ready(SIZE_MAX) >= 0 && upcall_local_end() == 0);
    else
        CHECK(guest_join(fiber) == 0);
    CHECK(guest_open_calls() == 0);
    printf("%ld times left, %ld waits, %ld panics\n", switches, waits, panics);
    guest_channel_free(service.questions);
    guest_channel_free(service.answers);
}

#endif
