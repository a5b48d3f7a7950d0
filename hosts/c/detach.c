/* Threads detached before their exit. */
#include "host.h"

#ifndef _WIN32
#include <setjmp.h>
#include <sys/wait.h>
#endif

/* Checks a refusal: the thread stays attached, and the message gives the reason. */
static void stays(const char *why) {
    int threads = guest_attached_threads(), stacks = guest_stacks_in_use();
    CHECK(upcall_thread_detach() == -1);
    CHECK(last_panic_says("thread_detach: the thread stays attached: ") && last_panic_says(why));
    CHECK(guest_attached_threads() == threads && guest_stacks_in_use() == stacks);
}

/* Detaches the process's only thread and checks that nothing of it remains, not even its
 * messages. */
static void goes(void) {
    char message[] = "untouched";
    CHECK(upcall_thread_detach() == 0);
    CHECK(guest_attached_threads() == 0 && guest_stacks_in_use() == 0 && guest_open_calls() == 0);
    CHECK(upcall_last_message(message, sizeof message) == -1 && strcmp(message, "untouched") == 0);
}

static int returns_7(void *unused) {
    (void)unused;
    return 7;
}

/* Makes every kind of call. Each of them attaches a detached thread. */
static void call_all(void) {
    CHECK(guest_call(returns_7, NULL) == 7);
    CHECK(guest_call_pooled(returns_7, NULL) == 7);
    CHECK(guest_call_caller(returns_7, NULL) == 7);
    CHECK(guest_with_stack(300 << 10, returns_7, NULL) == 7);
}

static void not_in_use(void) {
    goes();
    goes();
    CHECK(upcall_thread_attach() == 0 && guest_attached_threads() == 1);
    goes();
    long before = 0;
    for (int i = 0; i < 20000; i++) {
        if (i == 1000)
            before = resident_kib();
        call_all();
        if (i % 1000 == 0)
            CHECK(guest_panic("a message") == -1 && last_panic_says("a message"));
        CHECK(guest_attached_threads() == 1);
        goes();
        if (i % 3 == 0)
            goes();
    }
    CHECK(resident_kib() - before < 512);
}

/* ---- inside calls ---- */

static int stays_for_downcalls(void *unused) {
    (void)unused;
    stays("downcalls (Rust → C) that have not returned: ");
    return 7;
}

static int stays_for_upcall(void *unused) {
    (void)unused;
    stays(no_query() ? "" : "an upcall (C → Rust) has not returned");
    return 7;
}

static int stays_for_something(void *unused) {
    (void)unused;
    stays("");
    return 7;
}

static int stays_deeper(void *unused) {
    CHECK(guest_call_plain(stays_for_downcalls, unused) == 7);
    CHECK(guest_call_pooled(stays_for_downcalls, unused) == 7);
    return stays_for_downcalls(unused);
}

static void inside_calls(void) {
    for (int i = 0; i < 2; i++) {
        CHECK(guest_call(stays_for_downcalls, NULL) == 7);
        CHECK(guest_call_pooled(stays_for_downcalls, NULL) == 7);
        CHECK(guest_call_caller(stays_for_downcalls, NULL) == 7);
        CHECK(guest_with_stack(1 << 20, stays_for_downcalls, NULL) == 7);
        CHECK(guest_call_plain(stays_for_upcall, NULL) == 7);
        CHECK(guest_call(stays_deeper, NULL) == 7);
        goes();
    }
}

/* An upcall in place goes unseen once its C code has made another. It continues as if the thread
 * were new. */
static int call_and_detach(void *registered) {
    CHECK(guest_empty() == 0);
    if (no_query() && !registered)
        stays("stacks in use");
    else
        goes();
    return 1;
}

static int detach_and_panic(void *registered) {
    call_and_detach(registered);
    return guest_panic("later");
}

static void unseen_on_coroutine(struct coroutine *c, void *registered) {
    (void)c;
    CHECK(guest_call_plain_then(call_and_detach, returns_7, registered) == 8);
}

