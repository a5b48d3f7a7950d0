/* Stack overflows and other faults in a process with reports: the text of the report, and the next
 * handler of the signal. */
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>

/* ---- proof: no thread allocates after its stack overflow, in any case of this program ---- */

static _Thread_local volatile sig_atomic_t overflows;

static inline void may_allocate(void) {
    static const char failed[] = "failed: an allocation while a stack overflows\n";
    if (overflows && write(1, failed, sizeof failed - 1) > 0)
        _exit(4);
}

/* Other C libraries have no second names for their functions. */
#ifdef __GLIBC__
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

void *malloc(size_t size) { return may_allocate(), __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return may_allocate(), __libc_calloc(count, size); }
void *realloc(void *p, size_t size) { return may_allocate(), __libc_realloc(p, size); }
void *memalign(size_t align, size_t size) { return may_allocate(), __libc_memalign(align, size); }
void *aligned_alloc(size_t align, size_t size) { return may_allocate(), __libc_memalign(align, size); }
int posix_memalign(void **p, size_t align, size_t size) {
    may_allocate();
    return (*p = __libc_memalign(align, size)) ? 0 : ENOMEM;
}
void free(void *p) { may_allocate(), __libc_free(p); }
#endif

/* ---- stderr, as seen by the host's handler ---- */

static int reports[2];
static char expected[16][128];
static int expectations;
static uintptr_t touched_low, touched_high;

static void __attribute__((format(printf, 1, 2))) expect(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    CHECK(expectations < 16);
    vsnprintf(expected[expectations++], sizeof expected[0], format, arguments);
    va_end(arguments);
}

static void __attribute__((noreturn)) finish(const char *proof, int status) {
    if (write(1, proof, strlen(proof)) < 0)
        status = 5;
    _exit(status);
}

/* Returns the text written so far. */
static const char *said(void) {
    static char text[16 << 10];
    ssize_t got = read(reports[0], text, sizeof text - 1);
    text[got < 0 ? 0 : got] = 0;
    return text;
}

static void check_said(const char *text) {
    const char *rest = text;
    for (int i = 0; i < expectations; i++) {
        rest = strstr(rest, expected[i]);
        if (!rest) {
            (void)!write(1, text, strlen(text));
            (void)!write(1, "failed: not said, or not in this order: ", 40);
            finish(expected[i], 3);
        }
        rest += strlen(expected[i]);
    }
    if (expectations == 0 && *text) {
        (void)!write(1, text, strlen(text));
        finish("failed: something was said", 3);
    }
}

static void check_arguments(int signal, siginfo_t *info, void *context) {
    uintptr_t address = (uintptr_t)info->si_addr;
    if (signal != SIGSEGV || info->si_signo != SIGSEGV || !context || errno != 77)
        finish("failed: wrong arguments", 3);
    if (touched_high && !(touched_low <= address && address < touched_high))
        finish("failed: si_addr is elsewhere", 3);
}

static void on_fault(int signal, siginfo_t *info, void *context) {
    check_arguments(signal, info, context);
    check_said(said());
    finish("the host's handler had its turn\n", 0);
}

static void handle(void (*handler)(int, siginfo_t *, void *), int flags, struct sigaction *before) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK | flags};
    sigaddset(&action.sa_mask, SIGUSR1);
    CHECK(sigaction(SIGSEGV, &action, before) == 0 && sigaction(SIGBUS, &action, NULL) == 0);
}

static void catch_stderr(void) {
    CHECK(pipe(reports) == 0 && fcntl(reports[0], F_SETFL, O_NONBLOCK) == 0);
    CHECK(dup2(reports[1], 2) == 2);
}

/* A host with a handler of its own asks for reports. */
static void with_handler(void) {
    CHECK(pthread_setname_np(pthread_self(), "main thread") == 0);
    handle(on_fault, 0, NULL);
    CHECK(upcall_report_install() == 0);
    catch_stderr();
}

/* ---- overflows ---- */

static volatile int forever = 1;

static __attribute__((noinline)) int recurse(int depth) {
    volatile char frame[512];
    frame[0] = (char)depth;
    return forever ? recurse(depth + 1) + frame[0] : 0;
}

