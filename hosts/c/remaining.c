/* The bytes remaining on C's current stack. */
#include "host.h"

#ifndef _WIN32
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

enum { FRAME = 4096 };

/* Checks that each frame decreases the remaining bytes by its size. Returns the remaining bytes.
 *
 * All of them can be used, as `use` shows. */
static __attribute__((noinline)) ptrdiff_t deeper(int levels) {
    volatile char frame[FRAME];
    frame[0] = 1;
    ptrdiff_t left = upcall_stack_remaining();
    if (levels > 0) {
        ptrdiff_t below = deeper(levels - 1);
        CHECK(below <= left - FRAME && below > left - 2 * FRAME);
    }
    frame[FRAME - 1] = frame[0];
    return left;
}

static __attribute__((noinline)) void use(ptrdiff_t bytes) {
    volatile char *used = (volatile char *)alloca(bytes);
    for (ptrdiff_t i = 0; i < bytes; i += 1024)
        used[i] = 1;
}

static void *on_pthread(void *unused) {
    ptrdiff_t left = upcall_stack_remaining(), all = (ptrdiff_t)((uintptr_t)&left - low_end());
    if (no_query()) {
        CHECK(left == -1);
        return unused;
    }
    CHECK(left <= all && left > all - (16 << 10));
    CHECK(deeper(10) > 0);
    use(upcall_stack_remaining() - 4096);
    /* The answer is the same after attaching and after detaching. */
    CHECK(guest_empty() == 0);
    ptrdiff_t attached = upcall_stack_remaining();
    CHECK(attached <= left + 256 && attached >= left - 256);
    CHECK(upcall_thread_detach() == 0 && guest_attached_threads() == 0);
    ptrdiff_t again = upcall_stack_remaining();
    CHECK(again <= left + 256 && again >= left - 256);
    return unused;
}

static void own_stack(void) {
    on_thread(NULL, 256 << 10, on_pthread, NULL);
    CHECK(guest_attached_threads() == 0);
    CHECK(no_query() ? upcall_stack_remaining() == -1 : deeper(100) > 1 << 20);
}

static size_t registered_size;

static void on_coroutine(struct coroutine *c, void *unused) {
    (void)unused;
    CHECK(upcall_stack_remaining() == -1);
    coroutine_yield(c);
    ptrdiff_t left = upcall_stack_remaining();
    CHECK(left > 0 && (size_t)left < registered_size && deeper(3) > 0);
    coroutine_yield(c);
    CHECK(upcall_stack_remaining() == -1);
}

static void coroutines(void) {
    static struct coroutine c;
    struct memory stack = memory_new(GUARDED, registered_size = 64 << 10);
    coroutine_init(&c, stack.base, stack.size, on_coroutine, NULL);
    coroutine_resume(&c);
    CHECK(upcall_stack_register(stack.base, stack.size, NULL) == 0);
    coroutine_resume(&c);
    CHECK(upcall_stack_unregister(stack.base) == 0);
    coroutine_resume(&c);
    CHECK(c.done);
    memory_free(stack);
}

/* ---- inside calls ---- */

static int is_ours(void *unused) {
    (void)unused;
    ptrdiff_t left = upcall_stack_remaining();
    CHECK(left > 64 << 10 && left < 1 << 20);
    return 7;
}

static int is_undescribed(void *unused) {
    (void)unused;
    CHECK(upcall_stack_remaining() == -1);
    return 7;
}

/* An upcall from a coroutine runs on a pooled stack. A downcall from it returns to the coroutine's
 * stack. */
static void calls_on_coroutine(struct coroutine *c, void *unused) {
    (void)c;
    CHECK(guest_call_plain(is_ours, unused) == 7);
    CHECK(guest_call_pooled(is_undescribed, unused) == 7);
}

static void inside_calls(void) {
    static struct coroutine c;
    struct memory stack = memory_new(GUARDED, 64 << 10);
    coroutine_init(&c, stack.base, stack.size, calls_on_coroutine, NULL);
    coroutine_resume(&c);
    CHECK(c.done);
    memory_free(stack);
    CHECK(guest_join(guest_spawn_on_fiber("a fiber", is_ours, NULL)) == 7);
}

/* A thread's first question, with little stack remaining. It asks the system. */
static ptrdiff_t left_there;

/* No CHECK in here: printing a failure takes more stack than remains. */
static void asks(void) { left_there = upcall_stack_remaining(); }

static void *on_small_stack(void *argument) {
    ptrdiff_t left = unoptimised() ? 4096 : 1024;
    with_left(low_end(), left, asks);
    CHECK(no_query() ? left_there == -1 : left_there > left - 512 && left_there < left + 512);
    return argument;
}

static void little_stack(void) {
    on_thread(NULL, 256 << 10, on_small_stack, NULL);
}

#ifndef _WIN32
/* ---- without a system call ---- */

static void ask_repeatedly(int undescribed) {
    for (int i = 0; i < 1000000; i++)
        CHECK((upcall_stack_remaining() == -1) == (undescribed || no_query()));
}

static void ask_strictly(int undescribed) {
    ask_repeatedly(undescribed);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0);
    ask_repeatedly(undescribed);
    static const char proof[] = "1000000 questions under strict seccomp\n";
    CHECK(write(1, proof, sizeof proof - 1) == sizeof proof - 1);
    syscall(SYS_exit, 0);
}

static void ask_on_coroutine(struct coroutine *c, void *unused) {
    (void)c;
    (void)unused;
    ask_strictly(1);
}

static void repeated_on_own_stack(void) { ask_strictly(0); }

static void repeated_on_coroutine(void) {
    static struct coroutine c;
    struct memory stack = memory_new(GUARDED, 64 << 10);
    coroutine_init(&c, stack.base, stack.size, ask_on_coroutine, NULL);
    coroutine_resume(&c);
}
#endif

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"own_stack", own_stack},
        {"coroutines", coroutines},
        {"inside_calls", inside_calls},
        {"little_stack", little_stack},
#ifndef _WIN32
        {"repeated_on_own_stack", repeated_on_own_stack},
        {"repeated_on_coroutine", repeated_on_coroutine},
#endif
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
