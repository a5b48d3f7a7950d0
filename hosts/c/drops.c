/* Fibers that end in the middle of C code: C's frames return in order, with the declared error
 * value. */
#include "host.h"

static guest_channel *never;

static int returns_7(void *unused) {
    (void)unused;
    return 7;
}

/* The events so far, one letter each. */
static char happened[64];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void note(char letter) {
    pthread_mutex_lock(&lock);
    size_t length = strlen(happened);
    CHECK(length < sizeof happened - 1);
    happened[length] = letter;
    pthread_mutex_unlock(&lock);
}

static int has_happened(const char *letters) {
    pthread_mutex_lock(&lock);
    int same = strcmp(happened, letters) == 0;
    pthread_mutex_unlock(&lock);
    return same;
}

static void check_happened(const char *letters) {
    if (!has_happened(letters))
        fprintf(stderr, "happened: %s\n", happened);
    CHECK(has_happened(letters));
    memset(happened, 0, sizeof happened);
}

/* ---- the waits in which fibers are dropped ---- */

static int nap(void *unused) {
    (void)unused;
    usleep(20000);
    return 0;
}

static int here(void) { return guest_receive(never); }
static int pooled(void) { return guest_receive_pooled(never); }
static int sized(void) { return guest_receive_sized(1 << 20, never); }
static int with_stack(void) { return guest_receive_with_stack(1 << 20, never); }
static int asleep(void) { return guest_sleep(3600 * 1000); }
static int in_blocking(void) { return guest_blocking(nap, NULL); }

static int (*const waits[])(void) = {here, pooled, sized, with_stack, asleep, in_blocking};
enum { WAITS = sizeof waits / sizeof *waits };

/* The C frames of a waiting fiber, each called by Rust:
 *
 *     outermost → Rust → outer → Rust, on an extension stack or not → inner → Rust, which waits
 */
struct dive {
    int (*wait)(void);
    size_t more_stack;
};

/* Checks that no upcall of any kind is served before C has returned. */
static void check_refused(void) {
    static const char why[] = "no upcall is served until the C code that made it has returned";
    struct guest_where where;
    CHECK(guest_increment(1) == -1 && last_panic_says(why));
    CHECK(guest_call_pooled(returns_7, NULL) == -1 && last_panic_says(why));
    CHECK(guest_call_caller(returns_7, NULL) == -1 && last_panic_says(why));
    CHECK(guest_use_sized_stack(1 << 20, 1) == -1 && last_panic_says(why));
    CHECK(guest_where(&where) == -1 && guest_yield() == -1 && here() == -1);
    CHECK(upcall_local_begin() == -1 && last_panic_says(why));
    CHECK(upcall_local_spawn(NULL, NULL) == -1 && upcall_local_run_ready(1) == -1);
    CHECK(local_event() == NO_EVENT && upcall_local_end() == -1);
}

static int inner(void *argument) {
    struct dive *dive = argument;
    volatile char filler[512];
    for (size_t i = 0; i < sizeof filler; i++)
        filler[i] = (char)((uintptr_t)dive + i);
    note('w');
    CHECK(dive->wait() == -1);
    CHECK(last_panic_says("the fiber was dropped while it waited"));
    check_refused();
    for (size_t i = 0; i < sizeof filler; i++)
        CHECK(filler[i] == (char)((uintptr_t)dive + i));
    note('i');
    return 7;
}

/* Called by a Rust destructor between the C frames. Upcalls are served here, and may wait. */
static int left(void *unused) {
    (void)unused;
    CHECK(guest_increment(1) == 2 && guest_call_pooled(returns_7, NULL) == 7);
    CHECK(guest_sleep(1) == 0 && guest_yield() == 0);
    note('l');
    return 0;
}

static int outer(void *argument) {
    struct dive *dive = argument;
    CHECK(guest_call_on_fiber(dive->more_stack, inner, left, dive) == -1);
    check_refused();
    note('o');
    return 8;
}

static int outermost(void *argument) {
    CHECK(guest_call_on_fiber(0, outer, left, argument) == -1);
    check_refused();
    note('t');
    return 9;
}

static void outermost_of_c(void *argument) { outermost(argument); }