static int overflow_here(void *unused) {
    (void)unused;
    errno = 77;
    overflows = 1;
    return recurse(0);
}

static void overflow_in_c(struct coroutine *c, void *unused) {
    (void)c;
    overflow_here(unused);
}

static struct guest_where where;

static int nothing(void *unused) { return unused != NULL; }

static int overflow_pooled(void *unused) {
    CHECK(guest_call_pooled(nothing, unused) == 0); /* from now on, the thread has a stack for it */
    errno = 77;
    overflows = 1;
    return guest_overflow(&where);
}

static const char *own(void) { return no_query() ? "an undescribed stack" : "the thread's own stack"; }

/* If a thread's own stack is unknown, its overflow counts as a plain fault. */
static void expect_own(const char *thread) {
    if (no_query()) {
        expect("upcall: SIGSEGV (invalid memory access) on thread ");
        return;
    }
    expect("upcall: stack overflow on thread %#lx (%s): the thread's own stack, ", (long)pthread_self(), thread);
    expect(" bytes, is used up: ");
    expect("a larger stack from whoever creates it");
    expect("open calls, the innermost first:\nupcall:   Rust → C, C runs on the thread's own stack, SP ");
    expect("\nupcall:   C → Rust, called from the thread's own stack, SP ");
}

static void pooled(void) {
    with_handler();
    expect("(main thread): a pooled stack that an upcall runs on, ");
    expect("is used up: ");
    expect("upcalls get more by entry().min_stack");
    expect("open calls, the innermost first:\nupcall:   C → Rust, called from %s, SP ", own());
    overflow_pooled(NULL);
}

static void fiber(void) {
    with_handler();
    expect("the stack of the fiber \"deep\", ");
    expect("fibers get more by Fibers::builder().stack_size");
    expect("Rust → C, C runs on a pooled stack");
    guest_join(guest_spawn_on_fiber("deep", overflow_here, NULL));
}

static void further_stack(void) {
    with_handler();
    expect("a further stack of the fiber \"deep\", ");
    expect("open calls, the innermost first:\nupcall:   C → Rust, called from a pooled stack, SP ");
    expect("Rust → C, C runs on a pooled stack");
    guest_join(guest_spawn_on_fiber("deep", overflow_pooled, NULL));
}

static void on_main(void) {
    with_handler();
    expect_own("main thread");
    guest_call(overflow_here, NULL);
}

static void *there(void *unused) {
    pthread_attr_t attr;
    void *low;
    size_t size;
    CHECK(pthread_setname_np(pthread_self(), "some thread") == 0);
    CHECK(pthread_getattr_np(pthread_self(), &attr) == 0);
    CHECK(pthread_attr_getstack(&attr, &low, &size) == 0);
    pthread_attr_destroy(&attr);
    touched_low = (uintptr_t)low - 4096;
    touched_high = (uintptr_t)low;
    expect_own("some thread");
    guest_call(overflow_here, NULL);
    return unused;
}

static void on_pthread(void) {
    with_handler();
    on_thread(NULL, 256 << 10, there, NULL);
}

static void overflow_on_coroutine(struct coroutine *c, void *unused) {
    (void)c;
    guest_call_caller(overflow_here, unused);
}

static void on_registered_stack(const char *name) {
    with_handler();
    struct coroutine c;
    struct memory stack = memory_new(GUARDED, 64 << 10);
    touched_low = (uintptr_t)stack.base - 4096;
    touched_high = (uintptr_t)stack.base;
    CHECK(upcall_stack_register(stack.base, stack.size, name) == 0);
    if (name)
        expect("the registered stack \"%s\", ", name);
    else
        expect(": a registered stack, ");
    expect("%#lx..%#lx, 65536 bytes, is used up: ", (long)stack.base, (long)stack.base + (64 << 10));
    expect("the host has to give it more memory");
    expect("Rust → C, C runs on a registered stack, SP ");
    expect("C → Rust, called from a registered stack, SP ");
    coroutine_init(&c, stack.base, stack.size, overflow_on_coroutine, NULL);
    coroutine_resume(&c);
}

static void registered(void) { on_registered_stack("conversation 7"); }
static void registered_without_name(void) { on_registered_stack(NULL); }

