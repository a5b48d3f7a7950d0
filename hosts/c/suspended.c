/* Waits that suspend the coroutines of a scheduler in C, by its hooks. */
#include "scheduler.h"

static int ended;

static void begin(void) { CHECK(install_scheduler(0) == 0); }

/* Everything is over: nothing is suspended, and waits on the thread's own stack block. */
static void check_over(void) {
    CHECK(live == 0 && suspended_now == 0 && guest_open_calls() == 0);
    CHECK(guest_sleep(1) == 0 && guest_increment(1) == 2);
}

/* ---- many wait at one time ---- */

enum { MANY = 200 };

static void sleep_ten(void *unused) {
    (void)unused;
    CHECK(guest_sleep(10) == 0);
    ended++;
}

static void sleeps(void) {
    begin();
    double before = milliseconds(CLOCK_MONOTONIC);
    for (int i = 0; i < MANY; i++)
        schedule(sleep_ten, NULL);
    run_scheduler();
    CHECK(ended == MANY && most_suspended == MANY);
    /* One after the other, they would take two seconds. */
    CHECK(milliseconds(CLOCK_MONOTONIC) - before < 1500);
    /* Their wakers do not block, so the timer needs no second thread. */
    CHECK(threads_named("upcall-timer") == 1);
    check_over();
}

/* ---- ten thousand, or HOST_COROUTINES: memory is flat, and waits stay as cheap ----
 *
 * 32 bits have addresses for a few thousand pooled stacks. */

enum { FEW = 1000, ROUNDS = 8 };
static guest_channel *gates[2]; /* in turn, so nobody passes twice in a round */

static void pass_gates(void *rounds) {
    for (intptr_t round = 0; round < (intptr_t)rounds; round++)
        CHECK(guest_receive(gates[round % 2]) == round);
    ended++;
}

/* Suspends `count` coroutines in waits, and wakes all of them, in `rounds` rounds. Returns the
 * microseconds of the processor a wait, in the fastest one. */
static double pass_rounds(int count, int rounds) {
    double fastest = 1e9;
    long resident = 0;
    for (int i = 0; i < 2; i++)
        gates[i] = guest_channel_new((size_t)count);
    ended = most_suspended = 0;
    for (int i = 0; i < count; i++)
        schedule_in(memory_new(MALLOCED, 16 << 10), pass_gates, (void *)(intptr_t)rounds);
    while (run_once())
        continue;
    for (int round = 0; round < rounds; round++) {
        CHECK(suspended_now == count && live == count && ended == 0);
        double before = milliseconds(CLOCK_PROCESS_CPUTIME_ID);
        for (int i = 0; i < count; i++)
            CHECK(guest_send(gates[round % 2], round) == 0);
        while (run_once())
            continue;
        double took = 1000 * (milliseconds(CLOCK_PROCESS_CPUTIME_ID) - before) / count;
        /* Coroutines end in the last round, which is no measure. */
        if (took < fastest && round < rounds - 1)
            fastest = took;
        if (round == 1)
            resident = resident_kib();
        else if (round > 1 && round < rounds - 1)
            CHECK(resident_kib() - resident < 512);
    }
    CHECK(ended == count && most_suspended == count);
    for (int i = 0; i < 2; i++)
        guest_channel_free(gates[i]);
    printf("%d coroutines: %.2f microseconds a wait, %.1f KiB each\n", count, fastest, (double)resident / count);
    return fastest;
}

static void many(void) {
    const char *set = getenv("HOST_COROUTINES");
    int count = set ? atoi(set) : sizeof(void *) < 8 ? 1500 : 10000;
    begin();
    double few = pass_rounds(FEW, ROUNDS * count / FEW < 80 ? ROUNDS * count / FEW : 80);
    double all = pass_rounds(count, ROUNDS);
    /* Windows counts the time of the processor in ticks of 15 ms, too few for this. */
    CHECK(all < 4 * few || few == 0);
    check_over();
}

/* ---- messages: woken by a coroutine of the same thread, and by other threads ---- */

enum { MESSAGES = 300 };
static guest_channel *to[MANY], *from[MANY];

static void echo(void *n) {
    for (int i = 0; i < MESSAGES; i++)
        CHECK(guest_send(from[(intptr_t)n], guest_receive(to[(intptr_t)n]) + 1) == 0);
    ended++;
}

static void ask(void *n) {
    for (int i = 0; i < MESSAGES; i++) {
        CHECK(guest_send(to[(intptr_t)n], i) == 0);
        CHECK(guest_receive(from[(intptr_t)n]) == i + 1);
    }
    ended++;
}

