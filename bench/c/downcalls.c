/* Downcalls of an empty C function, by a loop inside one upcall. */
#include "measure.h"
#include "scenes.h"

static int empty(void) { return 0; }

#define TIMED(name, calls)                                                                                 \
    static double name(const struct subject *subject, long count) {                                        \
        (void)subject;                                                                                     \
        double start = now_ns();                                                                           \
        calls(empty, count);                                                                               \
        return now_ns() - start;                                                                           \
    }

TIMED(in_place, bench_downcalls)
#ifndef GO_GUEST
TIMED(pooled, bench_downcalls_pooled)
TIMED(from_loop, bench_downcalls_bare)
#endif

void downcalls(char **arguments) {
    (void)arguments;
    struct variant variants[] = {
        {in_place, 0, "in_place", 0, 0},
#ifndef GO_GUEST
        {pooled, 0, "pooled", 0, 0},
        {from_loop, &bare, 0, 0, 0},
#endif
    };
    measure(variants, LENGTH(variants), ROUNDS, USUAL_NS);
}
