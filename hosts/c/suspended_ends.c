/* Coroutines suspended by waits, and what ends them, their thread or their process meanwhile. */
#include "scheduler.h"

#include <fcntl.h>
#ifndef _WIN32
#include <setjmp.h>
#include <sys/time.h>
#endif

#include "forks.h"

static int ended;
static guest_channel *channel, *never;

static void begin(void) {
    CHECK(install_scheduler(0) == 0);
    channel = guest_channel_new(4096);
    never = guest_channel_new(1);
}

static void check_over(void) {
    CHECK(live == 0 && suspended_now == 0 && guest_open_calls() == 0 && guest_suspended_coroutines() == 0);
    CHECK(guest_sleep(1) == 0 && guest_increment(1) == 2);
}

/* Runs until no coroutine can go on at the moment. */
static void run_all(void) {
    while (run_once())
        continue;
}

static int readable(void) { return is_signalled(coroutines_event(), 0); }

static void receive(void *from) {
    CHECK(guest_receive(from) == 5);
    ended++;
}

static void receive_killed(void *from) {
    CHECK(guest_receive(from) == -1);
    ended++;
}

static void sleep_some(void *milliseconds) {
    CHECK(guest_sleep((intptr_t)milliseconds) == 0);
    ended++;
}

/* Another thread sends to `channel`, so many times, after some milliseconds. */
static int sends;

static void *send_late(void *to) {
    usleep(20000);
    for (int i = 0; i < sends; i++)
        CHECK(guest_send(to, 5) == 0);
    return NULL;
}

static pthread_t start_sender(guest_channel *to, int count) {
    pthread_t thread;
    sends = count;
    CHECK(pthread_create(&thread, NULL, send_late, to) == 0);
    return thread;
}

/* ---- killed: how far the unwinding goes ---- */

static struct scheduled *victim;

static int receives_never(void *unused) {
    (void)unused;
    CHECK(guest_receive(never) == -1);
    return 3;
}

static int calls_further(void *unused) {
    CHECK(guest_call_pooled(receives_never, unused) == -1);
    return 4;
}

static void be_killed(void *unused) {
    char caught[32] = "";
    CHECK(guest_call(calls_further, unused) == -1);
    /* Rust code may catch it, and C goes on as usual. */
    CHECK(guest_catch(receives_never, unused, caught, sizeof caught) == -4);
    CHECK(guest_receive_interruptible(never) == -2);
    CHECK(guest_increment(1) == 2);
    ended++;
}

static int runs_and_kills(void *unused) {
    (void)unused;
    victim = schedule(be_killed, NULL);
    run_all();
    CHECK(suspended_now == 1);
    kill_scheduled(victim);
    run_all();
    CHECK(ended == 1 && live == 0);
    CHECK(guest_increment(1) == 2);
    return 7;
}

/* The loop itself runs under Rust, which hears nothing of the killed coroutine. */
static void killed_under_rust(void) {
    begin();
    CHECK(guest_call(runs_and_kills, NULL) == 7);
    ended = 0;
    CHECK(guest_call_pooled(runs_and_kills, NULL) == 7);
    check_over();
}

static int resume_kills;

static void resume_it(void *data, void *coroutine) {
    (void)data;
    ((struct scheduled *)coroutine)->killed = resume_kills;
    run_scheduled(coroutine);
}

/* Killed by the hook `resume`, of `run_ready`. */
static void killed_by_resume(void) {
    begin();
    CHECK(upcall_coroutines_uninstall(0) == 0);
    CHECK(upcall_coroutines_install(0, &running, scheduler_current, scheduler_suspend, resume_it) == 0);
    for (int i = 0; i < 10; i++)
        schedule(i % 2 ? receive_killed : receive, i % 2 ? never : channel);
    run_all();
    for (int i = 0; i < 5; i++)
        CHECK(guest_send(channel, 5) == 0);
    CHECK(upcall_coroutines_run_ready(3) == 3 && ended == 3);
    CHECK(upcall_coroutines_run_ready(SIZE_MAX) == 2 && ended == 5 && live == 5);
    /* Each leaves the message, so the next one is woken, too. */
    resume_kills = 1;
    CHECK(guest_send(never, 5) == 0);
    CHECK(upcall_coroutines_run_ready(SIZE_MAX) == 5 && ended == 10);
    CHECK(guest_receive(never) == 5);
    check_over();
}

