/* A million upcalls on the main thread without one system call.
 *
 * Under strict seccomp, any system call but read, write and exit kills the process. */
#include "host.h"

#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum { WARM = 1000, CALLS = 1000000 };

static int returns_0(void *unused) {
    (void)unused;
    return 0;
}

static void empty(void) { guest_empty(); }
static void call(void) { guest_call(returns_0, NULL); }
static void call_pooled(void) { guest_call_pooled(returns_0, NULL); }

static void (*repeated)(void);

static void warm_then_strict(void) {
    for (int i = 0; i < WARM; i++)
        repeated();
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0);
    for (int i = 0; i < CALLS; i++)
        repeated();
    static const char proof[] = "1000000 upcalls under strict seccomp\n";
    CHECK(write(1, proof, sizeof proof - 1) == sizeof proof - 1);
    syscall(SYS_exit, 0);
}

static void on_coroutine(struct coroutine *c, void *unused) {
    (void)c;
    (void)unused;
    warm_then_strict();
}

static void in_coroutine(void) {
    static struct coroutine c;
    struct memory stack = memory_new(GUARDED, 64 << 10);
    coroutine_init(&c, stack.base, stack.size, on_coroutine, NULL);
    coroutine_resume(&c);
}

static void own_stack(void) {
    repeated = empty;
    warm_then_strict();
}

static void own_stack_downcall(void) {
    repeated = call;
    warm_then_strict();
}

static void own_stack_pooled(void) {
    repeated = call_pooled;
    warm_then_strict();
}

static void foreign_stack(void) {
    repeated = empty;
    in_coroutine();
}

static void foreign_stack_downcall(void) {
    repeated = call;
    in_coroutine();
}

/* Makes as many upcalls as the environment says, for a tracer that counts system calls. */
static void count(void) {
    long n = atol(getenv("HOST_CALLS"));
    for (long i = 0; i < n; i++)
        guest_empty();
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"own_stack", own_stack},
        {"own_stack_downcall", own_stack_downcall},
        {"own_stack_pooled", own_stack_pooled},
        {"foreign_stack", foreign_stack},
        {"foreign_stack_downcall", foreign_stack_downcall},
        {"count", count},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
