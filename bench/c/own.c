/* Upcalls on the thread's own stack. */
#include "measure.h"
#include "scenes.h"

void own(char **arguments) {
    (void)arguments;
    struct variant variants[] = {
        EACH_SUBJECT(loop_here),
#ifndef GO_GUEST
        {loop_here, &body_bare, 0, 0, 0},
        {loop_here, &body_upcall, 0, 0, 0},
        {loop_here, &body_catch_unwind, 0, 0, 0},
#endif
    };
    measure(variants, LENGTH(variants), ROUNDS, USUAL_NS);
}