static void check_served(void) {
    CHECK(guest_increment(1) == 2 && guest_call_pooled(returns_7, NULL) == 7 && guest_yield() == 0);
    CHECK(guest_open_calls() == 0);
}

/* ---- how the fibers are dropped ---- */

/* upcall_local_end drops three fibers suspended in C. Then the thread can begin a runtime again. */
static void ended_by_c(void) {
    never = guest_channel_new(1);
    for (int i = 0; i < 4 * WAITS; i++) {
        struct dive dive = {waits[i % WAITS], i / WAITS % 2 ? 300 << 10 : 0};
        CHECK(upcall_local_begin() == 0);
        for (int fiber = 0; fiber < 3; fiber++) {
            CHECK(upcall_local_spawn(outermost_of_c, &dive) == 0);
            /* This call returns: a wait suspends the fiber and does not block the thread. */
            CHECK(upcall_local_run_ready(SIZE_MAX) == 1);
            check_happened("w");
        }
        CHECK(upcall_local_end() == 0);
        check_happened("iloltiloltilolt");
        check_served();
    }
    CHECK(guest_stacks_in_use() <= 16);
}

/* Another thread drops fibers of workers. */
static void aborted(void) {
    never = guest_channel_new(1);
    for (int i = 0; i < 10 * WAITS; i++) {
        struct dive dive = {waits[i % WAITS], i / WAITS % 2 ? 300 << 10 : 0};
        guest_fiber *fiber = guest_spawn_on_fiber("diver", outermost, &dive);
        while (!has_happened("w"))
            usleep(100);
        CHECK(!guest_is_finished(fiber));
        guest_abort(fiber);
        CHECK(guest_join(fiber) == -1 && last_panic_says("the fiber was aborted"));
        check_happened("wilolt");
        check_served();
    }
}

/* Another thread aborts fibers at any moment: every entered C frame returns. */
static _Atomic long entered, returned;

static int go_nowhere(void *unused) {
    (void)unused;
    return 0;
}

static int go_down(void *levels) {
    intptr_t left = (intptr_t)levels;
    entered++;
    int result = guest_yield();
    if (result == 0 && left > 0)
        result = guest_call_on_fiber(left % 2 * (300 << 10), go_down, go_nowhere, (void *)(left - 1));
    if (result >= 0)
        result = guest_yield();
    returned++;
    return result;
}

static void aborted_at_any_moment(void) {
    enum { FIBERS = 3000 };
    int aborts = 0;
    for (int i = 0; i < FIBERS; i++) {
        guest_fiber *fiber = guest_spawn_on_fiber("goes down", go_down, (void *)5);
        for (volatile int spin = i * 37 % 3000; spin > 0;)
            spin--;
        guest_abort(fiber);
        int result = guest_join(fiber);
        CHECK(result == 0 || result == -1);
        aborts += result == -1;
    }
    CHECK(entered == returned);
    printf("%d of %d aborted\n", aborts, FIBERS);
    check_served();
}

/* upcall_local_end while other threads wake the ended fibers. The threads reuse each other's
 * queues. */
enum { RECEIVERS = 4 };

static void receive_until_ended(void *channel) {
    entered++;
    while (guest_receive(channel) >= 0)
        ;
    returned++;
}

static void *send_some(void *channels) {
    for (int i = 0; i < 100; i++)
        CHECK(guest_send(((guest_channel **)channels)[i % RECEIVERS], i) == 0);
    return NULL;
}

static void *end_while_sent_to(void *unused) {
    for (int round = 0; round < 200; round++) {
        guest_channel *channels[RECEIVERS];
        pthread_t sender;
        CHECK(upcall_local_begin() == 0);
        for (int i = 0; i < RECEIVERS; i++) {
            channels[i] = guest_channel_new(100);
            CHECK(upcall_local_spawn(receive_until_ended, channels[i]) == 0);
        }
        CHECK(pthread_create(&sender, NULL, send_some, channels) == 0);
        for (int i = 0; i < round; i++)
            CHECK(upcall_local_run_ready((size_t)round % 5) >= 0);
        CHECK(upcall_local_end() == 0);
        CHECK(pthread_join(sender, NULL) == 0);
        for (int i = 0; i < RECEIVERS; i++)
            guest_channel_free(channels[i]);
    }
    return unused;
}