/* A coroutine ends before its wake is served, and others take its place. */
static void ends_before_its_wake(void) {
    begin();
    for (int i = 0; i < 1000; i++) {
        victim = schedule(receive_killed, channel);
        run_all();
        CHECK(guest_send(channel, 5) == 0 && readable());
        victim->killed = 1;
        run_scheduled(victim);
        CHECK(ended == 2 * i + 1 && live == 0);
        if (i % 2)
            run_all();
        CHECK(guest_receive(channel) == 5);
        schedule(receive, channel);
        run_all();
        CHECK(live == 1 && !readable() && guest_send(channel, 5) == 0);
        run_scheduler();
        CHECK(ended == 2 * i + 2);
    }
    check_over();
}

/* ---- places where a wait blocks the thread ---- */

static void in_initialiser(void *from) {
    CHECK(guest_receive_in_initialiser(from) == 5);
    ended++;
}

static void in_panic(void *from) {
    CHECK(guest_receive_while_panicking(from) == -1 && last_panic_says("on its way"));
    ended++;
}

static void blocks(void (*body)(void *), int count) {
    begin();
    pthread_t sender = start_sender(channel, count);
    schedule(body, channel);
    CHECK(run_once());
    CHECK(ended == 1 && most_suspended == 0);
    CHECK(pthread_join(sender, NULL) == 0);
    /* The same coroutine code suspends elsewhere. */
    schedule(receive, channel);
    CHECK(run_once() && suspended_now == 1 && guest_send(channel, 5) == 0);
    run_scheduler();
    CHECK(most_suspended == 1);
    check_over();
}

static void initialisers(void) { blocks(in_initialiser, 1); }
static void while_panicking(void) { blocks(in_panic, 1); }

static void talk(void *first) {
    for (int i = 0; i < 20; i++) {
        CHECK(!first || guest_send(channel, 5) == 0);
        CHECK(guest_receive(first ? never : channel) == 5);
        CHECK(first || guest_send(never, 5) == 0);
    }
}

#ifndef _WIN32
static void handle(int signal) {
    (void)signal;
    CHECK(guest_receive(channel) == 5);
    CHECK(guest_sleep(1) == 0);
}

static int raises(void *unused) {
    (void)unused;
    raise(SIGUSR1);
    return 7;
}

static void in_handler(void *unused) {
    raise(SIGUSR1);
    CHECK(guest_call(raises, unused) == 7);
    CHECK(guest_call_plain(raises, unused) == 7);
    ended++;
}

static void signal_handlers(void) {
    CHECK(signal(SIGUSR1, handle) != SIG_ERR);
    blocks(in_handler, 3);
}

/* Handlers interrupt the scheduler anywhere, and wait for what is there. */
static volatile int handled;
static guest_channel *filled;

static void handle_anywhere(int signal) {
    (void)signal;
    handled++;
    CHECK(guest_increment(1) == 2);
    int received = guest_receive(filled);
    CHECK(received == 5 || received == -1);
}

static void interrupted_anywhere(void) {
    begin();
    filled = guest_channel_new(4096);
    for (int i = 0; i < 4096; i++)
        CHECK(guest_send(filled, 5) == 0);
    /* The first one needs memory, and the handler may interrupt malloc. */
    CHECK(guest_receive(filled) == 5);
    CHECK(signal(SIGALRM, handle_anywhere) != SIG_ERR);
    struct itimerval often = {{0, 500}, {0, 500}}, stop = {{0, 0}, {0, 0}};
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    for (int i = 0; handled < 300; i++) {
        CHECK(i < 100000);
        schedule(talk, channel);
        schedule(talk, NULL);
        run_scheduler();
    }
    CHECK(setitimer(ITIMER_REAL, &stop, NULL) == 0);
    check_over();
}
#endif

