/* Upcalls that wait, from every possible stack of C. */
#include "host.h"

static char message[128];

static void *check_served(void *unused) {
    CHECK(guest_increment(1) == 2 && guest_yield() == 0 && guest_open_calls() == 0);
    return unused;
}

/* ---- C → Rust → C → Rust, with waits before and after each inner call ---- */

struct descent {
    int levels;
    int on_fiber;               /* the C below runs on the fiber, if any */
    struct coroutine *coroutine; /* suspended at each level */
    int bottom;                 /* how often the bottom was reached */
};

static int squares(void *n) { return (int)((intptr_t)n * (intptr_t)n); }

static int descend(void *argument) {
    struct descent *descent = argument;
    int level = descent->levels--;
    volatile char filler[300];
    for (size_t i = 0; i < sizeof filler; i++)
        filler[i] = (char)(level + i);
    if (descent->coroutine)
        coroutine_yield(descent->coroutine);
    CHECK(guest_join(guest_spawn(squares, (void *)(intptr_t)level)) == level * level);
    if (level > 0)
        CHECK((descent->on_fiber ? guest_wait_call_wait_on_fiber : guest_wait_call_wait)(descend, descent) == level - 1);
    else
        descent->bottom++;
    if (descent->coroutine)
        coroutine_yield(descent->coroutine);
    CHECK(guest_join(guest_spawn_on_fiber("squares", squares, (void *)5)) == 25);
    for (size_t i = 0; i < sizeof filler; i++)
        CHECK(filler[i] == (char)(level + i));
    return level;
}

enum { LEVELS = 4, ROUNDS = 50 };

static void *descend_there(void *unused) {
    for (int i = 0; i < ROUNDS; i++) {
        struct descent descent = {LEVELS, i % 2, NULL, 0};
        CHECK(descend(&descent) == LEVELS && descent.bottom == 1);
    }
    return check_served(unused);
}

static void on_main(void) { descend_there(NULL); }

static void on_pthreads(void) {
    enum { THREADS = 6 };
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, descend_there, NULL) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

static void descend_on_coroutine(struct coroutine *c, void *on_fiber) {
    struct descent descent = {LEVELS, on_fiber != NULL, c, 0};
    CHECK(descend(&descent) == LEVELS && descent.bottom == 1);
}

/* Coroutines suspend in the middle of their calls, and end in another order than they began. */
static void *coroutines_of_one_thread(void *registered) {
    enum { MANY = 3 };
    struct coroutine c[MANY];
    struct memory stacks[MANY];
    void *registrations[MANY];
    for (int round = 0; round < ROUNDS / 5; round++) {
        for (int i = 0; i < MANY; i++) {
            stacks[i] = memory_new(GUARDED, registered ? 512 << 10 : 64 << 10);
            registrations[i] = registered ? guest_register(stacks[i].base, stacks[i].size) : NULL;
            coroutine_init(&c[i], stacks[i].base, stacks[i].size, descend_on_coroutine, i % 2 ? &c : NULL);
        }
        for (int i = 0, left = MANY; left > 0; i = (i + 1 + round % 2) % MANY) {
            if (c[i].done)
                continue;
            coroutine_resume(&c[i]);
            left -= c[i].done;
        }
        for (int i = 0; i < MANY; i++) {
            if (registered)
                guest_unregister(registrations[i]);
            memory_free(stacks[i]);
        }
        check_served(NULL);
    }
    return NULL;
}

static void on_coroutines(void) {
    coroutines_of_one_thread(NULL);
    on_thread(NULL, 0, coroutines_of_one_thread, NULL);
}

static void on_registered_stacks(void) {
    coroutines_of_one_thread(message);
    on_thread(NULL, 0, coroutines_of_one_thread, message);
}

/* Fibers of workers wait for others: in C on the worker's stack, with the worker running its fibers
 * meanwhile, or in C on the fiber's own stack. */
static int descend_in_fiber(void *on_fiber) {
    struct descent descent = {LEVELS, on_fiber != NULL, NULL, 0};
    CHECK(descend(&descent) == LEVELS && descent.bottom == 1);
    return 11;
}

