/* Coroutines in the manner of greenlet: all run at the same addresses.
 *
 * A switch copies the suspended coroutine's frames away and the resumed one's frames back. So
 * suspended calls have equal addresses, and other frames occupy their places.
 *
 *     high ┌────────────────────┐ place.high
 *          │ frames of the      │ on suspension, copied to `slice`;
 *          │ running coroutine  │ on resumption, copied back
 *          ├────────────────────┤ its SP
 *          │ unused             │
 *      low └────────────────────┘ place.high - DEPTH
 */
#include "tasks.h"

/* ---- coroutines by copying ---- */

struct copied {
    ucontext_t self;
    void (*body)(struct copied *, void *);
    void *argument;
    struct copied *resumer;
    char *slice; /* its frames, while suspended */
    size_t size;
    int begun, done;
};

enum { DEPTH = 512 << 10 };

/* The coroutines run below `high`. The copier switches them, on a stack of its own, never
 * copied. */
static __thread struct {
    char *high;
    ucontext_t copier;
    char copier_stack[64 << 10];
    struct copied outside; /* the first resumer: on another stack, never copied */
    struct copied *running, *next;
} place;

static void copied_start(void) {
    struct copied *c = place.running;
    c->body(c, c->argument);
    c->done = 1;
    place.next = c->resumer;
    setcontext(&place.copier);
}

static void save(struct copied *c) {
    if (c == &place.outside || c->done)
        return;
    CHECK((c->slice = malloc(c->size)) != NULL);
    memcpy(c->slice, place.high - c->size, c->size);
}

static void load(struct copied *c) {
    if (c == &place.outside)
        return;
    if (c->begun) {
        memcpy(place.high - c->size, c->slice, c->size);
        free(c->slice);
        return;
    }
    c->begun = 1;
    CHECK(getcontext(&c->self) == 0);
    c->self.uc_stack.ss_sp = place.high - DEPTH;
    c->self.uc_stack.ss_size = DEPTH;
    makecontext(&c->self, copied_start, 0);
}

/* Runs on the copier's own stack. The suspended coroutine has saved its registers and needs only
 * its top `size` bytes. */
static void copy_for_ever(void) {
    for (;;) {
        save(place.running);
        load(place.next);
        place.running = place.next;
        CHECK(swapcontext(&place.copier, &place.running->self) == 0);
    }
}

static __attribute__((noinline)) void switch_to(struct copied *next) {
    struct copied *running = place.running;
    /* This function's frame and the data pushed by swapcontext take less than 1 KiB. */
    running->size = (size_t)(place.high - (char *)__builtin_frame_address(0)) + 1024;
    place.next = next;
    CHECK(swapcontext(&running->self, &place.copier) == 0);
}

static void copied_init(struct copied *c, void (*body)(struct copied *, void *), void *argument) {
    memset(c, 0, sizeof *c);
    c->body = body;
    c->argument = argument;
}

static void copied_resume(struct copied *c) {
    c->resumer = place.running;
    switch_to(c);
}

static void copied_yield(struct copied *c) { switch_to(c->resumer); }

/* Runs the coroutines below `high` from now on. If `high` is NULL, runs them on the thread's own
 * stack, below all frames of the caller. */
static void copied_begin(char *high) {
    place.high = high ? high : (char *)((uintptr_t)__builtin_frame_address(0) & ~(uintptr_t)4095) - (1 << 20);
    place.running = &place.outside;
    CHECK(getcontext(&place.copier) == 0);
    place.copier.uc_stack.ss_sp = place.copier_stack;
    place.copier.uc_stack.ss_size = sizeof place.copier_stack;
    makecontext(&place.copier, copy_for_ever, 0);
}

/* ---- the random tasks ---- */

static void copied_task_new(struct task *t) { CHECK((t->coroutine = malloc(sizeof(struct copied))) != NULL); }
static void copied_task_free(struct task *t) { free(t->coroutine); }

static void run_copied(struct copied *c, void *task) {
    (void)c;
    task_run(task);
}

static void copied_task_begin(struct task *t) { copied_init(t->coroutine, run_copied, t); }
static void copied_task_resume(struct task *t) { copied_resume(t->coroutine); }
static void copied_task_leave(struct task *t) { copied_yield(t->coroutine); }

static const struct coroutines by_copying = {
    copied_task_new, copied_task_begin, copied_task_resume, copied_task_leave, copied_task_free, 0,
};

static void *seeds_on_own_stack(void *locally) {
    copied_begin(NULL);
    run_seeds(&by_copying, locally != NULL);
    return NULL;
}

static void on_main(void) { seeds_on_own_stack(NULL); }
static void on_pthread(void) { on_thread(NULL, 0, seeds_on_own_stack, NULL); }
static void with_local_runtime(void) { seeds_on_own_stack(&seed); }

/* Runs all coroutines on one stack other than the thread's, undescribed or registered. */
static void on_other_stack(int registered) {
    struct memory memory = memory_new(GUARDED, DEPTH);
    void *registration = registered ? guest_register(memory.base, memory.size) : NULL;
    copied_begin(memory.base + memory.size);
    run_seeds(&by_copying, 0);
    if (registered)
        guest_unregister(registration);
    memory_free(memory);
}

static void on_foreign_stack(void) { on_other_stack(0); }
static void on_registered_stack(void) { on_other_stack(1); }

/* ---- waits that suspend, by hooks ---- */

