/* The functions that are called, and their loops. */
#include "measure.h"

#define SUBJECT(name)                                                                                      \
    static __attribute__((noinline, aligned(64))) double loop_##name(long count) {                         \
        double start = now_ns();                                                                           \
        for (long i = 0; i < count; i++)                                                                   \
            bench_##name();                                                                                \
        return now_ns() - start;                                                                           \
    }                                                                                                      \
    const struct subject name = {#name, bench_##name, loop_##name};

SUBJECT(bare)
SUBJECT(upcall)
#ifndef GO_GUEST
SUBJECT(catch_unwind)
SUBJECT(stacker)
SUBJECT(body_bare)
SUBJECT(body_upcall)
SUBJECT(body_catch_unwind)
#endif