static void on_workers(void) {
    enum { FIBERS = 30 };
    guest_fiber *fibers[FIBERS];
    for (int i = 0; i < FIBERS; i++) {
        void *on_fiber = i % 2 ? message : NULL;
        fibers[i] = i % 4 < 2 ? guest_spawn(descend_in_fiber, on_fiber)
                              : guest_spawn_on_fiber("descends", descend_in_fiber, on_fiber);
    }
    for (int i = 0; i < FIBERS; i++)
        CHECK(guest_join(fibers[i]) == 11);
}

static void on_local_fibers(void) {
    enum { FIBERS = 10 };
    guest_fiber *fibers[FIBERS];
    CHECK(upcall_local_begin() == 0);
    for (int i = 0; i < FIBERS; i++)
        fibers[i] = guest_spawn_local(descend_in_fiber, i % 2 ? message : NULL);
    for (int i = 0; i < FIBERS; i++)
        CHECK(guest_join(fibers[i]) == 11);
    CHECK(upcall_local_end() == 0);
    check_served(NULL);
}

/* ---- panics after a wait ---- */

static guest_channel *gates[2];

static int wait_and_panic(void *text) {
    CHECK(guest_sleep(1) == 0);
    CHECK(guest_panic(text) == -1);
    CHECK(guest_yield() == 0); /* the panic is pending, and C is still served */
    return 3;
}

static int nested_panic(void *text) { return guest_wait_call_wait(wait_and_panic, text); }

static void *panics_there(void *unused) {
    CHECK(guest_catch(wait_and_panic, "after a wait", message, sizeof message) == -2);
    CHECK(strcmp(message, "after a wait") == 0);
    CHECK(guest_catch(nested_panic, "nested", message, sizeof message) == -2 && strcmp(message, "nested") == 0);
    return check_served(unused);
}

/* Two fibers are in the middle of C. Each panic reaches the downcall of its own fiber, in either
 * order. */
static int pass_gate_and_panic(void *n) {
    char text[] = "from fiber 0";
    text[sizeof text - 2] += (intptr_t)n;
    CHECK(guest_receive(gates[(intptr_t)n]) == 1);
    CHECK(guest_panic(text) == -1 && guest_yield() == 0);
    return 3;
}

static int panic_between_waits(void *n) { return guest_wait_call_wait_on_fiber(pass_gate_and_panic, n); }

static int catches(int (*catch)(guest_callback, void *, char *, size_t), guest_callback panics, intptr_t n) {
    char text[64];
    CHECK(catch(panics, (void *)n, text, sizeof text) == -2);
    CHECK(strncmp(text, "from fiber ", 11) == 0 && text[11] == '0' + n && text[12] == 0);
    return (int)n;
}

static int catches_on_fiber(void *n) { return catches(guest_catch_on_fiber, pass_gate_and_panic, (intptr_t)n); }
static int catches_deeper(void *n) { return catches(guest_catch_on_fiber, panic_between_waits, (intptr_t)n); }
static int catches_on_system(void *n) { return catches(guest_catch, pass_gate_and_panic, (intptr_t)n); }

static void panics(void) {
    guest_callback both[] = {catches_on_fiber, catches_deeper, catches_on_system};
    panics_there(NULL);
    on_thread(NULL, 0, panics_there, NULL);
    gates[0] = guest_channel_new(1);
    gates[1] = guest_channel_new(1);
    CHECK(upcall_local_begin() == 0);
    for (int i = 0; i < 12; i++) {
        int first = i % 2;
        guest_fiber *fibers[2];
        for (intptr_t n = 0; n < 2; n++)
            fibers[n] = guest_spawn_local(both[i / 2 % 3], (void *)n);
        if (both[i / 2 % 3] != catches_on_system)
            CHECK(upcall_local_run_ready(2) == 2);
        CHECK(guest_send(gates[first], 1) == 0 && guest_send(gates[!first], 1) == 0);
        CHECK(guest_join(fibers[first]) == first && guest_join(fibers[!first]) == !first);
        for (int n = 0; n < 2; n++)
            fibers[n] = i < 6 ? guest_spawn(both[i / 2 % 3], (void *)(intptr_t)n)
                              : guest_spawn_on_fiber("catches", both[i / 2 % 3], (void *)(intptr_t)n);
        CHECK(guest_send(gates[first], 1) == 0 && guest_send(gates[!first], 1) == 0);
        CHECK(guest_join(fibers[0]) == 0 && guest_join(fibers[1]) == 1);
    }
    CHECK(upcall_local_end() == 0);
    check_served(NULL);
}

