/* One upcall on the thread's own stack, one on a foreign stack, and so on; and the swaps alone. */
#include "measure.h"
#include "scenes.h"
#include "stacks.h"

static char *stack;
static struct context here, there;

#define ALTERNATE(name, call)                                                                              \
    static void name##_there(void) {                                                                       \
        for (;;) {                                                                                         \
            call;                                                                                          \
            swap(&there, &here);                                                                           \
        }                                                                                                  \
    }                                                                                                      \
    static __attribute__((noinline)) void name##_here(long count) {                                        \
        for (long i = 0; i < count; i++) {                                                                 \
            call;                                                                                          \
            swap(&here, &there);                                                                           \
        }                                                                                                  \
    }                                                                                                      \
    static double name##_pairs(const struct subject *subject, long count) {                                \
        (void)subject;                                                                                     \
        begin(&there, stack, name##_there);                                                                \
        double start = now_ns();                                                                           \
        name##_here(count);                                                                                \
        return now_ns() - start;                                                                           \
    }

ALTERNATE(no, (void)0)
ALTERNATE(bare, bench_bare())
ALTERNATE(upcall, bench_upcall())
#ifndef GO_GUEST
ALTERNATE(catch_unwind, bench_catch_unwind())
ALTERNATE(stacker, bench_stacker())
#endif

void alternating(char **arguments) {
    (void)arguments;
    stack = map_stacks_for_one(60);
    struct variant variants[] = {
        {no_pairs, 0, "swaps", 0, 0},
        {bare_pairs, &bare, 0, 0, 0},
        {upcall_pairs, &upcall, 0, 0, 0},
#ifndef GO_GUEST
        {catch_unwind_pairs, &catch_unwind, 0, 0, 0},
        {stacker_pairs, &stacker, 0, 0, 0},
#endif
    };
    measure(variants, LENGTH(variants), ROUNDS, USUAL_NS);
}
