/* Threads that make one call each, and two threads that call at once. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "measure.h"
#include "scenes.h"

static void *call_once(void *subject) {
    if (subject)
        ((const struct subject *)subject)->call();
    return NULL;
}

static double create_and_join(const struct subject *subject, long count) {
    double start = now_ns();
    for (long i = 0; i < count; i++) {
        pthread_t thread;
        require(pthread_create(&thread, NULL, call_once, (void *)subject) == 0, "pthread_create");
        pthread_join(thread, NULL);
    }
    return now_ns() - start;
}

void threads(char **arguments) {
    (void)arguments;
    struct variant variants[] = {{create_and_join, 0, "none", 0, 0}, EACH_SUBJECT(create_and_join)};
    measure(variants, LENGTH(variants), 501, 0);
}

/* One of the threads that call at once. */
struct worker {
    int core;
    long count;
    const struct subject *subject;
    double start, end;
};

static atomic_int not_ready;

static void *work(void *argument) {
    struct worker *worker = argument;
    pin(worker->core);
    worker->subject->call();
    atomic_fetch_sub(&not_ready, 1);
    while (atomic_load(&not_ready) > 0)
        ;
    worker->start = now_ns();
    worker->subject->loop(worker->count);
    worker->end = now_ns();
    return NULL;
}

static double at_once(int length, const struct subject *subject, long count) {
    struct worker workers[2] = {{main_core, count, subject, 0, 0}, {main_core - 1, count, subject, 0, 0}};
    pthread_t ids[2];
    atomic_store(&not_ready, length);
    for (int i = 0; i < length; i++)
        require(pthread_create(&ids[i], NULL, work, &workers[i]) == 0, "pthread_create");
    for (int i = 0; i < length; i++)
        pthread_join(ids[i], NULL);
    double start = workers[0].start, end = workers[0].end;
    if (length == 2) {
        start = workers[1].start < start ? workers[1].start : start;
        end = workers[1].end > end ? workers[1].end : end;
    }
    return end - start;
}

static double one(const struct subject *subject, long count) { return at_once(1, subject, count); }

static double two(const struct subject *subject, long count) { return at_once(2, subject, count); }

void parallel(char **arguments) {
    (void)arguments;
    if (main_core == 0)
        return;
    struct variant variants[] = {
        {one, &bare, "bare_one", 0, 0},
        {two, &bare, "bare_two", 0, 0},
        {one, &upcall, "upcall_one", 0, 0},
        {two, &upcall, "upcall_two", 0, 0},
    };
    measure(variants, LENGTH(variants), ROUNDS, 2e6);
}