/* ---- panics after a suspended wait ---- */

static int receives_and_panics(void *from) {
    CHECK(guest_receive_and_panic(from) == -1);
    return 3;
}

static void panic_there(void *from) {
    char caught[64] = "";
    CHECK(guest_receive_and_panic(from) == -1 && last_panic_says("received 5"));
    CHECK(guest_call(receives_and_panics, from) == -1 && last_panic_says("received 5"));
    CHECK(guest_catch(receives_and_panics, from, caught, sizeof caught) == -2 && strcmp(caught, "received 5") == 0);
    CHECK(guest_receive(from) == 5);
    ended++;
}

static void panics_after_waits(void) {
    begin();
    for (int i = 0; i < 20; i++)
        schedule(panic_there, channel);
    run_all();
    CHECK(suspended_now == 20);
    pthread_t sender = start_sender(channel, 80);
    run_scheduler();
    CHECK(pthread_join(sender, NULL) == 0 && ended == 20);
    check_over();
}

/* ---- tasks ---- */

static void wait_for_task(void *unused) {
    int value = 0, part = -1;
    (void)unused;
    upcall_task *task = guest_start(GUEST_NEVER, 0, 0, NULL, NULL);
    CHECK(upcall_task_wait(task, 1) == UPCALL_TASK_RUNNING && upcall_task_free(task, 1) == 0);
    task = guest_start(GUEST_VALUE, 20, 0, NULL, NULL);
    CHECK(upcall_task_wait(task, -1) == UPCALL_TASK_DONE);
    CHECK(guest_task_value(task, &value) == 0 && value == 7 && upcall_task_free(task, 0) == 0);
    task = guest_start_parts(10, 1, NULL, NULL);
    for (int i = 0; i < 10; i++) {
        CHECK(upcall_task_next(task, -1) == 1);
        CHECK(guest_task_part(task, &part) == 1 && part == i);
    }
    CHECK(upcall_task_next(task, 10000) == 2 && upcall_task_free(task, 0) == 0);
    ended++;
}

static void wait_for_task_killed(void *unused) {
    (void)unused;
    upcall_task *task = guest_start(GUEST_NEVER, 0, 0, NULL, NULL);
    CHECK(upcall_task_wait(task, -1) == -1 && last_panic_says("the host ended the coroutine"));
    CHECK(upcall_task_status(task) == UPCALL_TASK_RUNNING && upcall_task_free(task, 1) == 0);
    ended++;
}

static void tasks(void) {
    begin();
    for (int i = 0; i < 50; i++)
        schedule(wait_for_task, NULL);
    victim = schedule(wait_for_task_killed, NULL);
    run_all();
    CHECK(suspended_now == 51);
    kill_scheduled(victim);
    run_scheduler();
    CHECK(ended == 51 && guest_running_tasks() == 0);
    check_over();
}

/* ---- a scope ends before its killed coroutine goes on ---- */

static void receive_in_scope(void *unused) {
    (void)unused;
    CHECK(guest_scope_receives(never, channel) == -1);
    CHECK(guest_scopes_ended() == ++ended);
}

static void scopes(void) {
    begin();
    for (int i = 0; i < 10; i++) {
        victim = schedule(receive_in_scope, NULL);
        run_all();
        CHECK(suspended_now == 1);
        pthread_t sender = start_sender(channel, 1);
        kill_scheduled(victim);
        run_scheduler();
        CHECK(pthread_join(sender, NULL) == 0 && ended == i + 1);
    }
    check_over();
}

#ifndef _WIN32
/* ---- longjmp ---- */

static jmp_buf outside;

static int wait_and_leave(void *unused) {
    (void)unused;
    CHECK(guest_receive(channel) == 5);
    _longjmp(outside, 1);
}

static int leave_deeper(void *unused) { return guest_call_pooled(wait_and_leave, unused); }

/* The jump goes from the innermost C code past two upcalls, the outer one in the middle of a wait's
 * poll. */
