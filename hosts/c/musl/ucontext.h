/* The functions of ucontext on x86-64, missing in musl, as far as the host programs use them.
 *
 * A context is the registers that musl's `_setjmp` keeps, in the part of a `ucontext_t` meant for
 * those of the floating-point unit. */
#ifndef UPCALL_MUSL_UCONTEXT_H
#define UPCALL_MUSL_UCONTEXT_H

#include_next <ucontext.h>

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

/* The library declares its own, without defining them. */
#define setcontext set_context
#define swapcontext swap_contexts
#define makecontext make_context

/* The places of SP and of the instruction pointer in a `jmp_buf`. */
enum { KEPT_SP = 6, KEPT_IP = 7 };

static inline struct __jmp_buf_tag *kept_registers(const ucontext_t *context) {
    _Static_assert(sizeof(jmp_buf) <= sizeof context->__fpregs_mem, "a context has no room for a jmp_buf");
    return (struct __jmp_buf_tag *)(uintptr_t)context->__fpregs_mem;
}

/* A macro: it returns anew each time that the context is resumed. */
#define getcontext(context)                                                                                \
    (sigprocmask(SIG_SETMASK, NULL, &(context)->uc_sigmask), _setjmp(kept_registers(context)), 0)

static inline int setcontext(const ucontext_t *context) {
    sigprocmask(SIG_SETMASK, &context->uc_sigmask, NULL);
    _longjmp(kept_registers(context), 1);
}

static inline int swapcontext(ucontext_t *from, const ucontext_t *to) {
    sigprocmask(SIG_SETMASK, NULL, &from->uc_sigmask);
    if (_setjmp(kept_registers(from)) == 0)
        setcontext(to);
    return 0;
}

/* The data at the base of a context's stack. */
struct first_call {
    uintptr_t return_address; /* 0, which ends walks */
    void (*function)(unsigned, unsigned);
    unsigned arguments[2];
};

/* Nobody calls this function: `makecontext` lays out the stack as if. */
static inline void begin_context(void) {
    uintptr_t *frame = __builtin_frame_address(0);
    struct first_call *call = (struct first_call *)(frame + 1);
    call->function(call->arguments[0], call->arguments[1]);
    __builtin_trap();
}

/* Takes two arguments at most. `uc_link` has no effect: `function` does not return. */
static inline void makecontext(ucontext_t *context, void (*function)(void), int count, ...) {
    /* Aligned as at the first instruction of a function. */
    uintptr_t high = ((uintptr_t)context->uc_stack.ss_sp + context->uc_stack.ss_size) & ~(uintptr_t)15;
    struct first_call *call = (struct first_call *)high - 1;
    va_list arguments;
    va_start(arguments, count);
    *call = (struct first_call){.function = (void (*)(unsigned, unsigned))function};
    for (int i = 0; i < count; i++)
        call->arguments[i] = va_arg(arguments, unsigned);
    va_end(arguments);
    struct __jmp_buf_tag *registers = kept_registers(context);
    memset(registers, 0, sizeof *registers);
    registers->__jb[KEPT_SP] = (uintptr_t)call;
    registers->__jb[KEPT_IP] = (uintptr_t)begin_context;
}

#endif
