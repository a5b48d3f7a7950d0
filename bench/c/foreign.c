/* Upcalls from the host's own stacks: an undescribed one, and described ones, with lookups. */
#include <stdlib.h>

#include "measure.h"
#include "scenes.h"
#include "stacks.h"

static char *stack;
static const struct subject *body_subject;
static long body_count;
static double body_ns;

static void body(void) { body_ns = body_subject->loop(body_count); }

static double loop_there(const struct subject *subject, long count) {
    body_subject = subject, body_count = count;
    on_stack(stack, body);
    return body_ns;
}

void foreign(char **arguments) {
    stack = map_stacks_for_one((size_t)atol(arguments[0]));
    struct variant variants[] = {EACH_SUBJECT(loop_there)};
    measure(variants, LENGTH(variants), ROUNDS, USUAL_NS);
}

#ifndef GO_GUEST
static char **lows;
static size_t length;

#define LOOKUPS(name, find)                                                                                \
    static double name(const struct subject *subject, long count) {                                        \
        (void)subject;                                                                                     \
        size_t sum = 0, expected = 0, next = 0;                                                            \
        double start = now_ns();                                                                           \
        for (long i = 0; i < count; i++) {                                                                 \
            sum += find((size_t)lows[next]);                                                               \
            next = next + 1 < length ? next + 1 : 0;                                                       \
        }                                                                                                  \
        double ns = now_ns() - start;                                                                      \
        for (long i = 0; i < count; i++)                                                                   \
            expected += (size_t)lows[(size_t)i % length];                                                  \
        require(sum == expected, "finding a described stack");                                             \
        return ns;                                                                                         \
    }

LOOKUPS(lookup, bench_lookup)
LOOKUPS(lookup_bare, bench_lookup_bare)

static void shuffle(void) {
    srand(1);
    for (size_t i = length - 1; i > 0; i--) {
        size_t other = (size_t)rand() % (i + 1);
        char *low = lows[i];
        lows[i] = lows[other];
        lows[other] = low;
    }
}

void described(char **arguments) {
    length = (size_t)atol(arguments[0]);
    require((lows = calloc(length, sizeof *lows)) != NULL, "calloc");
    size_t size = (size_t)atol(arguments[1]) << 10;
    map_stacks(lows, length, size);
    for (size_t i = 0; i < length; i++)
        require(bench_register(lows[i], size) == 0, "bench_register");
    shuffle();
    /* The high end: `on_stack` uses STACK_SIZE bytes. */
    stack = lows[0] + size - STACK_SIZE;
    struct variant variants[] = {
        EACH_SUBJECT(loop_there),
        {lookup, 0, "lookup", 0, 0},
        {lookup_bare, 0, "lookup_bare", 0, 0},
    };
    measure(variants, LENGTH(variants), ROUNDS, USUAL_NS);
}
#endif