static void leave_upcalls(void *unused) {
    for (volatile int i = 0; i < 50; i++) {
        if (!_setjmp(outside)) {
            (i % 2 ? guest_poll_calls : guest_call)(leave_deeper, unused);
            CHECK(!"came back");
        }
        CHECK(guest_receive(channel) == 5 && guest_sleep(1) == 0);
    }
    ended++;
}

static void abandoned_calls(void) {
    begin();
    schedule(leave_upcalls, NULL);
    for (int i = 0; i < 100; i++)
        CHECK(guest_send(channel, 5) == 0);
    run_scheduler();
    CHECK(ended == 1 && guest_increment(1) == 2);
    schedule(leave_upcalls, NULL);
    run_all();
    pthread_t sender = start_sender(channel, 100);
    run_scheduler();
    CHECK(pthread_join(sender, NULL) == 0 && ended == 2);
    CHECK(guest_sleep(1) == 0 && guest_increment(1) == 2);
}
#endif

/* ---- another thread ---- */

static void *run_there(void *coroutine) {
    CHECK(install_scheduler(0) == 0);
    running = coroutine;
    coroutine_resume(&running->coroutine);
    CHECK(!"came back");
    return NULL;
}

static void moved(void) {
    begin();
    victim = schedule(receive, channel);
    run_all();
    CHECK(suspended_now == 1 && guest_send(channel, 5) == 0);
    on_thread(NULL, 0, run_there, victim);
}

static void *suspend_one(void *unused) {
    CHECK(install_scheduler(0) == 0);
    victim = schedule(receive, channel);
    run_all();
    return unused;
}

/* Its own thread has ended. */
static void moved_from_the_dead(void) {
    channel = guest_channel_new(1);
    on_thread(NULL, 0, suspend_one, NULL);
    on_thread(NULL, 0, run_there, victim);
}

/* Each thread has a scheduler, and all have the hooks of the process. */
enum { THREADS = 4, EACH = 20, MESSAGES = 50 };
static guest_channel *to[THREADS][EACH];

static void *current_of_any(void *unused) {
    (void)unused;
    return running;
}

static int suspend_any(void *unused, void *coroutine) {
    (void)unused;
    return scheduler_suspend(&running, coroutine);
}

static void pass_on(void *place) {
    guest_channel **from = place;
    int number = (int)(from - &to[0][0]), thread = number / EACH, n = number % EACH;
    for (int i = 0; i < MESSAGES; i++) {
        if (thread == 0)
            CHECK(guest_send(to[1][n], i) == 0);
        CHECK(guest_receive(*from) == i);
        if (thread != 0)
            CHECK(guest_send(to[(thread + 1) % THREADS][n], i) == 0);
    }
    __atomic_add_fetch(&ended, 1, __ATOMIC_SEQ_CST);
}

static void *schedules_some(void *number) {
    for (int n = 0; n < EACH; n++)
        schedule(pass_on, &to[(intptr_t)number][n]);
    run_scheduler();
    CHECK(most_suspended > 0 && guest_suspended_coroutines() == 0);
    return NULL;
}

static void on_many_threads(void) {
    pthread_t threads[THREADS];
    CHECK(upcall_coroutines_install(UPCALL_COROUTINES_PROCESS, NULL, current_of_any, suspend_any, NULL) == 0);
    for (int i = 0; i < THREADS * EACH; i++)
        to[i / EACH][i % EACH] = guest_channel_new(1);
    for (intptr_t i = 1; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, schedules_some, (void *)i) == 0);
    schedules_some(NULL);
    for (int i = 1; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(ended == THREADS * EACH);
    CHECK(upcall_coroutines_uninstall(UPCALL_COROUTINES_PROCESS) == 0);
    check_over();
}

/* ---- hooks that go while coroutines are suspended ---- */

static void receive_then_block(void *from) {
    CHECK(guest_receive(from) == 5);
    int most = most_suspended;
    most_suspended = suspended_now;
    CHECK(guest_sleep(1) == 0 && most_suspended == suspended_now);
    most_suspended = most;
    ended++;
}