static void make_channels(int count) {
    for (int n = 0; n < count; n++) {
        to[n] = guest_channel_new(1 + n % 3);
        from[n] = guest_channel_new(1);
    }
}

static void messages(void) {
    begin();
    make_channels(10);
    for (intptr_t n = 0; n < 10; n++) {
        schedule(echo, (void *)n);
        schedule(ask, (void *)n);
    }
    run_scheduler();
    CHECK(ended == 20);
    check_over();
}

static void *ask_all(void *unused) {
    for (int i = 0; i < MESSAGES; i++)
        for (int n = 0; n < 10; n++)
            CHECK(guest_send(to[n], i) == 0);
    return unused;
}

static void *hear_all(void *unused) {
    for (int i = 0; i < MESSAGES; i++)
        for (int n = 0; n < 10; n++)
            CHECK(guest_receive(from[n]) == i + 1);
    return unused;
}

static void other_threads(void) {
    pthread_t threads[2];
    begin();
    make_channels(10);
    CHECK(pthread_create(&threads[0], NULL, ask_all, NULL) == 0 && pthread_create(&threads[1], NULL, hear_all, NULL) == 0);
    for (intptr_t n = 0; n < 10; n++)
        schedule(echo, (void *)n);
    run_scheduler();
    CHECK(pthread_join(threads[0], NULL) == 0 && pthread_join(threads[1], NULL) == 0);
    CHECK(ended == 10);
    check_over();
}

/* ---- nested: Rust → C → Rust, with a wait at each level ---- */

static int square(void *n) {
    CHECK(guest_sleep(1) == 0);
    return (int)((intptr_t)n * (intptr_t)n);
}

struct descent {
    int levels, on_fiber;
};

static int descend(void *argument) {
    struct descent *descent = argument;
    int level = descent->levels--;
    volatile char filler[300];
    for (size_t i = 0; i < sizeof filler; i++)
        filler[i] = (char)(level + i);
    CHECK(guest_join(guest_spawn(square, (void *)(intptr_t)level)) == level * level);
    if (running && level % 2)
        give_way();
    if (level > 0)
        CHECK((descent->on_fiber ? guest_wait_call_wait_on_fiber : guest_wait_call_wait)(descend, descent) == level - 1);
    CHECK(guest_sleep(level % 3) == 0);
    for (size_t i = 0; i < sizeof filler; i++)
        CHECK(filler[i] == (char)(level + i));
    return level;
}

static void descend_there(void *on_fiber) {
    struct descent descent = {4, on_fiber != NULL};
    CHECK(descend(&descent) == 4);
    ended++;
}

static void nested(void) {
    begin();
    for (int i = 0; i < 40; i++)
        schedule(descend_there, i % 2 ? &ended : NULL);
    run_scheduler();
    CHECK(ended == 40 && most_suspended > 20);
    check_over();
}

/* ---- the same on stacks with exact bounds: upcalls run in place ---- */

static void descend_registered(void *on_fiber) {
    void *registration = guest_register(running->stack.base, running->stack.size);
    CHECK(registration != NULL);
    descend_there(on_fiber);
    guest_unregister(registration);
}

static void registered(void) {
    begin();
    for (int i = 0; i < 20; i++)
        schedule_on(1 << 20, descend_registered, NULL);
    run_scheduler();
    CHECK(ended == 20);
    check_over();
}

#ifndef _WIN32
/* ---- a coroutine that begins with a made-up return address, as those of Perl's Coro do ---- */

#ifdef __x86_64__
/* It "returns" to the start of `begun`. An unwinder takes that for the end of the code before, and
 * looks for the caller of that at address 64. */
void without_end(void (*body)(void *), void *argument);
__asm__(".text\n"
        ".cfi_startproc\n"
        ".cfi_def_cfa rbx, 16\n"
        "nop\n"
        ".cfi_endproc\n"
        "begun:\n"
        ".cfi_startproc\n"
        "pop %rbx\n"
        "ret\n"
        ".cfi_endproc\n"
        "without_end:\n"
        "push %rbx\n"
        "mov $64, %ebx\n"
        "lea begun(%rip), %rax\n"
        "push %rax\n"
        "mov %rdi, %rax\n"
        "mov %rsi, %rdi\n"
        "jmp *%rax\n");
#else
static void without_end(void (*body)(void *), void *argument) { body(argument); }
#endif

static void descend_and_panic(void *on_fiber) {
    CHECK(guest_panic("on a coroutine without an end") == -1);
    descend_there(on_fiber);
}

