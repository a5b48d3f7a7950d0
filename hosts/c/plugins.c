/* Plug-ins built on upcall: the host loads shared objects at run time, closes them while in use,
 * and loads them twice. */
#include "objects.h"

#ifndef _WIN32
#include <sys/wait.h>
#endif

/* The functions of a plug-in called by the host. */
#define FUNCTIONS(DO)                                                                                    \
    DO(guest_increment) DO(guest_call) DO(guest_call_pooled) DO(guest_call_plain) DO(guest_panic)         \
    DO(guest_catch) DO(guest_attached_threads) DO(guest_open_calls) DO(guest_stacks_in_use)               \
    DO(guest_channel_new) DO(guest_send) DO(guest_receive) DO(guest_sleep) DO(guest_spawn)                \
    DO(guest_spawn_on_fiber) DO(guest_join) DO(guest_blocking) DO(guest_wait_call_wait_on_fiber)          \
    DO(guest_moving) DO(guest_moving_pooled) DO(upcall_last_message) DO(upcall_shutdown)                    \
    DO(upcall_stack_register) DO(upcall_local_begin) DO(upcall_local_spawn) DO(upcall_local_run_ready)    \
    DO(upcall_local_end)

struct plugin {
    void *object;
#define DECLARE(name) __typeof__(name) *name;
    FUNCTIONS(DECLARE)
};

/* The folder has two copies of the guest library, `first` and `second`. */
static struct plugin open_plugin(const char *name) {
    struct plugin p = {.object = open_object(name)};
#define FIND(function) CHECK((p.function = (__typeof__(p.function))find_symbol(p.object, #function)) != NULL);
    FUNCTIONS(FIND)
    return p;
}

static void close_plugin(struct plugin *p) { close_object(p->object); }

static int returns_7(void *unused) {
    (void)unused;
    return 7;
}

static int says(struct plugin *p, const char *text) {
    char message[256];
    return p->upcall_last_message(message, sizeof message) > 0 && strstr(message, text);
}

static void calls_are_right(struct plugin *p) {
    CHECK(p->guest_increment(41) == 42);
    CHECK(p->guest_call(returns_7, NULL) == 7);
    CHECK(p->guest_call_pooled(returns_7, NULL) == 7);
}

static struct plugin first, second;

/* ---- closed while it is in use ---- */

enum { THREADS = 8 };
static pthread_barrier_t barrier;

static void *calls_before_and_after(void *unused) {
    calls_are_right(&first);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier); /* now closed */
    calls_are_right(&first);
    CHECK(first.guest_panic("after dlclose") == -1 && says(&first, "after dlclose"));
    return unused;
}

/* The exit of these threads runs a key destructor in the plug-in's code. */
static void threads_call_on(void) {
    pthread_t threads[THREADS];
    first = open_plugin("first");
    calls_are_right(&first);
    int mains = first.guest_stacks_in_use();
    pthread_barrier_init(&barrier, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, calls_before_and_after, NULL) == 0);
    pthread_barrier_wait(&barrier);
    close_plugin(&first);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(first.guest_attached_threads() == 1);
    CHECK(first.guest_stacks_in_use() == mains);
}

static guest_channel *channel;
static int ended;

static int receives(void *unused) {
    (void)unused;
    return first.guest_receive(channel);
}

static int sleeps(void *unused) {
    (void)unused;
    return first.guest_sleep(20);
}

static void sleeps_here(void *unused) { ended += sleeps(unused) == 0; }

static int yields(void *c) {
    coroutine_yield(c);
    return first.guest_increment(1);
}

static void suspends(struct coroutine *c, void *call) {
    CHECK(((int (*)(guest_callback, void *))call)(yields, c) == 2);
}

/* Workers, timers, a thread for blocking calls, fibers, and coroutines in the middle of calls all
 * continue. */