/* ---- fibers that run while C waits ---- */

static guest_channel *there, *back;

static int answer(void *unused) {
    (void)unused;
    CHECK(guest_send(back, guest_receive(there) + 1) == 0);
    return 1;
}

static int ask_here(void *unused) {
    (void)unused;
    return guest_receive(back);
}

static int ask_pooled(void *unused) {
    (void)unused;
    return guest_receive_pooled(back);
}

static void receive_on_coroutine(struct coroutine *c, void *number) {
    (void)c;
    *(int *)number = guest_receive(back);
}

static int ask_on_coroutine(void *unused) {
    int number;
    struct coroutine c;
    struct memory stack = memory_new(GUARDED, 64 << 10);
    (void)unused;
    coroutine_init(&c, stack.base, stack.size, receive_on_coroutine, &number);
    coroutine_resume(&c);
    CHECK(c.done);
    memory_free(stack);
    return number;
}

/* With UPCALL_WORKERS=1, C on the worker's stack waits for a number from another fiber of this
 * worker. */
static void meanwhile_on_worker(void) {
    guest_callback asks[] = {ask_here, ask_pooled, ask_on_coroutine};
    there = guest_channel_new(1);
    back = guest_channel_new(1);
    for (int i = 0; i < 9; i++) {
        guest_fiber *answers = guest_spawn_on_fiber("answers", answer, NULL);
        guest_fiber *asking = guest_spawn(asks[i % 3], NULL);
        CHECK(guest_sleep(5) == 0 && !guest_is_finished(asking));
        CHECK(guest_send(there, i) == 0);
        CHECK(guest_join(asking) == i + 1 && guest_join(answers) == 1);
    }
}

/* Each fiber is in C, in a wait nested inside the previous fiber's wait. As many nest as there is
 * room for; the others begin later. */
enum { MANY = 400 };
static _Atomic int waiting;

static int wait_inside(void *unused) {
    (void)unused;
    waiting++;
    CHECK(guest_receive(back) == 1);
    return 0;
}

static void *send_when_settled(void *unused) {
    for (int before = -1; before == -1 || before != waiting; usleep(200000))
        before = waiting;
    for (int i = 0; i < MANY; i++)
        CHECK(guest_send(back, 1) == 0);
    return unused;
}

static void *wait_inside_waits(void *unused) {
    guest_fiber *fibers[MANY];
    pthread_t sender;
    waiting = 0;
    CHECK(upcall_local_begin() == 0);
    for (int i = 0; i < MANY; i++)
        fibers[i] = guest_spawn_repeating(0, wait_inside, NULL);
    CHECK(pthread_create(&sender, NULL, send_when_settled, NULL) == 0);
    for (int i = 0; i < MANY; i++)
        CHECK(guest_join(fibers[i]) == 0);
    CHECK(pthread_join(sender, NULL) == 0);
    CHECK(waiting == MANY && upcall_local_end() == 0);
    return unused;
}

static void meanwhile_on_small_stacks(void) {
    back = guest_channel_new(MANY);
    /* Without known bounds, no room can be reserved. */
    for (size_t size = no_query() ? 4 << 20 : 64 << 10; size <= 4 << 20; size *= 4)
        on_thread(NULL, size, wait_inside_waits, NULL);
}

/* ---- fibers resumed from changing depths ---- */

/* Overwrites the stack below the fiber's resumer, in a downcall of the fiber. */
static int overwrite(void *times) {
    volatile char filler[6000];
    for (size_t i = 0; i < sizeof filler; i++)
        filler[i] = (char)0xee;
    return (*(int *)times)-- > 0 ? 1 : filler[1] == (char)0xee ? 0 : 2;
}

