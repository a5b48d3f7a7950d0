/* The tasks of one library, as the scenes see them. */
#ifndef TASKS_H
#define TASKS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* The kinds of operations: ready at once; ready at the second poll; ready at once, but polled by
 * the executor; waiting for ever. The Rust libraries know these numbers. */
enum kind { READY, YIELDS, LATER, WAITS };

enum { VALUE = 7 };

/* What a completion leaves for the C thread. */
struct done {
    /* 0 before the call, 1 after it, 2 while the C thread sleeps: a futex. */
    _Atomic int state;
    int status;
    int64_t value;
    /* When it was called, if `stamped`. */
    int stamped;
    double at;
    /* UniFFI's handle, or nothing. */
    uint64_t handle;
};

/* Each of libraries.c's libraries has these. */
void *task_start(enum kind kind, struct done *done);
void task_cancel(void *task);
/* Waits for the completion, takes the value and frees the task. */
int64_t task_finish(void *task, struct done *done);

/* Called by completions. */
void done_call(struct done *done, int status, int64_t value);
/* Sleeps until the completion is called. */
void done_wait(struct done *done);

double now_ns(void);
void require(int ok, const char *what);

#endif