static void busy(void) {
    enum { FIBERS = 6, COROUTINES = 3 };
    guest_fiber *fibers[FIBERS];
    struct coroutine coroutines[COROUTINES];
    first = open_plugin("first");
    channel = first.guest_channel_new(1);
    for (int i = 0; i < FIBERS; i++) {
        guest_callback waits = i % 2 ? sleeps : receives;
        fibers[i] = i < 2 ? first.guest_spawn(waits, NULL) : first.guest_spawn_on_fiber("waits", waits, NULL);
    }
    void *calls[COROUTINES] = {first.guest_call, first.guest_call_pooled, first.guest_call_plain};
    for (int i = 0; i < COROUTINES; i++) {
        coroutine_init(&coroutines[i], memory_new(GUARDED, 64 << 10).base, 64 << 10, suspends, calls[i]);
        coroutine_resume(&coroutines[i]);
    }
    CHECK(first.upcall_local_begin() == 0);
    CHECK(first.upcall_local_spawn(sleeps_here, NULL) == 0);
    CHECK(first.upcall_local_run_ready(SIZE_MAX) == 1);
    CHECK(first.guest_blocking(returns_7, NULL) == 7);
    close_plugin(&first);

    for (int i = 0; i < COROUTINES; i++) {
        coroutine_resume(&coroutines[i]);
        CHECK(coroutines[i].done);
    }
    for (int i = 0; i < FIBERS; i += 2)
        CHECK(first.guest_send(channel, 5) == 0);
    for (int i = 0; i < FIBERS; i++)
        CHECK(first.guest_join(fibers[i]) == (i % 2 ? 0 : 5));
    while (!ended)
        CHECK(first.guest_sleep(5) == 0 && first.upcall_local_run_ready(SIZE_MAX) >= 0);
    CHECK(first.upcall_local_end() == 0);
    CHECK(first.upcall_shutdown(5000) == 0);
    calls_are_right(&first);
}

static void *opens_again(void *unused) {
    struct plugin again = open_plugin("first");
    CHECK(memcmp(&again, &first, sizeof again) == 0);
    calls_are_right(&again);
    close_plugin(&again);
    return unused;
}

#ifdef _WIN32
static int mappings(void) { return GetModuleHandleA("first") != NULL; }
#else
static int mappings(void) {
    char line[4096];
    int count = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps);
    while (fgets(line, sizeof line, maps))
        count += strstr(line, "/first") != NULL;
    fclose(maps);
    return count;
}
#endif

/* Opening the plug-in again finds it in the same place and state: this thread is still attached.
 * Nothing else of it is in use to keep it loaded. */
static void again(void) {
    first = open_plugin("first");
    calls_are_right(&first);
    int mapped = mappings(), stacks = first.guest_stacks_in_use();
    CHECK(mapped > 0);
    close_plugin(&first);
    for (int i = 0; i < 100; i++) {
        if (i % 2)
            on_thread(NULL, 0, opens_again, NULL);
        else
            opens_again(NULL);
        CHECK(first.guest_attached_threads() == 1);
        CHECK(first.guest_stacks_in_use() == stacks);
        CHECK(mappings() == mapped);
    }
}

#ifndef _WIN32
/* A constructor waits for a thread's calls while its own thread has the loader's lock. */
static void constructor_waits(void) {
    void *object = open_object("starts");
    int *calls = find_symbol(object, "calls_made");
    CHECK(calls && *calls == 3);
    close_object(object);
    first = open_plugin("first");
    calls_are_right(&first);
    CHECK(first.guest_join(first.guest_spawn(returns_7, NULL)) == 7);
}
#endif

/* ---- two plug-ins, each with its own copy of upcall ---- */

enum { DEEP = 50 };

static void open_both(void) {
    first = open_plugin("first");
    second = open_plugin("second");
    CHECK(first.guest_call != second.guest_call);
}

static struct plugin *plugin_at(intptr_t level) { return level % 2 ? &second : &first; }

