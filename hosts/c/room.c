/* Stacks that are, or become, smaller than the system says. All room assumed by upcall exists. */
#include "host.h"

#include <stdbool.h>
#include <sys/resource.h>

int guest_use_callers_stack(size_t min_stack);
int guest_use_more_stack(size_t bytes);
ptrdiff_t guest_remaining(void);

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

enum { KIB = 1 << 10, MIB = 1 << 20, FRAME = 4096 };

/* The low end of the usable stack, and the end of the host's descent. */
static uintptr_t end, stop;
static int in_place, elsewhere, refused;
/* Whether the host has changed a part of the stack already verified by upcall. */
static bool looked_before;

static __attribute__((noinline)) void check_here(void) {
    char here;
    ptrdiff_t left = (ptrdiff_t)((uintptr_t)&here - end);
    struct guest_where where;
    /* Use all the promised stack. */
    CHECK(guest_call_plain(use_most, NULL) == 0);
    CHECK(guest_use_sized_stack(300 * KIB, 200 * KIB) == 0);
    CHECK(guest_use_more_stack(200 * KIB) == 0);
    /* Upcalls on the caller's stack have no margin, so they do not allow for guards installed
     * later. */
    if (!looked_before)
        refused += guest_use_callers_stack(64 * KIB) != 0;
    CHECK(guest_where(&where) == 0);
    *(where.own ? &in_place : &elsewhere) += 1;
    if (no_query())
        return;
    CHECK(where.own || left < 512 * KIB);
    /* The reported remainder may extend below the verified part. */
    ptrdiff_t said[] = {upcall_stack_remaining(), guest_remaining()};
    for (int i = 0; i < 2; i++)
        CHECK(said[i] <= left || left > 128 * KIB || looked_before);
}

/* Descends to `stop`, with checks on the way. */
static __attribute__((noinline)) int down(void) {
    volatile char frame[FRAME];
    frame[0] = frame[FRAME - 1] = 0;
    check_here();
    return (uintptr_t)frame - 2 * FRAME > stop ? down() + frame[0] : frame[0];
}

/* Calls `then` with `depth` bytes of this stack used. */
static __attribute__((noinline)) int from(size_t depth, int (*then)(void)) {
    volatile char *pad = (volatile char *)alloca(depth);
    for (size_t i = 0; i < depth; i += 1024)
        pad[i] = 0;
    return then() + pad[0];
}

static uintptr_t top;

static void set_limit(rlim_t bytes) {
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_STACK, &limit) == 0);
    limit.rlim_cur = bytes;
    if (setrlimit(RLIMIT_STACK, &limit) != 0) {
        printf("SKIPPED: the limit cannot be set\n");
        exit(0);
    }
    /* The limit includes the arguments and the environment, above main's frames. So the real end
     * may be higher by their size. */
    end = bytes == RLIM_INFINITY ? top - 64 * MIB : top - bytes;
    stop = end + 48 * KIB;
}

static void main_top(void) {
    char here;
    top = (uintptr_t)&here & ~(uintptr_t)4095;
}

static void limit_lowered(void) {
    main_top();
    set_limit(8 * MIB);
    CHECK(guest_empty() == 0);
    set_limit(1 * MIB);
    down();
    CHECK(in_place > 20 && elsewhere > 10 && refused > 0);
}

static void limit_lowered_before(void) {
    main_top();
    set_limit(1 * MIB);
    down();
    CHECK(in_place > 20 && elsewhere > 10 && refused > 0);
}

static int stays_in_place(void) {
    int before = in_place;
    check_here();
    CHECK(no_query() || in_place == before + 1);
    return 0;
}

static void limit_raised(void) {
    main_top();
    set_limit(1 * MIB);
    CHECK(guest_empty() == 0);
    set_limit(8 * MIB);
    from(3 * MIB, stays_in_place);
    from(100, stays_in_place);
    from(5 * MIB, stays_in_place);
}

static void limit_lifted_and_set(void) {
    main_top();
    CHECK(guest_empty() == 0);
    set_limit(RLIM_INFINITY);
    from(20 * MIB, stays_in_place);
    set_limit(1 * MIB);
    /* The stack has grown this far, and no limit takes that back. */
    end = top - 20 * MIB;
    from(15 * MIB, stays_in_place);
    from(2 * MIB, stays_in_place);
    set_limit(RLIM_INFINITY);
    from(30 * MIB, stays_in_place);
}

/* The limit falls below the current depth of the stack, so the stack no longer grows. */
static int falls_here(void) {
    char here;
    CHECK(guest_empty() == 0);
    set_limit(1 * MIB);
    /* The grown part of a stack is never taken away, but nobody knows its extent. */
    end = (uintptr_t)&here - 20 * MIB;
    for (int i = 0; i < 10; i++) {
        CHECK(guest_use_stack(90 * KIB) == 0 && guest_use_more_stack(200 * KIB) == 0);
        guest_use_callers_stack(64 * KIB);
    }
    return 0;
}