static void unseen(void) {
    for (int i = 0; i < 2; i++) {
        CHECK(guest_call_plain_then(call_and_detach, returns_7, NULL) == 8);
        CHECK(guest_call_plain(detach_and_panic, NULL) == -1 && last_panic_says("later"));
        goes();
    }
    struct memory stack = memory_new(MALLOCED, 512 << 10);
    static struct coroutine c;
    CHECK(upcall_stack_register(stack.base, stack.size, "a coroutine's") == 0);
    coroutine_init(&c, stack.base, stack.size, unseen_on_coroutine, stack.base);
    coroutine_resume(&c);
    CHECK(c.done && upcall_stack_unregister(stack.base) == 0);
    goes();
    memory_free(stack);
}

/* ---- suspended on coroutines ---- */

static int yields(void *coroutine) {
    coroutine_yield((struct coroutine *)coroutine);
    return 7;
}

static void suspend_in_downcall(struct coroutine *c, void *unused) {
    (void)unused;
    CHECK(guest_call(yields, c) == 7);
    coroutine_yield(c);
}

static void suspend_in_plain_call(struct coroutine *c, void *unused) {
    (void)unused;
    CHECK(guest_call_plain(yields, c) == 7);
    coroutine_yield(c);
}

static void suspended(void) {
    static struct coroutine a, b;
    for (int registered = 0; registered < 2; registered++) {
        struct memory first = memory_new(GUARDED, 256 << 10), second = memory_new(MALLOCED, 256 << 10);
        if (registered)
            CHECK(upcall_stack_register(first.base, first.size, NULL) == 0);
        coroutine_init(&a, first.base, first.size, suspend_in_downcall, NULL);
        coroutine_init(&b, second.base, second.size, suspend_in_plain_call, NULL);
        coroutine_resume(&a);
        coroutine_resume(&b);
        stays("downcalls (Rust → C) that have not returned: 1");
        call_all();
        coroutine_resume(&a);
        stays("stacks in use by upcalls that have not returned, or by fibers: 1");
        call_all();
        coroutine_resume(&b);
        goes();
        call_all();
        coroutine_resume(&a);
        coroutine_resume(&b);
        CHECK(a.done && b.done);
        if (registered)
            CHECK(upcall_stack_unregister(first.base) == 0);
        memory_free(first);
        memory_free(second);
        goes();
    }
}

/* ---- fibers ---- */

static void waits_in_fiber(void *channel) {
    stays_for_downcalls(NULL);
    CHECK(guest_receive((guest_channel *)channel) == 5);
    stays_for_downcalls(NULL);
}

static void fibers(void) {
    guest_channel *channel = guest_channel_new(1);
    for (int i = 0; i < 3; i++) {
        CHECK(upcall_local_begin() == 0);
        stays("local_end");
        CHECK(upcall_local_spawn(waits_in_fiber, channel) == 0);
        stays("local_end");
        CHECK(upcall_local_run_ready(10) == 1);
        stays("");
        CHECK(guest_send(channel, 5) == 0 && upcall_local_run_ready(10) == 1);
        stays("local_end");
        CHECK(upcall_local_end() == 0);
        goes();
        /* The thread has given its parker back for reuse, and this sleep takes one again. */
        CHECK(guest_sleep(1) == 0);
        goes();
    }
    guest_channel_free(channel);
}

static int detach_and_return(void *unused) {
    (void)unused;
    return upcall_thread_detach();
}

static void on_others_threads(void) {
    for (int i = 0; i < 100; i++) {
        CHECK(guest_join(guest_spawn(detach_and_return, NULL)) == -1);
        CHECK(guest_join(guest_spawn_on_fiber("a fiber", detach_and_return, NULL)) == -1);
        guest_blocking(detach_and_return, NULL);
        CHECK(guest_join(guest_spawn(returns_7, NULL)) == 7);
        CHECK(upcall_thread_detach() == 0);
    }
    CHECK(upcall_shutdown(10000) == 0);
    goes();
}