static void call_pooled_on_coroutine(struct coroutine *c, void *unused) {
    (void)c;
    guest_call_pooled(overflow_pooled, unused);
}

static int call_on_registered_coroutine(void *unused) {
    static struct coroutine c;
    struct memory stack = memory_new(GUARDED, 64 << 10);
    CHECK(upcall_stack_register(stack.base, stack.size, "nested") == 0);
    coroutine_init(&c, stack.base, stack.size, call_pooled_on_coroutine, unused);
    coroutine_resume(&c);
    return 0;
}

/* The main thread, a registered coroutine on it, and three pooled stacks. */
static void chain(void) {
    with_handler();
    expect("a pooled stack that an upcall runs on, ");
    expect("innermost first:\nupcall:   C → Rust, called from a registered stack, SP ");
    expect("\nupcall:   Rust → C, C runs on a registered stack, SP ");
    expect("\nupcall:   C → Rust, called from a registered stack, SP ");
    if (!no_query()) {
        expect("\nupcall:   (a coroutine; beneath it, on the thread's own stack:)");
        expect("\nupcall:   Rust → C, C runs on the thread's own stack, SP ");
        expect("\nupcall:   C → Rust, called from the thread's own stack, SP ");
    }
    guest_call_pooled(call_on_registered_coroutine, NULL);
}

static int call_again(void *levels) {
    intptr_t left = (intptr_t)levels;
    return left > 0 ? guest_call(call_again, (void *)(left - 1)) : overflow_pooled(NULL);
}

static void long_chain(void) {
    with_handler();
    expect("upcall:   C → Rust, called from %s, SP ", own());
    if (!no_query())
        expect("upcall:   … and so on: 1001 downcalls of the thread are open\n");
    guest_call(call_again, (void *)1000);
}

/* ---- the receiver of the signal ---- */

static void by_default(void) {
    CHECK(upcall_report_install() == 0);
    guest_call(overflow_pooled, NULL);
}

static void without_install(void) { guest_call(overflow_pooled, NULL); }

static volatile char *volatile nowhere = (char *)16;

static void fault_elsewhere(void) {
    errno = 77;
    overflows = 1;
    *nowhere = 1;
}

static int expected_signal = SIGSEGV;

static void plain_handler(int signal) {
    if (signal != expected_signal)
        finish("failed: wrong signal", 3);
    check_said(said());
    finish("the plain handler had its turn\n", 0);
}

static sigjmp_buf recovered;
static int deferred;

static void recover(int signal, siginfo_t *info, void *context) {
    check_arguments(signal, info, context);
    sigset_t blocked;
    sigprocmask(SIG_BLOCK, NULL, &blocked);
    if (!sigismember(&blocked, SIGUSR1) || sigismember(&blocked, SIGSEGV) != deferred)
        finish("failed: not the mask that the handler asked for", 3);
    check_said(said());
    overflows = 0;
    siglongjmp(recovered, 1);
}

/* A fault without an overflow, outside any call. */
static void elsewhere(void) {
    with_handler();
    CHECK(guest_empty() == 0);
    touched_low = 16;
    touched_high = 17;
    expect("upcall: SIGSEGV (invalid memory access) on thread %#lx (main thread)", (long)pthread_self());
    expect(", which touched 0x10\nupcall: no call is open there\n");
    fault_elsewhere();
}

/* With UPCALL_REPORTS=overflows, upcall passes the fault on silently. */
static void elsewhere_to_the_host(void) {
    with_handler();
    CHECK(guest_empty() == 0);
    fault_elsewhere();
}

static void elsewhere_by_default(void) {
    CHECK(upcall_report_install() == 0);
    fault_elsewhere();
}

static int fault_here(void *unused) {
    (void)unused;
    fault_elsewhere();
    return 0;
}

static void fault_in_c(void) {
    with_handler();
    expect("upcall: SIGSEGV (invalid memory access) on thread ");
    expect("innermost first:\nupcall:   Rust → C, C runs on %s, SP ", own());
    expect("\nupcall:   C → Rust, called from %s, SP ", own());
    expect(": guest::guest_call\n");
    guest_call(fault_here, NULL);
}

static int fault_in_rust_there(void *unused) {
    CHECK(guest_call(nothing, unused) == 0); /* from now on, the thread has a stack for it */
    errno = 77;
    overflows = 1;
    return unused ? 0 : guest_fault();
}