static void uninstalled(void) {
    begin();
    for (int i = 0; i < 100; i++)
        schedule(receive_then_block, channel);
    victim = schedule(receive_killed, never);
    run_all();
    CHECK(suspended_now == 101 && upcall_coroutines_uninstall(0) == 0);
    kill_scheduled(victim);
    for (int i = 0; i < 100; i++)
        CHECK(guest_send(channel, 5) == 0);
    run_scheduler();
    CHECK(ended == 101);
    /* Installed again: as before. */
    CHECK(install_scheduler(0) == 0);
    schedule(receive, channel);
    run_all();
    CHECK(suspended_now == 1 && guest_send(channel, 5) == 0);
    run_scheduler();
    check_over();
}

/* ---- detached threads, dumps, and a shutdown meanwhile ---- */

static void detached(void) {
    begin();
    for (int i = 0; i < 3; i++) {
        schedule(receive, channel);
        run_all();
        CHECK(upcall_thread_detach() == -1 && guest_suspended_coroutines() == 1);
        CHECK(guest_send(channel, 5) == 0);
        run_scheduler();
        CHECK(ended == i + 1 && guest_suspended_coroutines() == 0 && upcall_thread_detach() == 0);
    }
    check_over();
}

static volatile int stop_dumping;

static void *dumps(void *unused) {
    int nowhere = open("/dev/null", O_WRONLY);
    for (; !stop_dumping; usleep(100))
        CHECK(upcall_dump(nowhere) == 0);
    return unused;
}

static void dumped_at_any_moment(void) {
    pthread_t dumper;
    begin();
    CHECK(pthread_create(&dumper, NULL, dumps, NULL) == 0);
    for (int i = 0; i < 100; i++) {
        schedule(talk, channel);
        schedule(talk, NULL);
        schedule(sleep_some, (void *)20);
        if (i % 10 == 9)
            run_scheduler();
    }
    stop_dumping = 1;
    CHECK(pthread_join(dumper, NULL) == 0 && ended == 100);
    check_over();
}

static int sleep_on_worker(void *unused) {
    (void)unused;
    CHECK(guest_sleep(20) == 0);
    return 7;
}

static void join_worker(void *fiber) {
    CHECK(guest_join(fiber) == 7);
    ended++;
}

/* The workers' fibers end during the shutdown, and wake coroutines. */
static void shut_down(void) {
    begin();
    for (int i = 0; i < 20; i++) {
        schedule(join_worker, guest_spawn_on_fiber("sleeps", sleep_on_worker, NULL));
        schedule(receive, channel);
    }
    run_all();
    CHECK(suspended_now == 40 && upcall_shutdown(30000) == 0);
    pthread_t sender = start_sender(channel, 20);
    run_scheduler();
    CHECK(pthread_join(sender, NULL) == 0 && ended == 40);
    CHECK(guest_sleep(1) == 0 && guest_open_calls() == 0);
}

/* ---- a thread ends while its coroutines are suspended ---- */

enum { HELD = 6, LEFT = 200 };
static guest_bell *bell;
static volatile int stop_ringing;

static void hear(void *unused) {
    (void)unused;
    guest_bell_wait(bell);
    CHECK(!"heard");
}

static void sleep_for_ever(void *unused) {
    (void)unused;
    guest_sleep(30);
    CHECK(!"woken");
}

static void never_receive(void *unused) {
    (void)unused;
    guest_receive(never);
    CHECK(!"received");
}

/* Its own coroutines go on, whatever becomes of those of threads before. */
static void *leaves_suspended(void *number) {
    /* The descriptor may be readable in vain: it is that of an earlier thread. */
    CHECK(install_scheduler(0) == 0);
    guest_channel *own = guest_channel_new(HELD);
    for (int i = 0; i < HELD; i++)
        schedule(receive, own);
    run_all();
    for (int i = 0; i < HELD; i++)
        CHECK(guest_send(own, 5) == 0);
    run_scheduler();
    for (int i = 0; i < HELD; i++)
        schedule(i % 3 == 0 ? hear : i % 3 == 1 ? sleep_for_ever : never_receive, NULL);
    struct scheduled *last = first;
    run_scheduled(last);
    while ((first = first->next))
        run_scheduled(first);
    CHECK(suspended_now == HELD && guest_suspended_coroutines() == HELD);
    if ((intptr_t)number % 3 == 1)
        pthread_exit(NULL);
    if ((intptr_t)number % 3 == 2) {
        pthread_cancel(pthread_self());
        pthread_testcancel();
    }
    return NULL;
}