/* ---- fiber-local values ---- */

static int dropped;

static int drops(void *unused) {
    (void)unused;
    dropped++;
    stays("");
    call_all();
    return 0;
}

static int drops_and_keeps(void *unused) {
    drops(unused);
    return guest_keep_local(drops, unused);
}

static int drops_and_begins(void *unused) {
    (void)unused;
    dropped++;
    return upcall_local_begin();
}

static int drops_and_panics(void *unused) {
    (void)unused;
    dropped++;
    return guest_panic("while dropping");
}

static void locals(void) {
    CHECK(guest_keep_local(drops, NULL) == 0 && guest_keep_local(drops, NULL) == 0);
    CHECK(guest_call(stays_for_something, NULL) == 7 && dropped == 0);
    goes();
    CHECK(dropped == 2);
    CHECK(guest_keep_local(drops_and_keeps, NULL) == 0);
    goes();
    CHECK(dropped == 4);
    CHECK(guest_keep_local(drops_and_panics, NULL) == 0);
    goes();
    CHECK(dropped == 5);
    CHECK(guest_keep_local(drops_and_begins, NULL) == 0);
    stays("local_end");
    CHECK(dropped == 6 && upcall_local_end() == 0);
    goes();
}

/* ---- threads ---- */

static pthread_key_t before_ours, after_ours;

static void destroy(pthread_key_t key, intptr_t round) {
    if (round % 2)
        CHECK(upcall_thread_detach() == 0);
    call_all();
    CHECK(upcall_thread_detach() == 0);
    if (round % 3)
        call_all();
    CHECK(pthread_setspecific(key, (void *)(round + 1)) == 0);
}

static void destroy_before(void *round) { destroy(before_ours, (intptr_t)round); }
static void destroy_after(void *round) { destroy(after_ours, (intptr_t)round); }

static void *with_keys(void *i) {
    if ((intptr_t)i % 2)
        call_all();
    if ((intptr_t)i % 4 == 1)
        CHECK(upcall_thread_detach() == 0);
    if ((intptr_t)i % 3)
        pthread_setspecific(before_ours, (void *)(1 + (intptr_t)i % 5));
    if ((intptr_t)i % 7)
        pthread_setspecific(after_ours, (void *)(1 + (intptr_t)i % 2));
    return NULL;
}

static void key_destructors(void) {
    CHECK(pthread_key_create(&before_ours, destroy_before) == 0);
    call_all(); /* makes upcall's key */
    CHECK(pthread_key_create(&after_ours, destroy_after) == 0);
    goes();
    long before = 0;
    for (intptr_t i = 0; i < 2000; i++) {
        if (i == 200)
            before = resident_kib();
        on_thread(NULL, 0, with_keys, (void *)i);
        CHECK(guest_attached_threads() == 0 && guest_stacks_in_use() == 0);
    }
    CHECK(resident_kib() - before < 512);
}

static int running;

static void *comes_and_goes(void *argument) {
    for (int i = 0; i < 2000; i++) {
        call_all();
        CHECK(upcall_thread_detach() == 0);
    }
    __atomic_sub_fetch(&running, 1, __ATOMIC_RELAXED);
    return argument;
}

/* Other threads enter and leave the list while this one reads it. */
static void threads(void) {
    enum { THREADS = 8 };
    pthread_t all[THREADS];
    running = THREADS;
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&all[i], NULL, comes_and_goes, NULL) == 0);
    while (__atomic_load_n(&running, __ATOMIC_RELAXED) > 0)
        CHECK(guest_attached_threads() <= THREADS);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(all[i], NULL) == 0);
    goes();
}

static volatile int answer;

#ifndef _WIN32
/* ---- signals ---- */

static void handle(int signal) {
    (void)signal;
    answer = upcall_thread_detach();
}