static int resume_at_depth(void *depth) {
    intptr_t left = (intptr_t)depth;
    volatile char filler[500];
    for (size_t i = 0; i < sizeof filler; i++)
        filler[i] = (char)(left + i);
    if (left == 0)
        CHECK(upcall_local_run_ready(3) <= 3);
    else if (left % 5 == 1)
        CHECK(guest_call_pooled(resume_at_depth, (void *)(left - 1)) == 1);
    else if (left % 5 == 3)
        CHECK(guest_call(resume_at_depth, (void *)(left - 1)) == 1);
    else
        CHECK(resume_at_depth((void *)(left - 1)) == 1);
    for (size_t i = 0; i < sizeof filler; i++)
        CHECK(filler[i] == (char)(left + i));
    return 1;
}

static void resume_from_fiber(void *unused) {
    (void)unused;
    for (int i = 0; i < 30; i++) {
        CHECK(resume_at_depth((void *)(intptr_t)(i * 7 % 23)) == 1);
        CHECK(guest_yield() == 0);
    }
}

static void resume_from_coroutine(struct coroutine *c, void *unused) {
    (void)unused;
    for (int i = 0; i < 30; i++) {
        CHECK(resume_at_depth((void *)(intptr_t)(i * 11 % 13)) == 1);
        coroutine_yield(c);
    }
}

static void depths(void) {
    enum { FIBERS = 6, TIMES = 200 };
    guest_fiber *fibers[FIBERS];
    int times[FIBERS];
    struct coroutine c;
    struct memory stack = memory_new(GUARDED, 128 << 10);
    CHECK(upcall_local_begin() == 0);
    for (int i = 0; i < FIBERS; i++) {
        times[i] = TIMES;
        fibers[i] = guest_spawn_repeating(i % 2 * (300 << 10), overwrite, &times[i]);
    }
    coroutine_init(&c, stack.base, stack.size, resume_from_coroutine, NULL);
    CHECK(upcall_local_spawn(resume_from_fiber, NULL) == 0);
    for (int i = 0; times[0] >= 0; i++) {
        CHECK(resume_at_depth((void *)(intptr_t)(i * 13 % 40)) == 1);
        if (!c.done)
            coroutine_resume(&c);
    }
    for (int i = 0; i < FIBERS; i++)
        CHECK(guest_join(fibers[i]) == TIMES);
    CHECK(c.done && upcall_local_run_ready(SIZE_MAX) == 0 && upcall_local_end() == 0);
    memory_free(stack);
    check_served(NULL);
}

/* ---- two threads ---- */

enum { TURNS = 100000 };

static void *returns_balls(void *unused) {
    for (int i = 0; i < TURNS; i++)
        CHECK(guest_send(back, guest_receive(there) + 1) == 0);
    return unused;
}

static void ping_pong(void) {
    pthread_t other;
    there = guest_channel_new(1);
    back = guest_channel_new(1);
    double began = milliseconds(CLOCK_MONOTONIC);
    CHECK(pthread_create(&other, NULL, returns_balls, NULL) == 0);
    for (int i = 0; i < TURNS; i++) {
        CHECK(guest_send(there, i) == 0);
        CHECK(guest_receive(back) == i + 1);
    }
    CHECK(pthread_join(other, NULL) == 0);
    printf("%d turns, %.2f us each\n", TURNS, (milliseconds(CLOCK_MONOTONIC) - began) * 1e3 / TURNS);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"on_main", on_main},
        {"on_pthreads", on_pthreads},
        {"on_coroutines", on_coroutines},
        {"on_registered_stacks", on_registered_stacks},
        {"on_workers", on_workers},
        {"on_local_fibers", on_local_fibers},
        {"panics", panics},
        {"meanwhile_on_worker", meanwhile_on_worker},
        {"meanwhile_on_small_stacks", meanwhile_on_small_stacks},
        {"depths", depths},
        {"ping_pong", ping_pong},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
