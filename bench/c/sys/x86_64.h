/* Swaps stacks without a system call, to keep small costs visible, and without a return, since
 * processors mispredict returns after a swap. */
#ifndef X86_64_H
#define X86_64_H

#include <stdint.h>

struct context {
    void *sp, *bp, *ip;
};

static inline void begin(struct context *context, char *low, void (*body)(void)) {
    /* As if called: 16-byte alignment, then a return address, which ends backtraces. */
    void **sp = (void **)((uintptr_t)next_base(low) & ~(uintptr_t)15) - 1;
    *sp = NULL;
    *context = (struct context){.sp = sp, .bp = NULL, .ip = (void *)(uintptr_t)body};
}

#define swap(from, to)                                                                                     \
    do {                                                                                                   \
        struct context *from_ = (from), *to_ = (to);                                                       \
        __asm__ volatile("movq %%rsp, (%0)\n\tmovq %%rbp, 8(%0)\n\tleaq 1f(%%rip), %%rax\n\t"              \
                         "movq %%rax, 16(%0)\n\tmovq (%1), %%rsp\n\tmovq 8(%1), %%rbp\n\t"                 \
                         "jmpq *16(%1)\n1:"                                                                \
                         : "+D"(from_), "+S"(to_)                                                          \
                         :                                                                                 \
                         : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14",      \
                           "r15", "cc", "memory");                                                         \
    } while (0)

#endif
