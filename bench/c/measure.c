/* Rounds, medians, the clock and the core. */
#define _GNU_SOURCE
#include "measure.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

double now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

double loop_here(const struct subject *subject, long count) { return subject->loop(count); }

void require(int ok, const char *what) {
    if (!ok) {
        fprintf(stderr, "bench: %s failed\n", what);
        exit(1);
    }
}

void pin(int core) {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(core, &cores);
    require(sched_setaffinity(0, sizeof cores, &cores) == 0, "sched_setaffinity");
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *numbers, size_t length) {
    qsort(numbers, length, sizeof *numbers, ascending);
    return length % 2 ? numbers[length / 2] : (numbers[length / 2 - 1] + numbers[length / 2]) / 2;
}

/* Additions, as many as a core can make at once: on an idle machine, their time is constant. A
 * virtual machine's core may be half of a real one, and slow down by half when the other half is in
 * use. Only calls keeping the core busy are slowed down. */
static double probe(void) {
    long a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0;
    double start = now_ns();
    for (int i = 0; i < 5000; i++) {
        a++, b++, c++, d++, e++, f++, g++, h++;
        __asm__ volatile("" : "+rm"(a), "+rm"(b), "+rm"(c), "+rm"(d), "+rm"(e), "+rm"(f), "+rm"(g), "+rm"(h));
    }
    return now_ns() - start;
}

void measure(struct variant *variants, size_t length, int rounds, double least_ns) {
    for (struct variant *v = variants; v < variants + length; v++) {
        require((v->ns = calloc((size_t)rounds, sizeof *v->ns)) != NULL, "calloc");
        v->run(v->subject, 1);
        v->count = 1;
        while (v->run(v->subject, v->count) < least_ns)
            v->count *= 2;
    }
    double *probes = calloc((size_t)rounds, sizeof *probes);
    require(probes != NULL, "calloc");
    for (int round = 0; round < rounds; round++) {
        probes[round] = probe();
        for (struct variant *v = variants; v < variants + length; v++)
            v->ns[round] = v->run(v->subject, v->count) / (double)v->count;
    }
    printf("probe %.1f\n", median(probes, (size_t)rounds));
    free(probes);
    for (struct variant *v = variants; v < variants + length; v++) {
        printf("%s %.4f\n", v->name ? v->name : v->subject->name, median(v->ns, (size_t)rounds));
        free(v->ns);
    }
}