static void signal_handler(void) {
    if (no_query())
        return; /* the bounds of the alternate stack are unknown, too */
    enum { SIZE = 64 << 10 };
    stack_t stack = {.ss_sp = malloc(SIZE), .ss_size = SIZE};
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_ONSTACK};
    CHECK(stack.ss_sp && sigaltstack(&stack, NULL) == 0 && sigaction(SIGUSR1, &action, NULL) == 0);
    answer = -2;
    raise(SIGUSR1);
    CHECK(answer == 0); /* the thread has never been attached */
    CHECK(upcall_thread_attach() == 0);
    raise(SIGUSR1);
    CHECK(answer == -1 && guest_attached_threads() == 1);
    call_all();
    goes();
}

/* ---- calls abandoned by longjmp ---- */

static jmp_buf out;

static int leave(void *unused) {
    (void)unused;
    longjmp(out, 1);
}

static void left_by_longjmp(void) {
    if (setjmp(out) == 0)
        guest_call(leave, NULL);
    stays("downcalls (Rust → C) that have not returned: 1");
    if (setjmp(out) == 0)
        guest_call_pooled(leave, NULL);
    stays("downcalls (Rust → C) that have not returned: 2");
    call_all();
    /* Enough abandoned calls to trigger a scan. */
    for (volatile int i = 0; i < 3000; i++)
        if (setjmp(out) == 0)
            guest_call(leave, NULL);
    call_all();
    stays("");
}

static void *left_on_thread(void *argument) {
    left_by_longjmp();
    return argument;
}

static void left_by_longjmp_everywhere(void) {
    left_by_longjmp();
    on_thread(NULL, 0, left_on_thread, NULL);
    CHECK(guest_attached_threads() == 1);
}

/* ---- the alternate stack of the report ---- */

static int has_alternate_stack(void) {
    stack_t stack;
    CHECK(sigaltstack(NULL, &stack) == 0);
    return !(stack.ss_flags & SS_DISABLE);
}

static void *attached_with_report(void *argument) {
    for (int i = 0; i < 3; i++) {
        CHECK(!has_alternate_stack());
        CHECK(guest_empty() == 0 && has_alternate_stack());
        CHECK(upcall_thread_detach() == 0);
    }
    CHECK(!has_alternate_stack());
    return argument;
}

static void reports(void) {
    CHECK(upcall_report_install() == 0);
    on_thread(NULL, 0, attached_with_report, NULL);
}
#endif

/* ---- with little stack; in the child of a fork ---- */

/* No CHECK in here: printing a failure takes more stack than remains. */
static void detach_there(void) { answer = upcall_thread_detach(); }

static int detach_in_call(void *unused) {
    (void)unused;
    detach_there();
    return 7;
}

static void call_there(void) { guest_call(detach_in_call, NULL); }

static void *on_small_stack(void *argument) {
    size_t left = unoptimised() ? 6 << 10 : 2 << 10;
    call_all();
    with_left(low_end(), left, call_there);
    CHECK(answer == -1 && last_panic_says("downcalls"));
    with_left(low_end(), left, detach_there);
    CHECK(answer == 0 && guest_attached_threads() == 0);
    return argument;
}

static void little_stack(void) {
    on_thread(NULL, 256 << 10, on_small_stack, NULL);
    CHECK(guest_attached_threads() == 0);
}

#ifndef _WIN32
static void forked(void) {
    call_all();
    for (int attached = 0; attached < 2; attached++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            goes();
            call_all();
            goes();
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        goes();
    }
}
#endif

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"not_in_use", not_in_use},
        {"inside_calls", inside_calls},
        {"unseen", unseen},
        {"suspended", suspended},
        {"fibers", fibers},
        {"on_others_threads", on_others_threads},
        {"locals", locals},
        {"key_destructors", key_destructors},
        {"threads", threads},
        {"little_stack", little_stack},
#ifndef _WIN32
        {"signal_handler", signal_handler},
        {"left_by_longjmp", left_by_longjmp_everywhere},
        {"reports", reports},
        {"forked", forked},
#endif
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
