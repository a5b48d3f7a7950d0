/* Swaps stacks by two system calls. Results are then differences of two large numbers. */
#ifndef GENERIC_H
#define GENERIC_H

#include <ucontext.h>

struct context {
    ucontext_t registers;
};

static inline void begin(struct context *context, char *low, void (*body)(void)) {
    require(getcontext(&context->registers) == 0, "getcontext");
    context->registers.uc_stack.ss_sp = low;
    context->registers.uc_stack.ss_size = (size_t)(next_base(low) - low);
    context->registers.uc_link = NULL;
    makecontext(&context->registers, body, 0);
}

#define swap(from, to) swapcontext(&(from)->registers, &(to)->registers)

#endif
