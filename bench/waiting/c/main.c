/* waiting SCENE WHO [WHAT|COUNT]: a scene with fibers, tasks, coroutines, or goroutines; it prints a `figure`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../c/measure.h"

/* src/ has them in Rust, ../go two of them in Go. */
double bench_waiting(const char *who, const char *what, long count);
int bench_exchange(void);
#ifndef GO_GUEST
int bench_exchange_own(void);
int bench_exchange_tasks(void);
int bench_exchange_coroutines(void);
#endif

static const struct {
    const char *who;
    function *exchange;
} all[] = {
#ifdef GO_GUEST
    {"goroutines", bench_exchange},
#else
    {"fibers", bench_exchange},
    {"own_fibers", bench_exchange_own},
    {"tasks", bench_exchange_tasks},
    {"coroutines", bench_exchange_coroutines},
#endif
};

static const char *who, *what;
static function *exchange;

static double work(const struct subject *subject, long count) {
    (void)subject;
    double ns = bench_waiting(who, what, count);
    require(ns >= 0, what);
    return ns;
}

static double exchanges(const struct subject *subject, long count) {
    (void)subject;
    double start = now_ns();
    for (long i = 0; i < count; i++)
        require(exchange() == 0, "an exchange");
    return now_ns() - start;
}

static void measure_one(double (*run)(const struct subject *subject, long count)) {
    struct variant variant = {run, 0, "figure", 0, 0};
    measure(&variant, 1, 51, USUAL_NS);
}

/* How many times as long as in a row: blocking calls, as many by each of many. */
static void measure_blocking(void) {
    enum { CALLS = 250 };
    double start = now_ns();
    for (int i = 0; i < CALLS; i++)
        usleep(1000);
    double in_a_row = now_ns() - start;
    printf("figure %.4f\n", work(NULL, CALLS) / in_a_row);
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

/* The bytes of memory of each of `count` that wait; of these, the page tables'. */
static void measure_memory(long count) {
    what = "park";
    work(NULL, 1);
    double resident = status("VmRSS:"), tables = status("VmPTE:");
    work(NULL, count);
    resident = status("VmRSS:") - resident, tables = status("VmPTE:") - tables;
    printf("tables %.1f\nfigure %.1f\n", tables / (double)count, (resident + tables) / (double)count);
}

int main(int count, char **arguments) {
    require(count >= 3, "counting the arguments");
    const char *scene = arguments[1];
    who = arguments[2], what = count > 3 ? arguments[3] : "";
    for (size_t i = 0; i < LENGTH(all); i++)
        if (strcmp(who, all[i].who) == 0)
            exchange = all[i].exchange;
    require(exchange != NULL, "finding who");
    if (strcmp(scene, "work") == 0)
        measure_one(work);
    else if (strcmp(scene, "exchange") == 0)
        measure_one(exchanges);
    else if (strcmp(scene, "blocking") == 0)
        measure_blocking();
    else if (strcmp(scene, "memory") == 0)
        measure_memory(atol(what));
    else
        require(0, "finding the scene");
    return 0;
}
