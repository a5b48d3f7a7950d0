/* tasks CORES SCENE [KIND|COUNT]: pins itself to so many cores, and measures a scene.
 *
 * It prints a line when it is ready, and measures a round for each line that it reads. So programs
 * with different libraries measure in turn, and a change of the machine's speed meets all of them.
 * A round prints nanoseconds an operation, a second figure of some scenes, and `probe`. */
#define _GNU_SOURCE
#include "tasks.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 1000 };

/* The least length of a round. */
#define ROUND_NS 3e6

size_t bench_waiting(void);
void bench_count_bytes(void);
long bench_bytes(void);

double now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

void require(int ok, const char *what) {
    if (!ok) {
        fprintf(stderr, "tasks: %s failed\n", what);
        exit(1);
    }
}

static void futex_wait(_Atomic int *word, int value) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic int *word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0); }

void done_call(struct done *done, int status, int64_t value) {
    done->status = status;
    done->value = value;
    if (done->stamped)
        done->at = now_ns();
    if (atomic_exchange(&done->state, 1) == 2)
        futex_wake(&done->state);
}

void done_wait(struct done *done) {
    int called = 0;
    if (!atomic_compare_exchange_strong(&done->state, &called, 2))
        return;
    while (atomic_load(&done->state) == 2)
        futex_wait(&done->state, 2);
}

/* The second figure of a round. */
static double second;
static enum kind kind;
static struct done dones[BATCH];
static void *tasks[BATCH];

static double one_by_one(long count) {
    struct done *done = dones;
    double start = now_ns();
    for (long i = 0; i < count; i++) {
        atomic_store(&done->state, 0);
        void *task = task_start(kind, done);
        require(task_finish(task, done) == VALUE, "a task");
    }
    return now_ns() - start;
}

static double batches(long count) {
    double start = now_ns();
    for (long before = 0; before < count; before += BATCH) {
        for (int i = 0; i < BATCH; i++) {
            atomic_store(&dones[i].state, 0);
            tasks[i] = task_start(kind, &dones[i]);
        }
        for (int i = 0; i < BATCH; i++)
            require(task_finish(tasks[i], &dones[i]) == VALUE, "a task");
    }
    double took = now_ns() - start;
    return took * (double)count / (double)((count + BATCH - 1) / BATCH * BATCH);
}

/* From the cancellation until this thread knows of the completion; `second`: until its call. */
static double cancels(long count) {
    struct done *done = dones;
    double seen = 0, called = 0;
    for (long i = 0; i < count; i++) {
        atomic_store(&done->state, 0);
        done->stamped = 1;
        size_t waiting = bench_waiting();
        void *task = task_start(WAITS, done);
        while (bench_waiting() == waiting)
            sched_yield();
        /* The worker goes to sleep. */
        usleep(50);
        double start = now_ns();
        task_cancel(task);
        done_wait(done);
        seen += now_ns() - start;
        called += done->at - start;
        task_finish(task, done);
    }
    second = called / (double)count;
    return seen;
}

static _Atomic int ball;

static void *partner(void *unused) {
    (void)unused;
    for (;;) {
        while (atomic_load(&ball) == 0)
            futex_wait(&ball, 0);
        atomic_store(&ball, 0);
        futex_wake(&ball);
    }
    return NULL;
}

/* Round trips of a ball between two threads: two hand-overs each. As in `cancels`, the partner
 * sleeps when a round trip begins; `second` is the time without that. */
static double hand_overs(long count) {
    static pthread_t other;
    if (!other)
        require(pthread_create(&other, NULL, partner, NULL) == 0, "pthread_create");
    double took[2] = {0};
    for (int rests = 0; rests < 2; rests++)
        for (long i = 0; i < count; i++) {
            if (rests)
                usleep(50);
            double start = now_ns();
            atomic_store(&ball, 1);
            futex_wake(&ball);
            while (atomic_load(&ball) == 1)
                futex_wait(&ball, 1);
            took[rests] += now_ns() - start;
        }
    second = took[0] / (double)count;
    return took[1];
}

