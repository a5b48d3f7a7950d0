/* Measuring: variants of one thing in turn, in rounds, and the median of each. */
#ifndef MEASURE_H
#define MEASURE_H

#include "guest.h"

enum { ROUNDS = 15 };

/* The usual length of a round: long against a clock reading, short against other load. */
#define USUAL_NS 3e5

/* A function, and a loop calling it by name, as C programs call a library. One loop for all
 * functions, calling through a pointer, would measure the prediction of changing targets. */
struct subject {
    const char *name;
    function *call;
    double (*loop)(long count);
};

extern const struct subject bare, upcall;
#ifdef GO_GUEST
#define EACH_SUBJECT(run) {run, &bare, 0, 0, 0}, {run, &upcall, 0, 0, 0}
#else
extern const struct subject catch_unwind, stacker, body_bare, body_upcall, body_catch_unwind;
#define EACH_SUBJECT(run)                                                                                  \
    {run, &bare, 0, 0, 0}, {run, &upcall, 0, 0, 0}, {run, &catch_unwind, 0, 0, 0}, {run, &stacker, 0, 0, 0}
#endif

/* One of the variants compared by a scene. */
struct variant {
    /* Makes `count` calls; returns the nanoseconds that they took. */
    double (*run)(const struct subject *subject, long count);
    const struct subject *subject;
    /* The subject's name, if null. */
    const char *name;
    /* Filled in: calls a round, and what each round took a call. */
    long count;
    double *ns;
};

#define LENGTH(array) (sizeof(array) / sizeof *(array))

/* Measures `length` variants in turn, `rounds` times. A round of a variant makes at least one call,
 * and takes at least `least_ns`. Prints a line for each variant: its name and the median of
 * nanoseconds a call. One more line, of `probe`, shows the load of the machine. */
void measure(struct variant *variants, size_t length, int rounds, double least_ns);

/* The subject's loop where we are. */
double loop_here(const struct subject *subject, long count);

double now_ns(void);

/* Keeps the calling thread on one core. */
void pin(int core);

/* The core given to the program. */
extern int main_core;

/* Stops the program with a message when `ok` is 0. */
void require(int ok, const char *what);

#endif
