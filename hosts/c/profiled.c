/* A profiler's signal at every instruction of a call: each walk reaches the C frames that made the
 * call.
 *
 * The processor's trap flag sends the signal. The test covers the instructions of the library and
 * of this program. The unwind information of others is their own affair. */
#include "host.h"

#ifdef __x86_64__
#include <execinfo.h>
#include <link.h>
#include <setjmp.h>

enum { DEEPEST = 256 };

/* The bounds of the code of the library and of the program. */
static uintptr_t code[2][2];

/* The frames of the caller of `walk_each`. */
static void *outer[DEEPEST];
static int outer_frames;

static long walks, lost, crashes;

/* The number of walks from each instruction, by its address. Frequent instructions are walked only
 * TIMES times. */
static unsigned char times[1 << 20];
enum { TIMES = 4 };

static sigjmp_buf crash;
static volatile sig_atomic_t walking;

static int find_code(struct dl_phdr_info *object, size_t size, void *unused) {
    uintptr_t low = UINTPTR_MAX, high = 0, of[] = {(uintptr_t)guest_call, (uintptr_t)find_code};
    (void)size;
    (void)unused;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        uintptr_t at = object->dlpi_addr + part->p_vaddr;
        if (part->p_type == PT_LOAD && part->p_flags & PF_X) {
            low = at < low ? at : low;
            high = at + part->p_memsz > high ? at + part->p_memsz : high;
        }
    }
    for (int i = 0; i < 2; i++) {
        if (low <= of[i] && of[i] < high) {
            code[i][0] = low;
            code[i][1] = high;
        }
    }
    return 0;
}

/* The section of `steps`, the only function here that moves SP without unwind information: it
 * pushes and pops the flags. */
extern const char __start_set_flags[], __stop_set_flags[];

static __attribute__((noinline, section("set_flags"))) void steps(bool on) {
    write_flags(on ? read_flags() | TRAP : read_flags() & ~TRAP);
}

static bool is_ours(uintptr_t pc) {
    if ((uintptr_t)__start_set_flags <= pc && pc < (uintptr_t)__stop_set_flags)
        return false;
    return (code[0][0] <= pc && pc < code[0][1]) || (code[1][0] <= pc && pc < code[1][1]);
}

/* Returns whether this may be a stub for a function of another library, `jmp *address(%rip)`.
 * LLVM's linker makes no unwind information for its stubs. */
static bool is_linkers(uintptr_t pc) {
    const unsigned char *bytes = (const unsigned char *)pc;
    return pc % 16 == 0 && bytes[0] == 0xff && bytes[1] == 0x25;
}

static void handle_crash(int signal) {
    if (!walking) {
        static const char said[] = "a signal that no walk made\n";
        (void)!write(2, said, sizeof said - 1);
        _exit(signal);
    }
    siglongjmp(crash, 1);
}

static void handle(int signal, siginfo_t *unused, void *context) {
    uintptr_t pc = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    (void)signal;
    (void)unused;
    if (!is_ours(pc) || times[pc % sizeof times] == TIMES)
        return;
    times[pc % sizeof times]++;
    void *frames[DEEPEST];
    walks++;
    walking = 1;
    const char *what = NULL;
    if (sigsetjmp(crash, 1) == 0) {
        int count = backtrace(frames, DEEPEST);
        if ((count < outer_frames ||
             memcmp(frames + count - outer_frames, outer, outer_frames * sizeof *outer) != 0) &&
            !is_linkers(pc)) {
            lost++;
            what = "lost its way";
        }
    } else {
        crashes++;
        what = "crashed";
    }
    walking = 0;
    if (what && lost + crashes < 20) {
        int in = code[0][0] <= pc && pc < code[0][1] ? 0 : 1;
        fprintf(stderr, "a walk from %#lx (%+ld to %s) %s\n", (long)pc,
                (long)(pc - (in ? (uintptr_t)find_code : (uintptr_t)guest_call)), in ? "find_code" : "guest_call", what);
    }
}

/* ---- calls of each kind ---- */

static int returns(void *number) { return *(int *)number; }

static int nests(void *number) { return guest_call(returns, number) + guest_call_pooled(returns, number); }

static int yields(void *number) {
    CHECK(guest_yield() == 0 && guest_yield() == 0);
    return *(int *)number;
}

static int waits_for_ever(void *channel) { return guest_receive(channel); }

static void panics(void) { CHECK(guest_panic_is_taken(true)); }

static int seven = 7;

static void in_place(void) { CHECK(guest_empty() == 0 && guest_call(returns, &seven) == 7); }

static void pooled(void) { CHECK(guest_call_pooled(returns, &seven) == 7); }

static void nested(void) { CHECK(guest_call_pooled(nests, &seven) == 14); }

static void with_stack(void) { CHECK(guest_with_stack(16 << 20, nests, &seven) == 14); }

static void panicking(void) {
    CHECK(guest_is_raised(false, panics) == 1);
    CHECK(guest_is_raised(true, panics) == 1);
}

/* A fiber is made, resumed for the first time, suspended, resumed again, and ends. */
static void fiber(void) {
    guest_fiber *fiber = guest_spawn_local(yields, &seven);
    while (!guest_is_finished(fiber))
        upcall_local_run_ready(1);
    CHECK(guest_join(fiber) == 7);
}