/* Called at the bottom of the nested calls. */
static int (*bottom)(void);

/* The plug-ins call each other, level by level: in place, on pooled stacks, and without
 * downcalls. */
static int nested(void *argument) {
    intptr_t level = (intptr_t)argument;
    void *deeper = (void *)(level + 1);
    struct plugin *p = plugin_at(level);
    if (level == DEEP)
        return bottom();
    switch (level / 2 % 3) {
    case 0: return p->guest_call(nested, deeper);
    case 1: return p->guest_call_pooled(nested, deeper);
    default: return p->guest_call_plain(nested, deeper);
    }
}

/* Checks that each plug-in knows only its own calls: 17 downcalls of 25 upcalls, and the upcalls
 * that made them. */
static int only_their_own(void) {
    char message[8];
    CHECK(first.guest_open_calls() == 34 && second.guest_open_calls() == 34);
    CHECK(first.guest_attached_threads() == 1 && second.guest_attached_threads() == 1);
    CHECK(first.upcall_last_message(message, sizeof message) == -1);
    return 7;
}

static int first_panics(void) { return first.guest_panic("at the bottom"); }
static int second_panics(void) { return second.guest_panic("at the bottom"); }

static int closes(void) {
    close_plugin(&first);
    close_plugin(&second);
    return 7;
}

#ifndef _WIN32
/* The child calls both plug-ins at once, and returns through all the calls. */
static int forks(void) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(20);
        calls_are_right(&first);
        calls_are_right(&second);
        return 1;
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    return 0;
}
#endif

static int answer;

static void nested_on_coroutine(struct coroutine *c, void *unused) {
    (void)c;
    (void)unused;
    answer = nested(0);
}

/* Runs the nested calls on the thread's own stack, or on a stack foreign to both plug-ins. */
static int all_nested(int (*what)(void), int on_coroutine) {
    bottom = what;
    if (!on_coroutine)
        return nested(0);
    struct coroutine c;
    struct memory stack = memory_new(GUARDED, 256 << 10);
    coroutine_init(&c, stack.base, stack.size, nested_on_coroutine, NULL);
    coroutine_resume(&c);
    CHECK(c.done);
    memory_free(stack);
    return answer;
}

static void none_is_open(void) {
    CHECK(first.guest_open_calls() == 0 && second.guest_open_calls() == 0);
}

static void two_nested(void) {
    open_both();
    for (int i = 0; i < 20; i++)
        CHECK(all_nested(only_their_own, i % 2) == 7);
    none_is_open();
}

/* Runs the nested calls in a downcall that catches panics. */
static int catches(struct plugin *p, const char *text, int (*what)(void)) {
    char message[64] = "";
    bottom = what;
    int caught = p->guest_catch(nested, (void *)0, message, sizeof message);
    CHECK(strcmp(message, text) == 0);
    return caught;
}

/* A panic continues from downcall to downcall of its own plug-in. For the other plug-in, calls
 * return. */
static void two_panic(void) {
    open_both();
    CHECK(catches(&first, "at the bottom", first_panics) == -2);
    CHECK(says(&first, "at the bottom"));
    CHECK(catches(&first, "", second_panics) == -1);
    CHECK(catches(&second, "at the bottom", second_panics) == -2);
    CHECK(catches(&second, "", first_panics) == -1);
    for (int i = 0; i < 2; i++) {
        CHECK(all_nested(first_panics, i) == -1);
        CHECK(all_nested(second_panics, i) == -1);
        none_is_open();
    }
}

static void starts_afresh(struct plugin *p) {
    calls_are_right(p);
    CHECK(p->guest_join(p->guest_spawn(returns_7, NULL)) == 7);
    CHECK(p->guest_blocking(returns_7, NULL) == 7);
    CHECK(p->guest_sleep(1) == 0);
}

