/* Warm calls of one kind, for counting instructions: the difference of two runs is what the calls between them took. */
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

static void on_foreign(void) { repeat(bench_upcall); }

static void on_registered(size_t size, void (*run)(void)) {
    char *stack;
    map_stacks(&stack, 1, size);
    require(bench_register(stack, size) == 0, "bench_register");
    on_stack(stack + size - STACK_SIZE, run);
}

void count(char **arguments) {
    calls = atol(arguments[1]);
    if (strcmp(arguments[0], "bare") == 0)
        repeat(bench_bare);
    else if (strcmp(arguments[0], "own") == 0)
        repeat(bench_upcall);
    else if (strcmp(arguments[0], "foreign") == 0)
        on_stack(map_stacks_for_one(1), on_foreign);
    else if (strcmp(arguments[0], "registered") == 0)
        on_registered(1 << 20, on_foreign);
    else if (strcmp(arguments[0], "downcall") == 0)
        bench_downcalls(empty, WARM + calls);
    else if (strcmp(arguments[0], "downcall_pooled") == 0)
        bench_downcalls_pooled(empty, WARM + calls);
    else
        require(0, "finding the kind of call");
}
#endif
