/* A C++ runtime loaded after the first fibers have run, and visible to its user alone (RTLD_LOCAL).
 *
 * The test writes the runtime's per-thread data as handlers and destructors do. */
#include "host.h"
#include <dlfcn.h>

struct exceptions {
    void *caught;
    unsigned uncaught;
};

static struct exceptions *(*get_globals)(void);

static int waits(void *unused) {
    (void)unused;
    return guest_yield() + 1;
}

static int keeps(void *number) {
    struct exceptions *mine = get_globals();
    CHECK(!mine->caught && mine->uncaught == 0);
    for (int i = 1; i < 5; i++) {
        mine->caught = number;
        mine->uncaught = *(int *)number + i;
        CHECK(guest_yield() == 0);
        CHECK(mine == get_globals() && mine->caught == number && mine->uncaught == (unsigned)*(int *)number + i);
    }
    mine->caught = NULL;
    mine->uncaught = 0;
    return 1;
}

static void on_fibers(guest_callback body) {
    static int numbers[] = {0, 1, 2, 3, 4};
    guest_fiber *fibers[5];
    for (int i = 0; i < 5; i++)
        fibers[i] = guest_spawn_local(body, &numbers[i]);
    for (int i = 0; i < 5; i++)
        CHECK(guest_join(fibers[i]) == 1);
}

static void load(void) {
    void *runtime = dlopen("libstdc++.so.6", RTLD_NOW | RTLD_LOCAL);
    if (!runtime) {
        printf("there is no C++ runtime\n");
        exit(0);
    }
    *(void **)&get_globals = dlsym(runtime, "__cxa_get_globals");
    CHECK(get_globals);
}

/* The thread's own data are unchanged, even if there were some when the library found the
 * runtime. */
static void loaded_late(void) {
    CHECK(upcall_local_begin() == 0);
    on_fibers(waits);
    load();
    struct exceptions *mine = get_globals();
    mine->caught = mine;
    mine->uncaught = 3;
    on_fibers(keeps);
    CHECK(mine->caught == mine && mine->uncaught == 3);
    mine->caught = NULL;
    mine->uncaught = 0;
    on_fibers(keeps);
    on_fibers(waits);
    CHECK(upcall_local_end() == 0);
}

static int loads_and_keeps(void *number) {
    load();
    return guest_wait_call_wait_on_fiber(keeps, number);
}

/* C on a fiber loads the runtime, then calls C++. */
static void loaded_by_fiber(void) {
    CHECK(upcall_local_begin() == 0);
    on_fibers(waits);
    on_fibers(loads_and_keeps);
    CHECK(upcall_local_end() == 0);
}

static void *thread(void *unused) {
    CHECK(upcall_local_begin() == 0);
    on_fibers(keeps);
    CHECK(upcall_local_end() == 0);
    return unused;
}

static void on_other_threads(void) {
    loaded_late();
    for (int i = 0; i < 10; i++)
        on_thread(NULL, 0, thread, NULL);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"loaded_late", loaded_late},
        {"loaded_by_fiber", loaded_by_fiber},
        {"on_other_threads", on_other_threads},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