static void ended_at_any_moment(void) {
    enum { THREADS = 3 };
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, end_while_sent_to, NULL) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(entered > 0 && entered == returned);
    check_served();
    CHECK(guest_attached_threads() == 1);
}

/* A fiber ends the runtime during a wait of its thread, outside upcall_local_run_ready. The end is
 * deferred until the thread has finished that wait. */
static void end_from_inside(void *channel) {
    CHECK(upcall_local_end() == 0);
    CHECK(local_event() == NO_EVENT && upcall_local_begin() == -1);
    note('e');
    CHECK(guest_send(channel, 3) == 0);
    CHECK(guest_receive(never) == -1);
    check_refused();
    note('r');
}

static void ended_in_a_wait(void) {
    struct dive dive = {here, 0};
    never = guest_channel_new(1);
    guest_channel *channel = guest_channel_new(1);
    for (int round = 0; round < 10; round++) {
        CHECK(upcall_local_begin() == 0);
        CHECK(upcall_local_spawn(outermost_of_c, &dive) == 0 && upcall_local_spawn(end_from_inside, channel) == 0);
        CHECK(guest_receive(channel) == 3);
        CHECK(has_happened("weiloltr") || has_happened("werilolt"));
        memset(happened, 0, sizeof happened);
        check_served();
    }
}

/* A thread exits without ending its runtime. A destructor of the host's own key calls Rust: before
 * the end of the runtime, if the thread-locals of Rust have a younger key, and otherwise after. */
static pthread_key_t key;

static void call_at_exit(void *unused) {
    (void)unused;
    if (locals_go_first())
        check_served();
    else
        CHECK(guest_increment(1) == 2 && guest_call_pooled(returns_7, NULL) == 7);
    note('k');
}

static void *exits_unended(void *dive) {
    CHECK(pthread_setspecific(key, dive) == 0);
    CHECK(upcall_local_begin() == 0);
    CHECK(upcall_local_spawn(outermost_of_c, dive) == 0 && upcall_local_spawn(outermost_of_c, dive) == 0);
    CHECK(upcall_local_run_ready(1) == 1);
    return NULL;
}

static void thread_exit(void) {
    never = guest_channel_new(1);
    CHECK(pthread_key_create(&key, call_at_exit) == 0);
    CHECK(guest_empty() == 0 && guest_sleep(1) == 0);
    int descriptors = 0, in_use = guest_stacks_in_use();
    for (int i = 0; i < 10 * WAITS; i++) {
        struct dive dive = {waits[i % WAITS], i / WAITS % 2 ? 300 << 10 : 0};
        on_thread(NULL, 0, exits_unended, &dive);
        check_happened(locals_go_first() ? "wiloltk" : "wkilolt");
        CHECK(guest_attached_threads() == 1 && guest_stacks_in_use() == in_use);
        if (i == 0)
            descriptors = open_descriptors();
    }
    CHECK(open_descriptors() == descriptors);
}

/* The process exits, from main and from the middle of a fiber. */
static void tell_end(void) {
    if (has_happened("wiloltk") || has_happened("wilolt"))
        puts("ended at exit");
}

static void process_exit(void) {
    static struct dive dive = {here, 0};
    atexit(tell_end);
    CHECK(pthread_key_create(&key, call_at_exit) == 0);
    never = guest_channel_new(1);
    exits_unended(&dive);
}

static void exit_here(void *unused) {
    (void)unused;
    puts("exit in a fiber");
    exit(0);
}

static void exit_in_fiber(void) {
    process_exit();
    CHECK(upcall_local_spawn(exit_here, NULL) == 0);
    upcall_local_run_ready(SIZE_MAX);
    CHECK(!"exit returned");
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"ended_by_c", ended_by_c},
        {"ended_at_any_moment", ended_at_any_moment},
        {"ended_in_a_wait", ended_in_a_wait},
        {"aborted", aborted},
        {"aborted_at_any_moment", aborted_at_any_moment},
        {"thread_exit", thread_exit},
        {"process_exit", process_exit},
        {"exit_in_fiber", exit_in_fiber},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