static void fault_in_rust(void) {
    with_handler();
    expect("upcall: SIGSEGV (invalid memory access) on thread ");
    expect("innermost first:\nupcall:   C → Rust, called from %s, SP ", own());
    expect(": guest::guest_fault\n");
    expect("upcall:   Rust → C, C runs on %s, SP ", own());
    expect("\nupcall:   C → Rust, called from %s, SP ", own());
    guest_call(fault_in_rust_there, NULL);
}

static void fault_on_fiber(void) {
    with_handler();
    expect("upcall: SIGSEGV (invalid memory access) on thread ");
    expect("innermost first:\nupcall:   Rust → C, C runs on a pooled stack, SP ");
    guest_join(guest_spawn_on_fiber("wild", fault_here, NULL));
}

static void fault_on_coroutine_there(struct coroutine *c, void *unused) {
    (void)c;
    guest_call(fault_in_rust_there, unused);
}

static int fault_on_new_coroutine(void *unused) {
    struct coroutine c;
    struct memory stack = memory_new(GUARDED, 64 << 10);
    coroutine_init(&c, stack.base, stack.size, fault_on_coroutine_there, unused);
    coroutine_resume(&c);
    return 0;
}

/* A fault on an undescribed coroutine, resumed in a downcall. */
static void fault_on_coroutine(void) {
    with_handler();
    expect("upcall: SIGSEGV (invalid memory access) on thread ");
    expect("innermost first:\nupcall:   C → Rust, called from an undescribed stack, SP ");
    expect(": guest::guest_fault\n");
    expect("upcall:   Rust → C, C runs on an undescribed stack, SP ");
    expect("upcall:   C → Rust, called from an undescribed stack, SP ");
    expect(": guest::guest_call\n");
    if (!no_query()) {
        expect("upcall:   (a coroutine; beneath it, on the thread's own stack:)\n");
        expect("upcall:   Rust → C, C runs on the thread's own stack, SP ");
        expect("upcall:   C → Rust, called from the thread's own stack, SP ");
    }
    guest_call(fault_on_new_coroutine, NULL);
}

static volatile int zero;

static int divide(void *unused) {
    (void)unused;
    overflows = 1;
    return 7 / zero;
}

static int trap(void *unused) {
    (void)unused;
    overflows = 1;
    __builtin_trap();
}

static int abort_there(void *unused) {
    (void)unused;
    overflows = 1;
    abort();
}

static void signal_in_c(int number, int (*raises)(void *)) {
    struct sigaction action = {.sa_handler = plain_handler, .sa_flags = SA_ONSTACK};
    expected_signal = number;
    CHECK(sigaction(number, &action, NULL) == 0);
    CHECK(upcall_report_install() == 0);
    catch_stderr();
    expect(number == SIGFPE   ? "upcall: SIGFPE (an arithmetic error) on thread "
           : number == SIGILL ? "upcall: SIGILL (an illegal instruction) on thread "
                              : "upcall: SIGABRT (abort) on thread ");
    expect("innermost first:\nupcall:   Rust → C, C runs on %s, SP ", own());
    expect("\nupcall:   C → Rust, called from %s, SP ", own());
    guest_call(raises, NULL);
}

static void division_by_zero(void) { signal_in_c(SIGFPE, divide); }
static void illegal_instruction(void) { signal_in_c(SIGILL, trap); }
static void aborted(void) { signal_in_c(SIGABRT, abort_there); }

static void aborted_by_default(void) {
    CHECK(upcall_report_install() == 0);
    guest_call(abort_there, NULL);
}

/* After the report of a fault, the abort is not reported. */
static void abort_in_handler(int signal) {
    if (signal == SIGSEGV)
        abort();
    const char *text = said();
    check_said(text);
    if (strstr(text, "SIGABRT"))
        finish("failed: said twice", 3);
    finish("the plain handler had its turn\n", 0);
}

static void aborted_by_handler(void) {
    struct sigaction action = {.sa_handler = abort_in_handler, .sa_flags = SA_ONSTACK};
    CHECK(sigaction(SIGSEGV, &action, NULL) == 0 && sigaction(SIGABRT, &action, NULL) == 0);
    CHECK(upcall_report_install() == 0);
    catch_stderr();
    expect("upcall: SIGSEGV (invalid memory access) on thread ");
    guest_call(fault_here, NULL);
}

