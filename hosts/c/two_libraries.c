/* Two libraries with upcall in one program.
 *
 * As shared libraries, each has its own copy of upcall, with its own answers. Linked into one
 * static library, both use one copy. */
#include "host.h"

#ifndef _WIN32
#include <sys/wait.h>
#endif

#include "two_libraries.h"

typedef int (*last_message)(char *, size_t);

/* Returns whether `text` is the thread's last message; if `text` is NULL, whether there is none. */
static int says(last_message of, const char *text) {
    char message[256];
    int length = of(message, sizeof message);
    return text ? length > 0 && strcmp(message, text) == 0 : length == -1;
}

static int map_panics(void *unused) {
    (void)unused;
    return map_panic("of map, inside geo");
}

static void messages(void) {
    CHECK(says(geo_last_message, NULL) && says(map_last_message, NULL));
    CHECK(geo_panic("of geo") == -1);
    CHECK(says(geo_last_message, "of geo") && says(map_last_message, NULL));
    CHECK(map_panic("of map") == -1);
    CHECK(says(geo_last_message, "of geo") && says(map_last_message, "of map"));
    /* To geo's downcall, map is C, and has handled its own panic. */
    CHECK(geo_call(map_panics, NULL) == -1);
    CHECK(says(geo_last_message, "of geo") && says(map_last_message, "of map, inside geo"));
    CHECK(geo_stack_register(NULL, 0, NULL) == -1 && says(map_last_message, "of map, inside geo"));
    CHECK(strcmp(geo_version(), UPCALL_VERSION) == 0 && strcmp(map_version(), UPCALL_VERSION) == 0);
    /* A thread attaches to each library, and detaches from each. */
    CHECK(geo_thread_detach() == 0);
    CHECK(says(geo_last_message, NULL) && says(map_last_message, "of map, inside geo"));
    CHECK(geo_threads() == 0 && map_threads() == 1);
    CHECK(map_thread_attach() == 0 && map_thread_detach() == 0 && map_threads() == 0);
}

enum { BYTES = 256 << 10 };
static char *low;

static int cannot_be_unregistered(void *unused) {
    (void)unused;
    CHECK(geo_stack_unregister(low) == -1);
    /* The other library knows nothing of the call. Before freeing a stack, unregister it with
     * each. */
    CHECK(map_stack_unregister(low) == 0);
    return 7;
}

static void on_coroutine(struct coroutine *c, void *unused) {
    (void)unused;
    CHECK(geo_is_in_place() == 0 && map_is_in_place() == 0);
    CHECK(geo_stack_remaining() == -1 && map_stack_remaining() == -1);
    coroutine_yield(c);
    CHECK(geo_is_in_place() == 1 && map_is_in_place() == 0);
    CHECK(geo_stack_remaining() > BYTES / 2 && map_stack_remaining() == -1);
    coroutine_yield(c);
    CHECK(geo_is_in_place() == 1 && map_is_in_place() == 1);
    CHECK(geo_call(cannot_be_unregistered, NULL) == 7);
    CHECK(map_is_in_place() == 0);
}

static void stacks(void) {
    struct memory memory = memory_new(GUARDED, BYTES);
    struct coroutine coroutine;
    low = memory.base;
    coroutine_init(&coroutine, low, BYTES, on_coroutine, NULL);
    coroutine_resume(&coroutine);
    CHECK(geo_stack_register(low, BYTES, "the coroutine's") == 0);
    coroutine_resume(&coroutine);
    CHECK(map_stack_register(low, BYTES, "the coroutine's") == 0);
    coroutine_resume(&coroutine);
    CHECK(coroutine.done && geo_stack_unregister(low) == 0);
    memory_free(memory);
}

/* Returns the text of the library's dump, to be freed. */
static char *dumped(int (*dump)(int)) {
    FILE *file = tmpfile();
    char *text = (char *)calloc(1, 1 << 16);
    CHECK(file && text && dump(fileno(file)) == 0);
    rewind(file);
    CHECK(fread(text, 1, (1 << 16) - 1, file) > 0);
    fclose(file);
    return text;
}

static int looks(void *unused) {
    char *of_geo = dumped(geo_dump), *of_map = dumped(map_dump);
    CHECK(strstr(of_geo, "geo_call") && !strstr(of_geo, "map_call"));
    CHECK(strstr(of_map, "map_call") && !strstr(of_map, "geo_call"));
    free(of_geo);
    free(of_map);
    (void)unused;
    return 7;
}

static int calls_map(void *unused) { return map_call(looks, unused); }

static void snapshots(void) { CHECK(geo_call(calls_map, NULL) == 7); }

static int ran;

static void on_fiber(void *by) {
    CHECK(geo_call(calls_map, NULL) == 7);
    ran += *(int *)by;
}

