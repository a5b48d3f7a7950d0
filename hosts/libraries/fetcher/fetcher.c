/* A C host of a library written with tokio. */
#include "../../c/host.h"

#include <semaphore.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "fetcher.h"

static atomic_int sum;
static sem_t done_posted;

static void done(void *user, int result) {
    CHECK(user == &sum);
    atomic_fetch_add(&sum, result);
    sem_post(&done_posted);
}

/* A completion that waits in turn, on a thread of the runtime. */
static void done_waits(void *user, int result) {
    CHECK(fetcher_ask(result) == result + 1);
    CHECK(fetcher_nap(1) == 0);
    CHECK(fetcher_sum(3) == 6);
    done(user, result);
}

static void use_all(void) {
    CHECK(fetcher_nap(1) == 0);
    CHECK(fetcher_ask(1) == 2);
    CHECK(fetcher_sum(10) == 55);
    CHECK(fetcher_echo(7) == 7);
    CHECK(fetcher_limited(2) == 1);
    atomic_store(&sum, 0);
    CHECK(fetcher_start(1, 5, done, &sum) == 0);
    sem_wait(&done_posted);
    CHECK(atomic_load(&sum) == 5);
    CHECK(fetcher_each(8, done_waits, &sum) == 0);
    CHECK(atomic_load(&sum) == 5 + 28);
    while (sem_trywait(&done_posted) == 0)
        ;
}

static void *use_all_on_thread(void *argument) {
    use_all();
    return argument;
}

static void on_main(void) { use_all(); }

static void on_one_thread(void) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, use_all_on_thread, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    use_all();
}

/* Several threads ask at once, with more waiting completions than threads of the runtime. */
static void *ask_often(void *argument) {
    for (int i = 0; i < 200; i++) {
        CHECK(fetcher_ask(i) == i + 1);
        CHECK(fetcher_each(4, done_waits, &sum) == 0);
    }
    return argument;
}

static void on_threads(void) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, ask_often, NULL) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

static void told_late(void) {
    use_all();
    fetcher_serve_waits();
    use_all();
}

static void eager(void) {
    CHECK(fetcher_eager() == -1);
    CHECK(last_panic_says("there is no reactor running") && last_panic_says("upcall::wait(async { .. })"));
}

/* In the child, waits served by the parent's runtime end with it; waits served by upcall
 * continue. */
static void use_in_child(void) {
    CHECK(fetcher_nap(1) == 0);
    CHECK(fetcher_sum(10) == 55);
    CHECK(fetcher_echo(7) == 7);
    CHECK(fetcher_limited(2) == 1);
}

static void fork_and_use(void (*in_child)(void)) {
    int status;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        in_child();
        exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(status == 0);
}

static void forked_first(void) {
    fork_and_use(use_all);
    use_all();
}

static void forked(void) {
    use_all();
    fork_and_use(use_in_child);
    use_all();
}

static void forked_told(void) {
    fetcher_serve_waits();
    fork_and_use(use_all);
    use_all();
    fork_and_use(use_in_child);
    use_all();
}

/* At exit, the thread-locals are gone, tokio's included. The runtime's tasks still serve the
 * thread. */
static void at_exit(void) {
    CHECK(fetcher_ask(1) == 2);
    CHECK(fetcher_start(1, 5, done, &sum) == 0);
    sem_wait(&done_posted);
    CHECK(fetcher_each(8, done_waits, &sum) == 0);
    CHECK(fetcher_nap(1) == -1);
    CHECK(last_panic_says("upcall::wait(handle.spawn(async { .. }))"));
}

static void exits(void) {
    CHECK(atexit(at_exit) == 0);
    use_all();
}

/* Exits while a task has not ended. */
static void exits_first(void) {
    CHECK(atexit(at_exit) == 0);
    CHECK(fetcher_start(3600 * 1000, 5, done, &sum) == 0);
}

static void shut_down(void) {
    use_all();
    CHECK(upcall_shutdown(5000) == 0);
    /* The library's own runtime is the library's affair. */
    CHECK(fetcher_ask(1) == 2);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"on_main", on_main},
        {"on_one_thread", on_one_thread},
        {"on_threads", on_threads},
        {"told_late", told_late},
        {"eager", eager},
        {"forked_first", forked_first},
        {"forked", forked},
        {"forked_told", forked_told},
        {"exits", exits},
        {"exits_first", exits_first},
        {"shut_down", shut_down},
        {NULL, NULL},
    };
    CHECK(sem_init(&done_posted, 0, 0) == 0);
    return run_case(cases, argc, argv);
}
