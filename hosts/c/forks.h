/* Shared by all forking programs: checks for parent and child, and threads to keep the library
 * busy. */
#ifndef FORKS_H
#define FORKS_H

#include "host.h"

#ifndef _WIN32
#include <sys/wait.h>
#endif

static __attribute__((unused)) int returns_7(void *unused) {
    (void)unused;
    return 7;
}

static __attribute__((unused)) int panics(void *message) { return guest_panic(message); }

/* Calls for use inside other calls: an uncaught panic would be raised in those. */
static __attribute__((unused)) void nested_calls_are_right(void) {
    char message[32] = "";
    CHECK(guest_increment(41) == 42);
    CHECK(guest_call(returns_7, NULL) == 7);
    CHECK(guest_call_pooled(returns_7, NULL) == 7);
    CHECK(guest_catch(panics, "raised", message, sizeof message) == -2 && strcmp(message, "raised") == 0);
    CHECK(guest_attached_threads() >= 1);
}

static __attribute__((unused)) void calls_are_right(void) {
    nested_calls_are_right();
    CHECK(guest_panic("alone") == -1 && last_panic_says("alone"));
}

static __attribute__((unused)) void *calls_on_thread(void *unused) {
    calls_are_right();
    return unused;
}

/* Starts workers, blocking calls, sleeps and threads afresh in this process. */
static __attribute__((unused)) void starts_afresh(void) {
    CHECK(guest_join(guest_spawn(returns_7, NULL)) == 7);
    CHECK(guest_join(guest_spawn_on_fiber("afresh", returns_7, NULL)) == 7);
    CHECK(guest_blocking(returns_7, NULL) == 7);
    CHECK(guest_sleep(1) == 0);
    on_thread(NULL, 0, calls_on_thread, NULL);
}

static __attribute__((unused)) void *starts_afresh_on_thread(void *unused) {
    starts_afresh();
    return unused;
}

#ifndef _WIN32
/* Forks, runs `child` in the child, and exits there. An alarm kills a hanging child. */
static __attribute__((unused)) void in_child(void (*child)(void)) {
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(20);
        child();
        fflush(NULL);
        _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    if (status != 0)
        fprintf(stderr, "the child ended with status %#x\n", status);
    CHECK(status == 0);
}
#endif

static __attribute__((unused)) void all_is_right(void) {
    calls_are_right();
    starts_afresh();
    CHECK(upcall_shutdown(5000) == 0);
    calls_are_right();
}

static __attribute__((unused)) int yields(void *c) {
    coroutine_yield(c);
    return guest_increment(1);
}

static __attribute__((unused)) void suspend(struct coroutine *c, void *unused) {
    (void)unused;
    CHECK(guest_call(yields, c) == 2);
}

/* ---- load: at some moment, other threads hold each lock of the library ---- */

static volatile int stop;

/* Makes no panics: a thread reporting a panic holds a lock of Rust's standard library, and nobody
 * else can hold this lock during a fork. */
static __attribute__((unused)) void *calls_for_load(void *unused) {
    CHECK(guest_increment(41) == 42);
    CHECK(guest_call(returns_7, NULL) == 7);
    CHECK(guest_call_pooled(returns_7, NULL) == 7);
    return unused;
}

static __attribute__((unused)) void *loads(void *number) {
    struct memory stack = memory_new(MALLOCED, 64 << 10);
    struct coroutine c;
    for (int i = 0; !stop; i++) {
        switch ((i + (int)(intptr_t)number) % 6) {
        case 0: on_thread(NULL, 64 << 10, calls_for_load, NULL); break;
        case 1: CHECK(guest_join(guest_spawn_on_fiber("load", returns_7, NULL)) == 7); break;
        case 2: CHECK(guest_blocking(returns_7, NULL) == 7); break;
        case 3: {
            void *registration = guest_register(stack.base, stack.size);
            coroutine_init(&c, stack.base, stack.size, suspend, NULL);
            coroutine_resume(&c);
            coroutine_resume(&c);
            guest_unregister(registration);
            break;
        }
        case 4:
            CHECK(upcall_local_begin() == 0 && upcall_local_end() == 0);
            CHECK(guest_sleep(0) == 0);
            break;
        default: CHECK(guest_open_calls() >= 0);
        }
        /* On a machine with few cores, threads that wait for a lock must get it at last. */
        usleep(100);
    }
    memory_free(stack);
    return NULL;
}


#endif