/* A host that lives with its own faults. */
static void faults_are_its_way(void) {
    handle(recover, 0, NULL);
    CHECK(upcall_report_install() == 0);
    deferred = 1;
    CHECK(guest_empty() == 0);
    for (volatile int i = 0; i < 100; i++) {
        if (sigsetjmp(recovered, 1) == 0)
            fault_elsewhere();
    }
}

/* An access to the guard of a registered stack, with SP elsewhere, is a plain fault. */
static void guard_touched(void) {
    with_handler();
    expect("upcall: SIGSEGV (invalid memory access) on thread ");
    struct guest_where pooled;
    struct memory stack = memory_new(GUARDED, 64 << 10);
    CHECK(upcall_stack_register(stack.base, stack.size, NULL) == 0);
    guest_bounds(&pooled);
    nowhere = stack.base - 8;
    fault_elsewhere();
}

static void *fault_unattached(void *unused) {
    stack_t stack = {.ss_sp = memory_new(GUARDED, 64 << 10).base, .ss_size = 64 << 10};
    CHECK(sigaltstack(&stack, NULL) == 0);
    return unused ? unused : (fault_elsewhere(), NULL);
}

static void *overflow_unattached(void *base) {
    struct coroutine c;
    stack_t stack = {.ss_sp = memory_new(GUARDED, 64 << 10).base, .ss_size = 64 << 10};
    CHECK(sigaltstack(&stack, NULL) == 0);
    coroutine_init(&c, base, 64 << 10, overflow_in_c, NULL);
    coroutine_resume(&c);
    return NULL;
}

/* On a thread without any call of Rust, the report knows only the host's descriptions. */
static void registered_unattached(void) {
    with_handler();
    struct memory stack = memory_new(GUARDED, 64 << 10);
    CHECK(upcall_stack_register(stack.base, stack.size, "conversation 8") == 0);
    expect("the registered stack \"conversation 8\", ");
    expect("upcall: the thread is not attached: it has made no call\n");
    on_thread(NULL, 0, overflow_unattached, stack.base);
}

static void elsewhere_unattached(void) {
    with_handler();
    expect("upcall: SIGSEGV (invalid memory access) on thread ");
    expect("upcall: the thread is not attached: it has made no call\n");
    on_thread(NULL, 0, fault_unattached, NULL);
}

/* The memory needed for the report is unreadable. The host's handler gets its turn, for the fault
 * made by the report. */
static int overflow_unreadable(void *unused) {
    struct guest_where stack;
    volatile char *below = alloca(8192);
    below[0] = 1;
    guest_bounds(&stack);
    touched_low = stack.high - 4096;
    touched_high = stack.high;
    CHECK(mprotect((void *)touched_low, 4096, PROT_NONE) == 0);
    return overflow_here(unused);
}

static void fault_in_report(void) {
    with_handler();
    guest_join(guest_spawn_on_fiber("unreadable", overflow_unreadable, NULL));
}

static struct sigaction ours;

static void first_then_ours(int signal, siginfo_t *info, void *context) {
    check_arguments(signal, info, context);
    if (*said())
        finish("failed: something was said before", 3);
    ours.sa_sigaction(signal, info, context);
    check_said(said());
    finish("the host's handler was first\n", 0);
}

static void handler_after(void) {
    CHECK(upcall_report_install() == 0);
    handle(first_then_ours, 0, &ours);
    CHECK(upcall_report_install() == 0); /* makes no loop of handlers */
    CHECK(ours.sa_flags & SA_SIGINFO);
    catch_stderr();
    expect("a pooled stack that an upcall runs on");
    overflow_pooled(NULL);
}

/* A later handler that passes nothing on keeps the fault to itself. */
static void handler_after_alone(void) {
    CHECK(upcall_report_install() == 0);
    handle(on_fault, 0, NULL);
    catch_stderr();
    overflow_pooled(NULL);
}

static void handler_without_siginfo(void) {
    CHECK(signal(SIGSEGV, plain_handler) != SIG_ERR);
    CHECK(upcall_report_install() == 0);
    catch_stderr();
    expect("a pooled stack that an upcall runs on");
    overflow_pooled(NULL);
}