/* A line of /proc/self/status, in bytes. */
static double status(const char *name) {
    FILE *file = fopen("/proc/self/status", "r");
    require(file != NULL, "opening /proc/self/status");
    char line[256];
    double bytes = -1;
    while (fgets(line, sizeof line, file))
        if (strncmp(line, name, strlen(name)) == 0)
            bytes = 1024 * atof(line + strlen(name));
    fclose(file);
    require(bytes >= 0, name);
    return bytes;
}

static void start_waiting(struct done *all, long count) {
    size_t before = bench_waiting();
    for (long i = 0; i < count; i++)
        require(task_start(WAITS, &all[i]) != NULL, "a task");
    while (bench_waiting() - before < (size_t)count)
        usleep(100);
}

/* The bytes of each of `count` that wait: of the process, and as allocated. */
static void memory(long count) {
    struct done *all = malloc((size_t)(count + 1) * sizeof *all);
    require(all != NULL, "malloc");
    memset(all, 0, (size_t)(count + 1) * sizeof *all);
    start_waiting(all + count, 1);
#ifndef GO
    bench_count_bytes();
#endif
    double resident = status("VmRSS:") + status("VmPTE:");
    start_waiting(all, count);
    resident = status("VmRSS:") + status("VmPTE:") - resident;
#ifdef GO
    double bytes = 0;
#else
    double bytes = (double)bench_bytes();
#endif
    printf("%.1f %.1f 0\n", resident / (double)count, bytes / (double)count);
}

/* Additions, as many as a core can make at once: on an idle machine, their time is constant. */
static double probe(void) {
    long a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0;
    double start = now_ns();
    for (int i = 0; i < 5000; i++) {
        a++, b++, c++, d++, e++, f++, g++, h++;
        __asm__ volatile("" : "+rm"(a), "+rm"(b), "+rm"(c), "+rm"(d), "+rm"(e), "+rm"(f), "+rm"(g), "+rm"(h));
    }
    return now_ns() - start;
}

static void measure(double (*run)(long count)) {
    long count = 1;
    run(1);
    /* The time that a round really takes: a scene's own time may be a part of it. */
    for (;;) {
        double start = now_ns();
        run(count);
        if (now_ns() - start >= ROUND_NS)
            break;
        count *= 2;
    }
    puts("ready");
    fflush(stdout);
    char line[16];
    while (fgets(line, sizeof line, stdin)) {
        double probed = probe();
        double took = run(count);
        printf("%.3f %.3f %.1f\n", took / (double)count, second, probed);
        fflush(stdout);
    }
}

/* Begins anew on the last `cores` cores: Go's runtime looks at them before `main`. */
static void pin(char **arguments) {
    if (getenv("TASKS_PINNED"))
        return;
    long online = sysconf(_SC_NPROCESSORS_ONLN), wanted = atol(arguments[1]);
    cpu_set_t cores;
    CPU_ZERO(&cores);
    for (long core = online - wanted; core < online; core++)
        CPU_SET((size_t)core, &cores);
    require(sched_setaffinity(0, sizeof cores, &cores) == 0, "sched_setaffinity");
    setenv("TASKS_PINNED", "1", 1);
    execv("/proc/self/exe", arguments);
    require(0, "execv");
}

int main(int count, char **arguments) {
    require(count >= 3, "counting the arguments");
    pin(arguments);
    const char *scene = arguments[2];
    long number = count > 3 ? atol(arguments[3]) : 0;
    kind = (enum kind)number;
    if (strcmp(scene, "one_by_one") == 0)
        measure(one_by_one);
    else if (strcmp(scene, "batches") == 0)
        measure(batches);
    else if (strcmp(scene, "cancels") == 0)
        measure(cancels);
    else if (strcmp(scene, "hand_overs") == 0)
        measure(hand_overs);
    else if (strcmp(scene, "memory") == 0)
        memory(number);
    else
        require(0, "finding the scene");
    /* Threads of the libraries may still run, and no library is shut down. */
    fflush(stdout);
    _exit(0);
}