#ifndef _WIN32
static void two_fork(void) {
    open_both();
    for (int i = 0; i < 4; i++) {
        starts_afresh(&first);
        starts_afresh(&second);
        int is_child = all_nested(forks, i % 2);
        starts_afresh(&first);
        starts_afresh(&second);
        none_is_open();
        if (is_child)
            _exit(0);
    }
}
#endif

static void two_closed(void) {
    open_both();
    starts_afresh(&first);
    starts_afresh(&second);
    CHECK(all_nested(closes, 0) == 7);
    starts_afresh(&first);
    starts_afresh(&second);
    CHECK(first.upcall_shutdown(5000) == 0 && second.upcall_shutdown(5000) == 0);
    CHECK(all_nested(only_their_own, 1) == 7);
}

/* ---- waits of one plug-in under the other's fibers ---- */

static int joins_first(void *unused) { return first.guest_join(first.guest_spawn(returns_7, unused)); }

static int waits_in_second(void *unused) {
    (void)unused;
    CHECK(second.guest_sleep(5) == 0);
    CHECK(second.guest_receive(channel) == 1);
    return second.guest_join(second.guest_spawn_on_fiber("of the second", joins_first, NULL));
}

/* To the second plug-in, a fiber of the first is on a foreign stack, so waits there block the
 * thread. Other threads of the fiber's plug-in take over. */
static void two_wait(void) {
    enum { FIBERS = 8 };
    guest_fiber *fibers[FIBERS];
    open_both();
    channel = second.guest_channel_new(1);
    for (int i = 0; i < FIBERS; i++)
        fibers[i] = i % 2 ? first.guest_spawn(waits_in_second, NULL)
                          : first.guest_spawn_on_fiber("of the first", waits_in_second, NULL);
    for (int i = 0; i < FIBERS; i++)
        CHECK(second.guest_send(channel, 1) == 0);
    for (int i = 0; i < FIBERS; i++)
        CHECK(first.guest_join(fibers[i]) == 7);
    for (int i = 0; i < FIBERS; i++) {
        CHECK(second.guest_send(channel, 1) == 0);
        CHECK(first.guest_wait_call_wait_on_fiber(waits_in_second, NULL) == 7);
    }
    none_is_open();
}

/* ---- moved to a thread older than the plug-in's thread-local storage ---- */

static struct coroutine moved;

static int yields_moved(void *unused) {
    (void)unused;
    coroutine_yield(&moved);
    return 0;
}

static void moves(struct coroutine *c, void *call) {
    (void)c;
    ((int (*)(guest_callback, void *))call)(yields_moved, NULL);
}

static void *resumes(void *unused) {
    coroutine_resume(&moved);
    return unused;
}

static void moved_from_exited(void *call, int registered) {
    struct memory stack = memory_new(GUARDED, 64 << 10);
    if (registered)
        CHECK(first.upcall_stack_register(stack.base, stack.size, "moved") == 0);
    coroutine_init(&moved, stack.base, stack.size, moves, call);
    on_thread(NULL, 0, resumes, NULL);
    on_thread(NULL, 0, resumes, NULL);
}

static void moved_in_place(void) {
    first = open_plugin("first");
    moved_from_exited(first.guest_moving, 1);
}

static void moved_pooled(void) {
    first = open_plugin("first");
    moved_from_exited(first.guest_moving_pooled, 0);
}

static void moved_plain(void) {
    first = open_plugin("first");
    moved_from_exited(first.guest_call_plain, 0);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"threads_call_on", threads_call_on},
        {"busy", busy},
        {"again", again},
        {"two_nested", two_nested},
        {"two_panic", two_panic},
        {"two_closed", two_closed},
        {"two_wait", two_wait},
        {"moved_in_place", moved_in_place},
        {"moved_pooled", moved_pooled},
        {"moved_plain", moved_plain},
#ifndef _WIN32
        {"constructor_waits", constructor_waits},
        {"two_fork", two_fork},
#endif
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
