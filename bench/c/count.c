/* Warm calls of one kind, for counting instructions: the difference of two runs is the cost of the
 * calls between them. */
#include <stdlib.h>
#include <string.h>

#include "measure.h"
#include "scenes.h"
#include "stacks.h"

#ifndef GO_GUEST
enum { WARM = 10 };

static long calls;

static int empty(void) { return 0; }

static void repeat(function *call) {
    for (long left = WARM + calls; left > 0; left--)
        call();
}

static void upcalls(void) { repeat(bench_upcall); }

/* The high end of a registered stack, with room for upcalls in place below it. */
static char *map_registered(void) {
    enum { SIZE = 1 << 20 };
    char *low;
    map_stacks(&low, 1, SIZE);
    require(bench_register(low, SIZE) == 0, "bench_register");
    return low + SIZE - STACK_SIZE;
}

void count(char **arguments) {
    calls = atol(arguments[1]);
    if (strcmp(arguments[0], "bare") == 0)
        repeat(bench_bare);
    else if (strcmp(arguments[0], "own") == 0)
        upcalls();
    else if (strcmp(arguments[0], "foreign") == 0)
        on_stack(map_stacks_for_one(1), upcalls);
    else if (strcmp(arguments[0], "registered") == 0)
        on_stack(map_registered(), upcalls);
    else if (strcmp(arguments[0], "downcall") == 0)
        bench_downcalls(empty, WARM + calls);
    else if (strcmp(arguments[0], "downcall_pooled") == 0)
        bench_downcalls_pooled(empty, WARM + calls);
    else
        require(0, "finding the kind of call");
}
#endif