/* Called for the first fault. The next fault finds the default action. */
static void once(int signal, siginfo_t *info, void *context) {
    static int times;
    check_arguments(signal, info, context);
    if (times++)
        finish("failed: called twice", 3);
    (void)!write(2, "called once\n", 12);
}

static void handler_for_once(void) {
    handle(once, SA_RESETHAND, NULL);
    CHECK(upcall_report_install() == 0);
    fault_elsewhere();
}

/* A host that continues after each overflow. It may do so after an overflow of its own C code on
 * its own coroutine. */
static void recovers_with(int flags) {
    handle(recover, flags, NULL);
    CHECK(upcall_report_install() == 0);
    catch_stderr();
    deferred = flags == 0;
    static struct coroutine c;
    struct memory stack = memory_new(GUARDED, 64 << 10);
    CHECK(upcall_stack_register(stack.base, stack.size, "sandbox") == 0);
    expect("the registered stack \"sandbox\"");
    for (volatile int i = 0; i < 100; i++) {
        if (sigsetjmp(recovered, 1) == 0) {
            coroutine_init(&c, stack.base, stack.size, overflow_in_c, NULL);
            coroutine_resume(&c);
        }
        CHECK(guest_increment(i) == i + 1);
    }
    CHECK(upcall_stack_unregister(stack.base) == 0);
}

static void recovers(void) { recovers_with(0); }
static void recovers_with_nodefer(void) { recovers_with(SA_NODEFER); }

static void sent_is_ignored(void) {
    CHECK(signal(SIGSEGV, SIG_IGN) != SIG_ERR);
    CHECK(upcall_report_install() == 0);
    CHECK(raise(SIGSEGV) == 0 && kill(getpid(), SIGSEGV) == 0);
    /* A fault is not ignored. */
    guest_call(overflow_pooled, NULL);
}

static void sent_by_default(void) {
    CHECK(upcall_report_install() == 0);
    raise(SIGSEGV);
    CHECK(!"survived");
}

static void stderr_closed(void) {
    with_handler();
    CHECK(close(2) == 0);
    overflow_pooled(NULL);
}

/* ---- threads ---- */

static pthread_barrier_t both;

static void wait_for_both(int signal, siginfo_t *info, void *context) {
    static int handled;
    check_arguments(signal, info, context);
    if (__atomic_fetch_add(&handled, 1, __ATOMIC_SEQ_CST) == 0)
        for (;;)
            sched_yield();
    const char *text = said();
    check_said(text);
    const char *first = strstr(text, "(thread 1)"), *second = strstr(text, "(thread 2)");
    if (!first || !second)
        finish("failed: one of two was not reported", 3);
    finish("both were reported\n", 0);
}

static void *overflow_with_another(void *name) {
    CHECK(pthread_setname_np(pthread_self(), name) == 0);
    CHECK(guest_call_pooled(nothing, NULL) == 0);
    pthread_barrier_wait(&both);
    overflow_pooled(NULL);
    return NULL;
}

static void two_at_once(void) {
    pthread_t threads[2];
    handle(wait_for_both, 0, NULL);
    CHECK(upcall_report_install() == 0);
    catch_stderr();
    CHECK(pthread_barrier_init(&both, NULL, 2) == 0);
    /* Each report is whole, in either order. */
    for (int i = 0; i < 2; i++) {
        expect("upcall: stack overflow on thread ");
        expect(" is used up: ");
        expect("\nupcall: upcalls get more by ");
        expect("\nupcall: open calls, the innermost first:\n");
    }
    CHECK(pthread_create(&threads[0], NULL, overflow_with_another, "thread 1") == 0);
    CHECK(pthread_create(&threads[1], NULL, overflow_with_another, "thread 2") == 0);
    pthread_join(threads[0], NULL);
}

static void *attached_before(void *again) {
    CHECK(guest_empty() == 0);
    pthread_barrier_wait(&both); /* main asks for reports */
    pthread_barrier_wait(&both);
    if (again)
        CHECK(upcall_report_install() == 0);
    guest_call(overflow_pooled, NULL);
    return NULL;
}

