/* The calls between PostgreSQL's side and Rust's side. An error crosses between them as a value
 * only: the result is false, and the reply has the error. */
#ifndef SHIM_H
#define SHIM_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int64_t value;
    int sqlstate; /* of an error; 0 for an error of Rust's own */
    char message[500];
} reply;

/* In Rust. */
bool host_load(reply *reply);
bool host_query(reply *reply, const char *sql);
bool host_try(reply *reply, const char *sql);
bool host_leave(reply *reply, const char *sql);
bool host_panic(reply *reply, const char *message);
bool host_nest(reply *reply, int levels);
bool host_wait(reply *reply, int milliseconds);
bool host_wait_interruptibly(reply *reply, int milliseconds);
bool host_worker(reply *reply);
bool host_check_stack(reply *reply, int how);
bool host_state(reply *reply, int what);

/* In C: run a query, and reply with the first column of the first row. pg_query_raising raises
 * errors over Rust's frames. */
bool pg_query(const char *sql, reply *reply);
bool pg_query_raising(const char *sql, reply *reply);
/* Waits until `fd` is readable or a signal has set the latch. Returns false if the query was
 * cancelled. */
bool pg_wait(int fd, reply *reply);
/* Returns whether PostgreSQL would refuse to go deeper here. */
bool pg_stack_is_too_deep(void);

#endif
