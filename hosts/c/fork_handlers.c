/* Fork handlers of the host that use the library, registered before or after its loading. */
#include "forks.h"
#include "scheduler.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

struct handlers {
    void (*prepare)(void), (*parent)(void), (*child)(void);
};

static struct handlers older, newer;
static volatile int called;

static void call(void (*handler)(void)) {
    called++;
    if (handler)
        handler();
}

static void older_prepare(void) { call(older.prepare); }
static void older_parent(void) { call(older.parent); }
static void older_child(void) { call(older.child); }
static void newer_prepare(void) { call(newer.prepare); }
static void newer_parent(void) { call(newer.parent); }
static void newer_child(void) { call(newer.child); }

/* Runs before the constructors of all libraries. */
#ifdef __GLIBC__
static void register_older(void) { pthread_atfork(older_prepare, older_parent, older_child); }
__attribute__((section(".preinit_array"), used)) static void (*const before_libraries)(void) = register_older;
#else
/* musl knows no such array. This one comes first within the program. */
__attribute__((constructor(101))) static void register_older(void) {
    pthread_atfork(older_prepare, older_parent, older_child);
}
#endif

/* Forks with these handlers as older ones, as newer ones, and as both. */
static void fork_with(struct handlers handlers, void (*child)(void)) {
    static const struct handlers none;
    pthread_atfork(newer_prepare, newer_parent, newer_child);
    for (int which = 1; which <= 3; which++) {
        older = which & 1 ? handlers : none;
        newer = which & 2 ? handlers : none;
        called = 0;
        in_child(child);
        CHECK(called != 0);
    }
    older = newer = none;
}

static void with_handlers(struct handlers handlers, void (*child)(void)) {
    fork_with(handlers, child);
    all_is_right();
}

static void all_with(void (*handler)(void), void (*child)(void)) {
    struct handlers all = {handler, handler, handler};
    with_handlers(all, child);
}

/* ---- the very first uses of the library ---- */

static void call_on_thread(void) { on_thread(NULL, 0, calls_on_thread, NULL); }
static void nothing(void) {}

static void first_upcalls(void) { all_with(nested_calls_are_right, calls_are_right); }
static void first_of_a_thread(void) { all_with(call_on_thread, calls_are_right); }
static void first_waits(void) { all_with(starts_afresh, all_is_right); }
static void only_in_children(void) {
    struct handlers in_children = {nothing, NULL, starts_afresh};
    with_handlers(in_children, all_is_right);
}

static void start_on_thread(void) { on_thread(NULL, 0, starts_afresh_on_thread, NULL); }
static void first_waits_of_a_thread(void) { all_with(start_on_thread, starts_afresh); }

/* ---- later, with everything started ---- */

static void later(void) {
    starts_afresh();
    all_with(starts_afresh, calls_are_right);
}

static void later_of_a_thread(void) {
    starts_afresh();
    all_with(start_on_thread, starts_afresh);
}

/* Joining a lost fiber is an error in the child's handlers, too. */
static guest_channel *never;
static guest_fiber *lost;
static pid_t parent;

static int waits(void *unused) {
    (void)unused;
    return guest_receive(never);
}

static void join_lost(void) {
    static pid_t joined;
    if (getpid() == parent || getpid() == joined)
        return;
    joined = getpid();
    CHECK(guest_is_finished(lost) && guest_join(lost) == -1);
    CHECK(last_panic_says("runs only in the process that this one was forked from"));
}

static void joins(void) {
    struct handlers in_children = {NULL, NULL, join_lost};
    parent = getpid();
    never = guest_channel_new(1);
    lost = guest_spawn_on_fiber("lost", waits, NULL);
    fork_with(in_children, starts_afresh);
    CHECK(guest_send(never, 5) == 0 && guest_join(lost) == 5);
    all_is_right();
}

/* Coroutines suspended by the forking thread go on in the child, although a handler's thread is the
 * first there to use the library. */
enum { SUSPENDED = 200 };

static void sleep_some(void *milliseconds) { CHECK(guest_sleep((intptr_t)milliseconds) == 0); }

static void all_go_on(void) {
    CHECK(guest_suspended_coroutines() == suspended_now && suspended_now > 0);
    run_scheduler();
    CHECK(guest_suspended_coroutines() == 0 && guest_open_calls() == 0);
}

static void suspended_coroutines(void) {
    struct handlers in_children = {NULL, NULL, start_on_thread};
    CHECK(install_scheduler(0) == 0);
    for (int round = 0; round < 10; round++) {
        for (intptr_t i = 0; i < SUSPENDED; i++)
            schedule(sleep_some, (void *)(100 + i % 10));
        while (first)
            run_once();
        CHECK(suspended_now == SUSPENDED);
        fork_with(in_children, all_go_on);
        run_scheduler();
    }
    all_is_right();
}

/* ---- forks from inside a handler, by its thread and by another ---- */

static __thread int inside;

static void fork_again(void) {
    if (inside++ == 0) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        nested_calls_are_right();
        if (pid == 0) {
            alarm(20);
            starts_afresh();
            _exit(0);
        }
        int status;
        CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    }
    inside--;
    nested_calls_are_right();
}

