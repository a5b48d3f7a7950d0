/* Foreign stacks: mapped here, with a guard page each, and described to nobody. */
#ifndef STACKS_H
#define STACKS_H

#include <stddef.h>

#include "measure.h"

enum { STACK_SIZE = 64 << 10 };

/* Maps `count` stacks of `size` bytes; writes the lowest usable address of each to `lows`. */
void map_stacks(char **lows, size_t count, size_t size);

/* Maps `count` stacks of STACK_SIZE; returns the lowest usable address of the one in the middle. */
char *map_stacks_for_one(size_t count);

/* Runs `body` to its end on the lowest STACK_SIZE bytes of the stack at `low`. */
void on_stack(char *low, void (*body)(void));

/* The base for the next use of the stack at `low`: each time another address modulo a page. On some
 * processors, equal addresses of two stacks modulo a page cost time, by chance. */
char *next_base(char *low);

/* A `struct context` is one stack of two that take turns.
   begin(context, low, body) lets the first swap to it begin `body`, which never returns, on the stack at `low`.
   swap(from, to) leaves `from` for `to`, in functions that keep nothing in vector registers. */
#if defined(__x86_64__)
#include "sys/x86_64.h"
#else
#include "sys/generic.h"
#endif

#endif