static void descend_without_end(void *on_fiber) { without_end(descend_and_panic, on_fiber); }

static void endless(void) {
    begin();
    for (int i = 0; i < 20; i++)
        schedule(descend_without_end, i % 2 ? &ended : NULL);
    run_scheduler();
    CHECK(ended == 20);
    check_over();
}
#endif

/* ---- fibers of ours and coroutines of the host, one inside the other ---- */

static int descend_in_fiber(void *on_fiber) {
    descend_there(on_fiber);
    return 7;
}

/* A worker's fiber makes downcalls on the worker's stack; a local fiber on that of a coroutine. */
static void join_there(void *unused) {
    (void)unused;
    CHECK(guest_join(guest_spawn(descend_in_fiber, NULL)) == 7);
    CHECK(guest_join(guest_spawn_on_fiber("there", descend_in_fiber, &ended)) == 7);
    ended++;
}

static void drive_locals(void *unused) {
    (void)unused;
    while (live > 1) {
        CHECK(upcall_local_run_ready(4) >= 0);
        CHECK(guest_sleep(1) == 0);
    }
}

static void local_fiber(void *unused) {
    (void)unused;
    for (int i = 0; i < 5; i++)
        CHECK(guest_sleep(1) == 0);
    ended++;
}

static void join_local(void *unused) {
    (void)unused;
    CHECK(guest_join(guest_spawn_local(descend_in_fiber, NULL)) == 7);
    ended++;
}

static void fibers(void) {
    begin();
    CHECK(upcall_local_begin() == 0);
    for (int i = 0; i < 10; i++) {
        schedule(join_there, NULL);
        schedule(join_local, NULL);
        CHECK(upcall_local_spawn(local_fiber, NULL) == 0);
    }
    schedule(drive_locals, NULL);
    run_scheduler();
    while (upcall_local_run_ready(100) > 0)
        continue;
    CHECK(upcall_local_end() == 0);
    CHECK(ended == 10 * (1 + 2 + 1 + 1) + 10);
    check_over();
}

/* ---- killed ---- */

static guest_channel *never;
static int told;

static void receive_until_killed(void *unused) {
    (void)unused;
    CHECK(guest_receive(never) == -1);
    /* It stays killed: further waits end at once, unless they are ready. */
    CHECK(guest_sleep(60000) == -1 && guest_increment(1) == 2);
    told++;
}

/* The wait is in an inner upcall: it unwinds, and so does the outer one once C has returned. */
static int receive_inside(void *unused) {
    receive_until_killed(unused);
    return 3;
}

static void receive_nested(void *unused) {
    CHECK(guest_call(receive_inside, unused) == -1);
    told++;
}

static struct scheduled *victims[MANY];

static void kill_all(void *unused) {
    (void)unused;
    CHECK(guest_sleep(5) == 0);
    for (int i = 0; i < MANY; i++)
        kill_scheduled(victims[i]);
}

static void killed(void) {
    begin();
    never = guest_channel_new(1);
    for (int i = 0; i < MANY; i++)
        victims[i] = schedule(i % 2 ? receive_nested : receive_until_killed, NULL);
    schedule(kill_all, NULL);
    run_scheduler();
    CHECK(told == MANY + MANY / 2);
    /* The futures are gone: a message is left for the next receiver. */
    CHECK(guest_send(never, 5) == 0 && guest_receive(never) == 5);
    check_over();
}

/* The scheduler itself runs in an upcall. The deaths of its coroutines do not concern this one. */
static int run_killed(void *unused) {
    (void)unused;
    for (int i = 0; i < MANY; i++)
        victims[i] = schedule(i % 2 ? receive_nested : receive_until_killed, NULL);
    schedule(kill_all, NULL);
    run_scheduler();
    return 7;
}

static void killed_inside(void) {
    begin();
    never = guest_channel_new(1);
    CHECK(guest_call(run_killed, NULL) == 7 && guest_call_pooled(run_killed, NULL) == 7);
    CHECK(told == 2 * (MANY + MANY / 2));
    check_over();
}

/* ---- the host cannot switch at a wait ---- */

static int turns;

static void give_way_always(void *unused) {
    (void)unused;
    while (!ended) {
        turns++;
        give_way();
    }
}

static void sleep_thrice(void *unused) {
    (void)unused;
    CHECK(guest_sleep(5) == 0 && turns > 0);
    int before = turns;
    running->stays = 1;
    CHECK(guest_sleep(5) == 0 && turns == before);
    running->stays = 0;
    CHECK(guest_sleep(5) == 0 && turns > before);
    ended++;
}

