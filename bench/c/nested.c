/* The loop of empty upcalls by itself, and inside a downcall inside an upcall. */
#include <string.h>

#include "measure.h"
#include "scenes.h"
#include "stacks.h"

struct inner {
    const struct subject *subject;
    long count;
    double ns;
};

static int loop_inside(void *argument) {
    struct inner *inner = argument;
    inner->ns = inner->subject->loop(inner->count);
    return 0;
}

static double inside(const struct subject *subject, long count) {
    struct inner inner = {subject, count, 0};
    require(bench_call(loop_inside, &inner) == 0, "bench_call");
    return inner.ns;
}

static char *stack;
static double (*body_run)(const struct subject *, long);
static struct inner body_inner;

static void body(void) { body_inner.ns = body_run(body_inner.subject, body_inner.count); }

static double there(double (*run)(const struct subject *, long), const struct subject *subject, long count) {
    body_run = run;
    body_inner = (struct inner){subject, count, 0};
    on_stack(stack, body);
    return body_inner.ns;
}

static double loop_there(const struct subject *subject, long count) { return there(loop_here, subject, count); }

static double inside_there(const struct subject *subject, long count) { return there(inside, subject, count); }

void nested(char **arguments) {
    int is_foreign = strcmp(arguments[0], "foreign") == 0;
    if (is_foreign)
        stack = map_stacks_for_one(60);
    struct variant variants[] = {
        {is_foreign ? loop_there : loop_here, &bare, 0, 0, 0},
        {is_foreign ? loop_there : loop_here, &upcall, "outer", 0, 0},
        {is_foreign ? inside_there : inside, &upcall, "inner", 0, 0},
    };
    measure(variants, LENGTH(variants), ROUNDS, USUAL_NS);
}
