/* A scheduler of coroutines in C, and its hooks for upcall.
 *
 * One thread, one scheduler. Its loop runs the coroutines in its queue, takes ready ones from
 * upcall, and waits for their event when there are none. */
#ifndef SCHEDULER_H
#define SCHEDULER_H

#include "host.h"

struct scheduled {
    struct coroutine coroutine;
    struct memory stack;
    void (*body)(void *);
    void *argument;
    struct scheduled *next; /* in the queue */
    int queued;
    int killed;    /* it is to end: every suspension says so */
    int stays;     /* the scheduler cannot suspend it now */
    int suspended; /* it is in suspend() */
};

/* The scheduler of the calling thread. */
static __thread struct scheduled *running, *first, *last;
static __thread int live;              /* coroutines that have not ended */
static __thread int suspended_now;     /* coroutines in suspend() */
static __thread int most_suspended;
static __thread long switches;

static inline void to_be_run(struct scheduled *s) {
    if (s->queued)
        return;
    s->queued = 1;
    s->next = NULL;
    if (first)
        last->next = s;
    else
        first = s;
    last = s;
}

static inline void scheduled_start(struct coroutine *c, void *argument) {
    struct scheduled *s = argument;
    (void)c;
    s->body(s->argument);
}

/* Makes a coroutine on the given stack, and frees the stack at the end. */
static inline struct scheduled *schedule_in(struct memory stack, void (*body)(void *), void *argument) {
    struct scheduled *s = calloc(1, sizeof *s);
    CHECK(s != NULL);
    s->stack = stack;
    s->body = body;
    s->argument = argument;
    coroutine_init(&s->coroutine, stack.base, stack.size, scheduled_start, s);
    live++;
    to_be_run(s);
    return s;
}

static inline struct scheduled *schedule_on(size_t size, void (*body)(void *), void *argument) {
    return schedule_in(memory_new(GUARDED, size), body, argument);
}

static inline struct scheduled *schedule(void (*body)(void *), void *argument) {
    return schedule_on(64 << 10, body, argument);
}

/* Runs a coroutine until it is suspended or ends. Coroutines may run others. */
static inline void run_scheduled(struct scheduled *s) {
    struct scheduled *before = running;
    running = s;
    switches++;
    coroutine_resume(&s->coroutine);
    running = before;
    if (s->coroutine.done) {
        memory_free(s->stack);
        free(s);
        live--;
    }
}

/* Lets the others run, without upcall. */
static inline void give_way(void) {
    to_be_run(running);
    coroutine_yield(&running->coroutine);
}

/* The coroutine is to end. It goes on at once, to be told. */
static inline void kill_scheduled(struct scheduled *s) {
    s->killed = 1;
    to_be_run(s);
}

/* ---- the hooks ---- */

static void *scheduler_current(void *data) {
    CHECK(data == &running);
    return running;
}

static int scheduler_suspend(void *data, void *coroutine) {
    struct scheduled *s = coroutine;
    CHECK(data == &running && s == running);
    if (s->killed || s->stays)
        return s->killed ? 1 : -1;
    s->suspended++;
    if (++suspended_now > most_suspended)
        most_suspended = suspended_now;
    coroutine_yield(&s->coroutine);
    suspended_now--;
    s->suspended--;
    return s->killed;
}

static inline int install_scheduler(unsigned flags) {
    return upcall_coroutines_install(flags, &running, scheduler_current, scheduler_suspend, NULL);
}

/* Takes the ready coroutines from upcall. */
static inline void take_ready(void) {
    void *ready;
    int took;
    while ((took = upcall_coroutines_next_ready(&ready)) == 1)
        to_be_run(ready);
    CHECK(took == 0 && ready == NULL);
}

/* Runs one coroutine. Returns 0 if the queue is empty. */
static inline int run_once(void) {
    take_ready();
    struct scheduled *s = first;
    if (!s)
        return 0;
    first = s->next;
    s->queued = 0;
    run_scheduled(s);
    return 1;
}

/* Runs all coroutines to their ends. Fails if none can go on for ten seconds. */
static inline void run_scheduler(void) {
    event ready = coroutines_event();
    CHECK(ready != NO_EVENT);
    while (live > 0) {
        if (!run_once() && live > 0)
            CHECK(is_signalled(ready, 10000));
    }
}

#endif