static void not_suspended(void) {
    begin();
    schedule(sleep_thrice, NULL);
    schedule(give_way_always, NULL);
    run_scheduler();
    CHECK(ended == 1);
    check_over();
}

/* ---- resumed without a wake, and woken without a resumption ---- */

static void resumed_too_soon(void) {
    begin();
    make_channels(1);
    struct scheduled *s = schedule(echo, (void *)0);
    for (int i = 0; i < 100; i++) {
        to_be_run(s);
        CHECK(run_once());
        CHECK(live == 1 && suspended_now == 1);
    }
    for (int i = 0; i < MESSAGES; i++) {
        CHECK(guest_send(to[0], i) == 0);
        for (int round = 0; round < 3 && !ended; round++) {
            to_be_run(s);
            CHECK(run_once());
        }
        CHECK(guest_receive(from[0]) == i + 1);
    }
    first = NULL;
    run_scheduler();
    CHECK(ended == 1);
    check_over();
}

/* ---- the descriptor is level-triggered, and quiet afterwards ---- */

static int readable(void) { return is_signalled(coroutines_event(), 0); }

static void descriptor(void) {
    begin();
    CHECK(!readable());
    make_channels(2);
    schedule(echo, (void *)0);
    schedule(echo, (void *)1);
    CHECK(run_once() && run_once() && suspended_now == 2 && !readable());
    CHECK(guest_send(to[0], 1) == 0 && guest_send(to[1], 1) == 0);
    void *ready = NULL;
    CHECK(readable() && readable());
    CHECK(upcall_coroutines_next_ready(&ready) == 1 && ready != NULL && readable());
    to_be_run(ready);
    CHECK(upcall_coroutines_next_ready(&ready) == 1 && ready != NULL);
    to_be_run(ready);
    CHECK(upcall_coroutines_next_ready(&ready) == 0 && ready == NULL && !readable());
    CHECK(run_once() && run_once());
    CHECK(guest_receive(from[0]) == 2 && guest_receive(from[1]) == 2);
    ended = live = suspended_now = 0;
}

/* ---- bad uses ---- */

static void misused(void) {
    void *ready = &ready;
    CHECK(upcall_coroutines_install(0, NULL, NULL, scheduler_suspend, NULL) == -1 && last_panic_says("current is null"));
    CHECK(upcall_coroutines_install(0, NULL, scheduler_current, NULL, NULL) == -1 && last_panic_says("suspend is null"));
    CHECK(install_scheduler(64) == -1 && last_panic_says("unknown flag"));
    CHECK(upcall_coroutines_uninstall(0) == -1 && last_panic_says("there are no hooks"));
    CHECK(upcall_coroutines_uninstall(8) == -1 && last_panic_says("0x8 has an unknown flag"));
    CHECK(upcall_coroutines_next_ready(NULL) == -1 && last_panic_says("coroutine is null"));
    CHECK(upcall_coroutines_next_ready(&ready) == 0 && ready == NULL && upcall_coroutines_run_ready(1) == 0);
    begin();
    CHECK(install_scheduler(0) == -1 && last_panic_says("installed already"));
    CHECK(install_scheduler(UPCALL_COROUTINES_PROCESS) == 0);
    CHECK(install_scheduler(UPCALL_COROUTINES_PROCESS) == -1 && last_panic_says("installed already"));
    make_channels(1);
    schedule(echo, (void *)0);
    CHECK(run_once() && suspended_now == 1 && guest_send(to[0], 1) == 0);
    CHECK(upcall_coroutines_run_ready(1) == -1 && last_panic_says("without a function resume"));
    CHECK(upcall_coroutines_next_ready(&ready) == 1 && ready != NULL);
    CHECK(upcall_coroutines_uninstall(0) == 0 && upcall_coroutines_uninstall(UPCALL_COROUTINES_PROCESS) == 0);
    CHECK(upcall_coroutines_uninstall(UPCALL_COROUTINES_PROCESS) == -1);
    CHECK(guest_sleep(1) == 0);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"sleeps", sleeps},
        {"many", many},
        {"messages", messages},
        {"other_threads", other_threads},
        {"nested", nested},
        {"registered", registered},
        {"fibers", fibers},
        {"killed", killed},
        {"killed_inside", killed_inside},
        {"not_suspended", not_suspended},
        {"resumed_too_soon", resumed_too_soon},
        {"descriptor", descriptor},
        {"misused", misused},
#ifndef _WIN32
        {"endless", endless},
#endif
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