/* Woken by the thread's last message, by timers, and at any moment by a bell. */
static void *rings(void *unused) {
    while (!stop_ringing) {
        guest_bell_ring(bell);
        usleep(50);
    }
    return unused;
}

static void *rings_for_the_dead(void *unused) {
    for (int i = 0; i < LEFT; i++) {
        guest_bell_ring(bell);
        CHECK(guest_send(never, i) == 0);
    }
    return unused;
}

static void threads_end(void) {
    begin();
    bell = guest_bell_new();
    guest_channel_free(never);
    never = guest_channel_new(2 * LEFT);
    int descriptors = 0;
    for (intptr_t i = 0; i < LEFT; i++) {
        on_thread(NULL, 0, leaves_suspended, (void *)i);
        if (i == LEFT / 2)
            descriptors = open_descriptors();
    }
    CHECK(open_descriptors() == descriptors);
    CHECK(ended == LEFT * HELD && guest_attached_threads() <= 4);
    on_thread(NULL, 0, rings_for_the_dead, NULL);
    usleep(40000);
    /* The main thread has seen nothing of it. */
    ended = 0;
    void *ready;
    CHECK(guest_suspended_coroutines() == 0 && upcall_coroutines_next_ready(&ready) == 0);
    schedule(receive, channel);
    run_all();
    CHECK(suspended_now == 1 && guest_send(channel, 5) == 0);
    run_scheduler();
    CHECK(ended == 1);
    check_over();
}

/* The bell rings while the threads end. */
static void hear_often(void *unused) {
    (void)unused;
    while (guest_bell_wait(bell) == 0)
        continue;
}

static void *leaves_listeners(void *unused) {
    CHECK(install_scheduler(0) == 0);
    for (int i = 0; i < HELD; i++)
        schedule(hear_often, NULL);
    for (int i = 0; i < 50; i++)
        run_once();
    return unused;
}

static void threads_end_while_woken(void) {
    pthread_t ringer;
    begin();
    bell = guest_bell_new();
    CHECK(pthread_create(&ringer, NULL, rings, NULL) == 0);
    for (int i = 0; i < LEFT; i++)
        on_thread(NULL, 0, leaves_listeners, NULL);
    stop_ringing = 1;
    CHECK(pthread_join(ringer, NULL) == 0);
    check_over();
}

#ifndef _WIN32
/* ---- forks ---- */

enum { SUSPENDED = 1000 };
static guest_fiber *of_parent[SUSPENDED / 4];
static struct scheduled *victims[SUSPENDED / 4];

static int serves_late(void *unused) {
    (void)unused;
    return guest_receive(never);
}

static int is_child;

static void join_it(void *fiber) {
    int answer = guest_join(fiber);
    CHECK(is_child ? answer == -1 && last_panic_says("forked") : answer == 6);
    ended++;
}

static void receive_if_not_killed(void *from) {
    CHECK(guest_receive(from) == (is_child ? -1 : 5));
    ended++;
}

static guest_channel *from_parent;

/* A quarter each waits for a timer, for a message, for a fiber of a worker, and for a message that
 * only the parent sends. */
static void suspend_thousand(void) {
    begin();
    from_parent = guest_channel_new(SUSPENDED);
    for (int i = 0; i < SUSPENDED / 4; i++) {
        schedule(sleep_some, (void *)20);
        schedule(receive, channel);
        of_parent[i] = guest_spawn_on_fiber("late", serves_late, NULL);
        schedule(join_it, of_parent[i]);
        victims[i] = schedule(receive_if_not_killed, from_parent);
    }
    while (first)
        run_once();
    CHECK(suspended_now > SUSPENDED / 2);
}