static void waited_for(void) { CHECK(guest_join(guest_spawn_local(yields, &seven)) == 7); }

static void cancelled(void) {
    guest_channel *channel = guest_channel_new(1);
    guest_fiber *fiber = guest_spawn_local(waits_for_ever, channel);
    upcall_local_run_ready(1);
    guest_abort(fiber);
    upcall_local_run_ready(SIZE_MAX);
    CHECK(guest_is_finished(fiber));
    guest_detach(fiber);
    guest_channel_free(channel);
}

static void own_fiber(void) { CHECK(guest_call_in_fiber(nests, &seven) == 14); }

/* ---- */

/* Walks from each instruction of `call`. The handler's frames are on the interrupted stack or, with
 * SA_ONSTACK, on a signal stack. */
static __attribute__((noinline)) void walk_each(void (*call)(void), int flags) {
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = flags | SA_SIGINFO | SA_NODEFER}, was;
    struct sigaction crashing = {.sa_handler = handle_crash, .sa_flags = SA_ONSTACK | SA_NODEFER};
    void *frames[DEEPEST];
    CHECK(sigaction(SIGTRAP, &action, &was) == 0);
    CHECK(sigaction(SIGSEGV, &crashing, NULL) == 0 && sigaction(SIGBUS, &crashing, NULL) == 0);
    memset(times, 0, sizeof times);
    outer_frames = backtrace(frames, DEEPEST) - 1;
    CHECK(outer_frames > 0 && outer_frames < DEEPEST / 2);
    memcpy(outer, frames + 1, outer_frames * sizeof *outer);
    steps(true);
    call();
    steps(false);
    CHECK(sigaction(SIGTRAP, &was, NULL) == 0);
}

static void walk(void (*call)(void)) {
    walk_each(call, 0);
    walk_each(call, SA_ONSTACK);
    printf("%ld walks, %ld crashed, %ld lost their way\n", walks, crashes, lost);
    CHECK(crashes == 0 && lost == 0);
    CHECK(walks > 100);
}

static void with_signal_stack(void (*then)(void *), void *argument) {
    static char low[64 << 10];
    stack_t stack = {.ss_sp = low, .ss_size = sizeof low}, none = {.ss_flags = SS_DISABLE};
    CHECK(sigaltstack(&stack, NULL) == 0);
    then(argument);
    CHECK(sigaltstack(&none, NULL) == 0);
}

static void walk_call(void *call) { walk(*(void (**)(void))call); }

/* On the thread's own stack. */
static void on_own_stack(void (*call)(void)) {
    CHECK(dl_iterate_phdr(find_code, NULL) == 0 && code[0][0] && code[1][0]);
    with_signal_stack(walk_call, &call);
}

static void on_local_fibers(void (*call)(void)) {
    CHECK(upcall_local_begin() == 0);
    on_own_stack(call);
    CHECK(upcall_local_end() == 0);
}

static void walk_on_coroutine(struct coroutine *unused, void *call) {
    (void)unused;
    walk_call(call);
}

static void run_coroutine(void *c) { coroutine_resume(c); }

static void on_coroutine(void (*call)(void)) {
    struct coroutine c;
    struct memory stack = memory_new(GUARDED, 256 << 10);
    CHECK(dl_iterate_phdr(find_code, NULL) == 0);
    coroutine_init(&c, stack.base, stack.size, walk_on_coroutine, &call);
    with_signal_stack(run_coroutine, &c);
    CHECK(c.done);
}

static void *thread(void *call) {
    on_own_stack(*(void (**)(void))call);
    return NULL;
}

/* The first calls of a thread. */
static void on_new_thread(void (*call)(void)) { on_thread(NULL, 0, thread, &call); }

static void upcall_in_place(void) { on_own_stack(in_place); }
static void upcall_pooled(void) { on_own_stack(pooled); }
static void upcall_nested(void) { on_own_stack(nested); }
static void further_stack(void) { on_own_stack(with_stack); }
static void panic(void) { on_own_stack(panicking); }
static void fiber_of_local_runtime(void) { on_local_fibers(fiber); }
static void fiber_waited_for(void) { on_local_fibers(waited_for); }
static void fiber_cancelled(void) { on_local_fibers(cancelled); }
static void fiber_polled(void) { on_own_stack(own_fiber); }
static void coroutine(void) {
    on_coroutine(in_place);
    on_coroutine(nested);
    on_coroutine(own_fiber);
}
static void new_thread(void) {
    on_new_thread(in_place);
    on_new_thread(nested);
}
#endif

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
#ifdef __x86_64__
        {"upcall_in_place", upcall_in_place},
        {"upcall_pooled", upcall_pooled},
        {"upcall_nested", upcall_nested},
        {"further_stack", further_stack},
        {"panic", panic},
        {"fiber_of_local_runtime", fiber_of_local_runtime},
        {"fiber_waited_for", fiber_waited_for},
        {"fiber_cancelled", fiber_cancelled},
        {"fiber_polled", fiber_polled},
        {"coroutine", coroutine},
        {"new_thread", new_thread},
#endif
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