static void install_while_attached(void *again) {
    pthread_t thread;
    CHECK(pthread_barrier_init(&both, NULL, 2) == 0);
    CHECK(pthread_create(&thread, NULL, attached_before, again) == 0);
    pthread_barrier_wait(&both);
    CHECK(upcall_report_install() == 0);
    pthread_barrier_wait(&both);
    pthread_join(thread, NULL);
}

/* Without an alternate stack, no report can be made, and nothing loops. */
static void no_alternate_stack(void) { install_while_attached(NULL); }
static void alternate_stack_later(void) { install_while_attached("again"); }

static stack_t alternate(void) {
    stack_t stack;
    CHECK(sigaltstack(NULL, &stack) == 0);
    return stack;
}

static void *has_one_from_its_first_upcall(void *unused) {
    CHECK(alternate().ss_flags & SS_DISABLE);
    CHECK(guest_empty() == 0);
    CHECK(!(alternate().ss_flags & SS_DISABLE) && alternate().ss_size >= 64 << 10);
    return unused;
}

static void *keeps_the_host_s(void *unused) {
    struct memory memory = memory_new(MALLOCED, 64 << 10);
    stack_t stack = {.ss_sp = memory.base, .ss_size = memory.size};
    CHECK(sigaltstack(&stack, NULL) == 0);
    CHECK(guest_empty() == 0);
    CHECK(alternate().ss_sp == memory.base);
    stack.ss_flags = SS_DISABLE;
    CHECK(sigaltstack(&stack, NULL) == 0);
    memory_free(memory);
    return unused;
}

static int mappings(void) {
    int lines = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps);
    for (int c; (c = getc(maps)) != EOF;)
        lines += c == '\n';
    fclose(maps);
    return lines;
}

static void alternate_stacks(void) {
    on_thread(NULL, 0, keeps_the_host_s, NULL);
    CHECK(alternate().ss_flags & SS_DISABLE);
    CHECK(upcall_report_install() == 0);
    CHECK(!(alternate().ss_flags & SS_DISABLE));
    on_thread(NULL, 0, has_one_from_its_first_upcall, NULL);
    on_thread(NULL, 0, keeps_the_host_s, NULL);
    int before = mappings();
    for (int i = 0; i < 1000; i++)
        on_thread(NULL, 0, has_one_from_its_first_upcall, NULL);
    CHECK(mappings() - before <= 4);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"pooled", pooled},
        {"fiber", fiber},
        {"further_stack", further_stack},
        {"on_main", on_main},
        {"on_pthread", on_pthread},
        {"registered", registered},
        {"registered_without_name", registered_without_name},
        {"registered_unattached", registered_unattached},
        {"chain", chain},
        {"long_chain", long_chain},
        {"by_default", by_default},
        {"without_install", without_install},
        {"elsewhere", elsewhere},
        {"elsewhere_to_the_host", elsewhere_to_the_host},
        {"fault_in_c", fault_in_c},
        {"fault_in_rust", fault_in_rust},
        {"fault_on_fiber", fault_on_fiber},
        {"fault_on_coroutine", fault_on_coroutine},
        {"division_by_zero", division_by_zero},
        {"illegal_instruction", illegal_instruction},
        {"aborted", aborted},
        {"aborted_by_default", aborted_by_default},
        {"aborted_by_handler", aborted_by_handler},
        {"faults_are_its_way", faults_are_its_way},
        {"elsewhere_by_default", elsewhere_by_default},
        {"elsewhere_unattached", elsewhere_unattached},
        {"guard_touched", guard_touched},
        {"fault_in_report", fault_in_report},
        {"handler_after", handler_after},
        {"handler_after_alone", handler_after_alone},
        {"handler_without_siginfo", handler_without_siginfo},
        {"handler_for_once", handler_for_once},
        {"recovers", recovers},
        {"recovers_with_nodefer", recovers_with_nodefer},
        {"sent_is_ignored", sent_is_ignored},
        {"sent_by_default", sent_by_default},
        {"stderr_closed", stderr_closed},
        {"two_at_once", two_at_once},
        {"no_alternate_stack", no_alternate_stack},
        {"alternate_stack_later", alternate_stack_later},
        {"alternate_stacks", alternate_stacks},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