static void go_on_in_child(void) {
    is_child = 1;
    CHECK(readable());
    while (ended < SUSPENDED / 2) {
        if (!run_once())
            CHECK(is_signalled(coroutines_event(), 10000));
    }
    run_all();
    CHECK(ended == SUSPENDED / 2 && suspended_now == SUSPENDED / 2 && !readable());
    /* New ones work, and the messages are the child's own. */
    schedule(sleep_some, (void *)20);
    for (int i = 0; i < SUSPENDED / 4; i++)
        CHECK(guest_send(channel, 5) == 0);
    while (ended < SUSPENDED * 3 / 4 + 1) {
        if (!run_once())
            CHECK(is_signalled(coroutines_event(), 10000));
    }
    for (int i = 0; i < SUSPENDED / 4; i++)
        kill_scheduled(victims[i]);
    run_scheduler();
    CHECK(ended == SUSPENDED + 1);
    check_over();
    starts_afresh();
}

static void forked(void) {
    suspend_thousand();
    int before = ended;
    in_child(go_on_in_child);
    CHECK(ended == before);
    for (int i = 0; i < SUSPENDED / 4; i++)
        CHECK(guest_send(channel, 5) == 0 && guest_send(from_parent, 5) == 0 && guest_send(never, 6) == 0);
    run_scheduler();
    CHECK(ended == SUSPENDED);
    check_over();
}

/* Forked by a coroutine, while another thread is about to wake others: in the child, these wakes
 * are lost, and nobody waits for them for ever. */
static _Atomic int sending = 1;

static void *send_always(void *unused) {
    while (sending)
        guest_bell_ring_slowly(bell);
    return unused;
}

static void hear_thrice(void *unused) {
    (void)unused;
    for (int i = 0; i < 3; i++)
        CHECK(guest_bell_wait(bell) == 0);
    ended++;
}

static void ring_in_child(void) {
    while (live > 0) {
        guest_bell_ring(bell);
        run_all();
    }
    CHECK(!readable());
}

static void fork_there(void *unused) {
    (void)unused;
    usleep(500);
    pid_t child = guest_bell_fork(bell);
    CHECK(child >= 0);
    is_child = child == 0;
    if (is_child)
        alarm(20);
    int status;
    CHECK(is_child || (waitpid(child, &status, 0) == child && status == 0));
}

static void forked_while_woken(void) {
    pthread_t ringer;
    begin();
    bell = guest_bell_new();
    CHECK(pthread_create(&ringer, NULL, send_always, NULL) == 0);
    for (int i = 0; i < 40; i++) {
        for (int j = 0; j < 5; j++)
            schedule(hear_thrice, NULL);
        for (int j = 0; j < i % 10; j++)
            run_once();
        schedule(fork_there, NULL);
        while (live > 0 && !is_child)
            run_once();
        if (is_child) {
            ring_in_child();
            _exit(0);
        }
    }
    sending = 0;
    CHECK(pthread_join(ringer, NULL) == 0);
    check_over();
}

/* Forked while sleeps end one after the other: in the child, the timers' thread wakes some of them
 * while the library looks for wakes that were lost. */
static void end_sleeps(void) {
    run_scheduler();
    CHECK(ended == SUSPENDED && !readable());
    /* No wait is left behind in a list. */
    ended = 0;
    for (int i = 0; i < SUSPENDED; i++)
        schedule(sleep_some, (void *)1);
    run_scheduler();
    CHECK(ended == SUSPENDED);
    check_over();
}

static void forked_as_sleeps_end(void) {
    begin();
    for (int round = 0; round < 20; round++) {
        ended = 0;
        for (intptr_t i = 0; i < SUSPENDED; i++)
            schedule(sleep_some, (void *)(5 + i % 20));
        while (first)
            run_once();
        usleep(1000 * (round % 10));
        in_child(end_sleeps);
        run_scheduler();
        CHECK(ended == SUSPENDED);
    }
    check_over();
}

/* ---- exit() with suspended coroutines, and handlers that wait ---- */

static int handlers_run;