static void *forks_on_thread_of_handler(void *unused) {
    inside = 1;
    in_child(starts_afresh);
    return unused;
}

static void fork_on_thread(void) {
    if (inside++ == 0)
        on_thread(NULL, 0, forks_on_thread_of_handler, NULL);
    inside--;
}

static void nested(void) {
    starts_afresh();
    all_with(fork_again, starts_afresh);
}

/* The child of a fork inside a handler returns into that handler and continues with the outer
 * fork. */
static void fork_and_go_on(void) {
    static int deep;
    if (deep || inside)
        return;
    deep = 1;
    inside = 1;
    pid_t pid = fork();
    CHECK(pid >= 0);
    inside = 0;
    starts_afresh();
    if (pid != 0) {
        int status;
        CHECK(waitpid(pid, &status, 0) == pid && status == 0);
        deep = 0;
    }
}

/* Both processes then make the outer fork. The inner fork's child ends in the test's `in_child`,
 * after waiting for its own child. */
static void nested_children_go_on(void) {
    static const struct handlers none;
    struct handlers handlers = {fork_and_go_on, NULL, NULL};
    pid_t self = getpid();
    starts_afresh();
    older = handlers;
    in_child(starts_afresh);
    older = none;
    all_is_right();
    if (getpid() != self)
        _exit(0);
}

static void by_another_thread(void) {
    starts_afresh();
    all_with(fork_on_thread, starts_afresh);
}

/* ---- forks from elsewhere ---- */

static int forks_here(void *unused) {
    (void)unused;
    in_child(nested_calls_are_right);
    return 7;
}

static void use_all(void) { older = newer = (struct handlers){starts_afresh, starts_afresh, starts_afresh}; }

static void in_upcall(void) {
    use_all();
    CHECK(guest_call(forks_here, NULL) == 7);
    CHECK(guest_call_pooled(forks_here, NULL) == 7);
}

static void on_worker(void) {
    use_all();
    CHECK(guest_join(guest_spawn(forks_here, NULL)) == 7);
}

static void on_fiber(void) {
    use_all();
    CHECK(guest_join(guest_spawn_on_fiber("forks", forks_here, NULL)) == 7);
}

/* Workers, attaching threads and threads that fork, all at once. */
static void *forks_under_load(void *unused) {
    for (int i = 0; i < (unoptimised() ? 20 : 60); i++)
        in_child(i % 4 ? calls_are_right : starts_afresh);
    return unused;
}

static void under_load_with(struct handlers handlers) {
    enum { THREADS = 4 };
    pthread_t threads[THREADS], forking;
    pthread_atfork(newer_prepare, newer_parent, newer_child);
    older = newer = handlers;
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, loads, (void *)(intptr_t)i) == 0);
    CHECK(pthread_create(&forking, NULL, forks_under_load, NULL) == 0);
    forks_under_load(NULL);
    CHECK(pthread_join(forking, NULL) == 0);
    stop = 1;
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    all_is_right();
}

/* Makes no panics, for the reason given at `calls_for_load`. */
static void calls(void) { calls_for_load(NULL); }

static void call_on_other_thread(void) { on_thread(NULL, 0, calls_for_load, NULL); }

static void under_load(void) { under_load_with((struct handlers){calls, calls, calls}); }

static void waiting_under_load(void) {
    under_load_with((struct handlers){call_on_other_thread, calls, call_on_other_thread});
}

/* ---- forks that are never made ---- */

static void fails(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
#ifdef SYS_fork
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fork, 5, 0),
#endif
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x00010000 /* CLONE_THREAD */, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x000000ff /* a signal at the end */, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAGAIN),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    use_all();
    starts_afresh();
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
    for (int i = 0; i < 3; i++) {
        CHECK(fork() == -1 && errno == EAGAIN);
        starts_afresh();
        calls_on_thread(NULL);
    }
    all_is_right();
}

static void end_thread(void) {
    nested_calls_are_right();
    pthread_exit(NULL);
}

static void *begins_to_fork(void *unused) {
    fork();
    CHECK(!"a thread that has exited");
    return unused;
}

/* The thread ends in its handler. Other threads no longer wait for it. */
static void thread_ends(void) {
    starts_afresh();
    for (int i = 0; i < 3; i++) {
        older.prepare = end_thread;
        on_thread(NULL, 0, begins_to_fork, NULL);
        older.prepare = NULL;
        starts_afresh();
        in_child(starts_afresh);
    }
    all_is_right();
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"first_upcalls", first_upcalls},
        {"first_of_a_thread", first_of_a_thread},
        {"first_waits", first_waits},
        {"first_waits_of_a_thread", first_waits_of_a_thread},
        {"only_in_children", only_in_children},
        {"later", later},
        {"later_of_a_thread", later_of_a_thread},
        {"joins", joins},
        {"suspended_coroutines", suspended_coroutines},
        {"nested", nested},
        {"nested_children_go_on", nested_children_go_on},
        {"by_another_thread", by_another_thread},
        {"in_upcall", in_upcall},
        {"on_worker", on_worker},
        {"on_fiber", on_fiber},
        {"under_load", under_load},
        {"waiting_under_load", waiting_under_load},
        {"fails", fails},
        {"thread_ends", thread_ends},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