static void runtimes(void) {
    int one = 1, ten = 10;
    CHECK(geo_local_begin() == 0 && map_local_begin() == 0);
    CHECK(EVENT_OF(geo_local)() != EVENT_OF(map_local)());
    CHECK(geo_local_spawn(on_fiber, &one) == 0 && map_local_spawn(on_fiber, &ten) == 0);
    CHECK(geo_local_run_ready(100) == 1 && ran == 1);
    CHECK(geo_local_run_ready(100) == 0);
    CHECK(map_local_run_ready(100) == 1 && ran == 11);
    CHECK(geo_local_end() == 0 && map_local_run_ready(100) == 0 && map_local_end() == 0);
}

static void workers(void) {
    CHECK(geo_on_worker() == 0 && map_on_worker() == 0);
    CHECK(geo_shutdown(10000) == 0);
    CHECK(geo_on_worker() == -1 && map_on_worker() == 0);
}

/* ---- coroutines suspended by waits of both ---- */

enum { COROUTINES = 20, ON_STACK = 96 << 10 };
static struct coroutine coroutines[COROUTINES], *running;
static int of_geo, of_map; /* suspended by each */

static void *current(void *suspended) {
    (void)suspended;
    return running;
}

static int suspend(void *suspended, void *coroutine) {
    ++*(int *)suspended;
    coroutine_yield(coroutine);
    --*(int *)suspended;
    return 0;
}

static void resume(struct coroutine *c) {
    running = c;
    coroutine_resume(c);
    running = NULL;
}

static int waits_for_map(void *unused) {
    (void)unused;
    return map_on_worker();
}

static void waits_for_both(struct coroutine *c, void *unused) {
    for (int i = 0; i < 5; i++) {
        CHECK(geo_on_worker() == 0 && map_on_worker() == 0);
        CHECK(geo_call(waits_for_map, unused) == 0);
        CHECK(c == running);
    }
}

/* Each library has hooks, a descriptor and a list of its own. */
static void suspended(void) {
    CHECK(geo_coroutines_install(0, &of_geo, current, suspend, NULL) == 0);
    CHECK(map_coroutines_install(0, &of_map, current, suspend, NULL) == 0);
    event of_either[] = {EVENT_OF(geo_coroutines)(), EVENT_OF(map_coroutines)()};
    int most_of_map = 0, done = 0;
    CHECK(of_either[0] != of_either[1]);
    for (int i = 0; i < COROUTINES; i++) {
        coroutine_init(&coroutines[i], memory_new(GUARDED, ON_STACK).base, ON_STACK, waits_for_both, NULL);
        resume(&coroutines[i]);
    }
    CHECK(of_geo == COROUTINES && of_map == 0);
    while (of_geo + of_map > 0) {
        void *ready;
        CHECK(is_either_signalled(of_either, 10000));
        while (geo_coroutines_next_ready(&ready) == 1)
            resume(ready);
        most_of_map = of_map > most_of_map ? of_map : most_of_map;
        while (map_coroutines_next_ready(&ready) == 1)
            resume(ready);
    }
    for (int i = 0; i < COROUTINES; i++)
        done += coroutines[i].done;
    CHECK(done == COROUTINES && most_of_map > 0);
    CHECK(geo_coroutines_uninstall(0) == 0 && map_coroutines_uninstall(0) == 0);
    CHECK(geo_on_worker() == 0 && map_on_worker() == 0);
}

#ifndef _WIN32
static void forks(void) {
    int status;
    CHECK(geo_on_worker() == 0 && map_on_worker() == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(geo_on_worker() == 0 && map_on_worker() == 0);
        CHECK(geo_call(map_panics, NULL) == -1 && says(map_last_message, "of map, inside geo"));
        CHECK(says(geo_last_message, NULL));
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
#endif

/* In one static library, there is one upcall with the names of both. */
static void one_copy(void) {
    struct memory memory = memory_new(GUARDED, BYTES);
    CHECK(geo_panic("of geo") == -1);
    CHECK(says(geo_last_message, "of geo") && says(map_last_message, "of geo"));
    CHECK(geo_stack_register(memory.base, BYTES, NULL) == 0);
    CHECK(map_stack_register(memory.base, BYTES, NULL) == -1);
    CHECK(map_stack_unregister(memory.base) == 0);
    CHECK(geo_local_begin() == 0 && map_local_begin() == -1 && map_local_end() == 0);
    CHECK(geo_on_worker() == 0 && map_on_worker() == 0 && map_shutdown(10000) == 0 && geo_on_worker() == -1);
    memory_free(memory);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"messages", messages}, {"stacks", stacks},   {"snapshots", snapshots}, {"runtimes", runtimes},
        {"workers", workers},   {"suspended", suspended}, {"one_copy", one_copy},
#ifndef _WIN32
        {"forks", forks},
#endif
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