static void at_exit_call(void) {
    handlers_run++;
    CHECK(guest_increment(1) == 2 && guest_call(returns_7, NULL) == 7);
    CHECK(guest_sleep(1) == 0 && guest_yield() == 0);
    CHECK(guest_join(guest_spawn(returns_7, NULL)) == 7);
    CHECK(guest_panic("at exit") == -1);
    if (handlers_run == 2)
        _exit(42);
}

static int exit_now(void *unused) {
    (void)unused;
    exit(1);
}

static int exit_deeper(void *unused) { return guest_call_pooled(exit_now, unused); }
static void exit_in_coroutine(void *unused) { guest_call(exit_deeper, unused); }

static void exit_after_wait(void *unused) {
    CHECK(guest_sleep(1) == 0);
    guest_call(exit_deeper, unused);
}

static void *exit_there(void *unused) {
    guest_call(exit_deeper, unused);
    return unused;
}

static void *exit_from_scheduler(void *unused) {
    CHECK(install_scheduler(0) == 0);
    for (int i = 0; i < 5; i++)
        schedule(never_receive, NULL);
    schedule(exit_after_wait, NULL);
    run_scheduler();
    return unused;
}

static void *calls_always(void *unused) {
    for (;;) {
        guest_increment(1);
        guest_bell_ring(bell);
        usleep(20);
    }
    return unused;
}

static _Noreturn void exit_busily(int where) {
    pthread_t thread;
    begin();
    bell = guest_bell_new();
    atexit(at_exit_call);
    atexit(at_exit_call);
    for (int i = 0; i < 100; i++)
        schedule(i % 2 ? never_receive : hear_often, NULL);
    for (int i = 0; i < 100; i++)
        run_once();
    CHECK(pthread_create(&thread, NULL, calls_always, NULL) == 0);
    run_once();
    switch (where) {
    case 0: exit(1);
    case 1: exit_there(NULL); break;
    case 2: on_thread(NULL, 0, exit_there, NULL); break;
    case 3: schedule(exit_in_coroutine, NULL); break;
    case 4: schedule(exit_after_wait, NULL); break;
    case 5: on_thread(NULL, 0, exit_from_scheduler, NULL); break;
    case 6: guest_join(guest_spawn(exit_deeper, NULL)); break;
    case 7: guest_join(guest_spawn_on_fiber("exits", exit_deeper, NULL)); break;
    case 8:
        CHECK(upcall_local_begin() == 0 && upcall_local_spawn(exit_in_coroutine, NULL) == 0);
        for (;;)
            upcall_local_run_ready(SIZE_MAX);
    default: guest_blocking(exit_deeper, NULL);
    }
    run_scheduler();
    CHECK(!"exited");
    _exit(1);
}

static void exit_anywhere(void) {
    for (int i = 0; i < 30; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            exit_busily(i % 10);
        }
        int status;
        CHECK(child > 0 && waitpid(child, &status, 0) == child);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 42)
            fprintf(stderr, "exit from %d: status %#x\n", i % 10, status);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
    }
}
#endif

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"killed_under_rust", killed_under_rust},
        {"killed_by_resume", killed_by_resume},
        {"ends_before_its_wake", ends_before_its_wake},
        {"initialisers", initialisers},
        {"while_panicking", while_panicking},
        {"panics_after_waits", panics_after_waits},
        {"tasks", tasks},
        {"scopes", scopes},
        {"moved", moved},
        {"moved_from_the_dead", moved_from_the_dead},
        {"on_many_threads", on_many_threads},
        {"uninstalled", uninstalled},
        {"detached", detached},
        {"dumped_at_any_moment", dumped_at_any_moment},
        {"shut_down", shut_down},
        {"threads_end", threads_end},
        {"threads_end_while_woken", threads_end_while_woken},
#ifndef _WIN32
        {"signal_handlers", signal_handlers},
        {"interrupted_anywhere", interrupted_anywhere},
        {"abandoned_calls", abandoned_calls},
        {"forked", forked},
        {"forked_while_woken", forked_while_woken},
        {"forked_as_sleeps_end", forked_as_sleeps_end},
        {"exit_anywhere", exit_anywhere},
#endif
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