static void limit_falls_below(void) {
    main_top();
    set_limit(8 * MIB);
    CHECK(guest_empty() == 0);
    from(3 * MIB, falls_here);
}

/* ---- guards inside what the system calls the stack ---- */

static struct memory stack;
static int (*protect)(void *, size_t);
static bool protects_first;

static int by_mprotect(void *low, size_t size) { return mprotect(low, size, PROT_NONE); }
static int by_advice(void *low, size_t size) { return madvise(low, size, MADV_GUARD_INSTALL); }
static int one_page_by_advice(void *low, size_t size) {
    return madvise((char *)low + size - 4096, 4096, MADV_GUARD_INSTALL);
}

static void *protected(void *bytes) {
    size_t size = (size_t)bytes;
    if (!protects_first)
        CHECK(guest_empty() == 0);
    CHECK(protect(stack.base, size) == 0);
    end = (uintptr_t)stack.base + size;
    stop = end + 16 * KIB;
    down();
    CHECK(no_query() || (elsewhere > 10 && refused > 0));
    return NULL;
}

static void protect_half(int (*how)(void *, size_t), bool first) {
    stack = memory_new(GUARDED, 2 * MIB);
    protect = how, protects_first = first;
    if (how != by_mprotect && how(stack.base, 4096) != 0) {
        printf("SKIPPED: no MADV_GUARD_INSTALL\n");
        exit(0);
    }
    on_thread(stack.base, stack.size, protected, (void *)(size_t)(1 * MIB));
}

static void half_protected(void) { protect_half(by_mprotect, false); }
static void half_protected_before(void) { protect_half(by_mprotect, true); }
static void half_advised(void) { protect_half(by_advice, false); }
static void page_advised(void) { protect_half(one_page_by_advice, false); }

/* Installs a guard near the first upcall. */
static void *protected_near(void *unused) {
    char here;
    (void)unused;
    end = ((uintptr_t)&here & ~(uintptr_t)4095) - 60 * KIB;
    CHECK(mprotect((char *)end - 4096, 4096, PROT_NONE) == 0);
    stop = end + 16 * KIB;
    down();
    CHECK(in_place == 0);
    return NULL;
}

static void page_protected(void) {
    stack = memory_new(GUARDED, 1 * MIB);
    on_thread(stack.base, stack.size, protected_near, NULL);
}

/* Guard zones like a JVM's: at the low end, installed when the thread attaches to the JVM. Its code
 * needs 80 KiB above them. */
static void *zones(void *unused) {
    (void)unused;
    CHECK(guest_empty() == 0);
    CHECK(mprotect(stack.base, 16 * KIB, PROT_NONE) == 0);
    looked_before = true;
    end = (uintptr_t)stack.base + 16 * KIB;
    stop = end + 16 * KIB;
    down();
    return NULL;
}

static void zones_at_the_end(void) {
    for (size_t size = 192 * KIB; size <= 1 * MIB; size += 52 * KIB) {
        stack = memory_new(GUARDED, size & ~(size_t)4095);
        on_thread(stack.base, stack.size, zones, NULL);
        CHECK(munmap(stack.base, stack.size) == 0);
    }
}

/* Upcalls run in place if `min_stack` (128 KiB here) and the margin fit.
 *
 * The default margin is 96 KiB. So a stack of 256 KiB serves upcalls in place, and one of 208 KiB
 * only with UPCALL_STACK_MARGIN=0. */
static void *where_is_it(void *is_own) {
    struct guest_where where;
    CHECK(guest_where(&where) == 0);
    CHECK(no_query() || where.own == *(int *)is_own);
    return NULL;
}

static void margin(void) {
    int own = 1, pooled = 0;
    bool none = getenv("UPCALL_STACK_MARGIN") != NULL;
    struct memory large = memory_new(GUARDED, 256 * KIB), small = memory_new(GUARDED, 208 * KIB);
    on_thread(large.base, large.size, where_is_it, &own);
    on_thread(small.base, small.size, where_is_it, none ? &own : &pooled);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"limit_lowered", limit_lowered},
        {"limit_lowered_before", limit_lowered_before},
        {"limit_raised", limit_raised},
        {"limit_lifted_and_set", limit_lifted_and_set},
        {"limit_falls_below", limit_falls_below},
        {"half_protected", half_protected},
        {"half_protected_before", half_protected_before},
        {"half_advised", half_advised},
        {"page_advised", page_advised},
        {"page_protected", page_protected},
        {"zones_at_the_end", zones_at_the_end},
        {"margin", margin},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