static void *copied_current(void *unused) {
    (void)unused;
    return place.running == &place.outside ? NULL : place.running;
}

static struct copied *killed;

static int copied_suspend(void *unused, void *coroutine) {
    (void)unused;
    CHECK(coroutine == place.running);
    if (coroutine != killed)
        copied_yield(coroutine);
    return coroutine == killed;
}

/* ---- the random tasks again, after the host has said that it copies ---- */

static int cannot_suspend(void *unused, void *coroutine) {
    (void)unused;
    CHECK(coroutine == place.running);
    return -1;
}

static void *told_on_own_stack(void *unused) {
    unsigned flags = UPCALL_COROUTINES_STACKS_MOVE;
    copied_begin(NULL);
    CHECK(upcall_coroutines_install(flags, NULL, copied_current, cannot_suspend, NULL) == 0);
    run_seeds(&by_copying, 0);
    CHECK(upcall_coroutines_uninstall(0) == 0);
    return unused;
}

static void told_on_main(void) { told_on_own_stack(NULL); }
static void told_on_pthread(void) { on_thread(NULL, 0, told_on_own_stack, NULL); }

/* ---- waits by many, woken while they are copied away ---- */

enum { LISTENERS = 50, ROUNDS = 40 };
static guest_bell *bell;
static guest_channel *channel;
static int heard, ringing = 1;

static int listens(void *levels) {
    volatile char filler[600];
    intptr_t left = (intptr_t)levels;
    for (size_t i = 0; i < sizeof filler; i++)
        filler[i] = (char)(left + i);
    if (left > 0)
        CHECK(guest_call(listens, (void *)(left - 1)) == left - 1);
    CHECK(guest_bell_wait(bell) == (place.running == killed ? -1 : 0));
    for (size_t i = 0; i < sizeof filler; i++)
        CHECK(filler[i] == (char)(left + i));
    return (int)left;
}

static void listen_often(struct copied *c, void *number) {
    for (int i = 0; i < ROUNDS; i++) {
        CHECK(listens((void *)((intptr_t)number % 3)) == (intptr_t)number % 3);
        CHECK(guest_send(channel, i) == 0 && guest_receive(channel) >= 0);
    }
    CHECK(c != killed);
    heard++;
}

static int stays_there(void *unused) {
    (void)unused;
    CHECK(guest_bell_wait(bell) == -1 && guest_sleep(60000) == -1);
    return 3;
}

static void be_killed(struct copied *c, void *unused) {
    CHECK(c == place.running && guest_call(stays_there, unused) == -1);
    heard++;
}

/* Writes to the places of waiting calls, while the stack holds the frames of others. */
static void *rings(void *unused) {
    while (__atomic_load_n(&ringing, __ATOMIC_SEQ_CST)) {
        guest_bell_ring(bell);
        usleep(20);
    }
    return unused;
}

/* Overwrites the stack of the suspended coroutines, further down than any of their frames. */
static __attribute__((noinline)) void use_their_stack(void) { CHECK(use_most(NULL) == 0); }

static void run_listeners(void) {
    static struct copied listeners[LISTENERS], victim;
    pthread_t ringer;
    void *ready;
    unsigned flags = UPCALL_COROUTINES_STACKS_MOVE;
    CHECK(upcall_coroutines_install(flags, NULL, copied_current, copied_suspend, NULL) == 0);
    bell = guest_bell_new();
    channel = guest_channel_new(LISTENERS);
    copied_init(&victim, be_killed, NULL);
    copied_resume(&victim);
    CHECK(!victim.done && guest_suspended_coroutines() == 1);
    CHECK(pthread_create(&ringer, NULL, rings, NULL) == 0);
    for (intptr_t i = 0; i < LISTENERS; i++) {
        copied_init(&listeners[i], listen_often, (void *)i);
        copied_resume(&listeners[i]);
    }
    killed = &victim;
    copied_resume(&victim);
    CHECK(victim.done && heard == 1);
    while (heard < LISTENERS + 1) {
        int took = upcall_coroutines_next_ready(&ready);
        if (took == 1 && ready != &victim)
            copied_resume(ready);
        use_their_stack();
    }
    __atomic_store_n(&ringing, 0, __ATOMIC_SEQ_CST);
    CHECK(pthread_join(ringer, NULL) == 0);
    CHECK(upcall_coroutines_uninstall(0) == 0 && guest_open_calls() == 0);
}

static void *suspends_on_own_stack(void *unused) {
    copied_begin(NULL);
    run_listeners();
    return unused;
}

static void suspended_on_main(void) { suspends_on_own_stack(NULL); }
static void suspended_on_pthread(void) { on_thread(NULL, 0, suspends_on_own_stack, NULL); }

static void suspended_on_foreign_stack(void) {
    struct memory memory = memory_new(GUARDED, DEPTH);
    copied_begin(memory.base + memory.size);
    run_listeners();
    memory_free(memory);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"on_main", on_main},
        {"on_pthread", on_pthread},
        {"with_local_runtime", with_local_runtime},
        {"on_foreign_stack", on_foreign_stack},
        {"on_registered_stack", on_registered_stack},
        {"told_on_main", told_on_main},
        {"told_on_pthread", told_on_pthread},
        {"suspended_on_main", suspended_on_main},
        {"suspended_on_pthread", suspended_on_pthread},
        {"suspended_on_foreign_stack", suspended_on_foreign_stack},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
