/* Runs programs of the model test (tests/model/main.rs).
 *
 * Each program arrives on stdin: the steps of its threads, each with its expected result. A
 * thread's running C code takes the thread's next step. A step names the C frame that takes it, so
 * code running in the wrong place is noticed at once. A call finds its expected answer in the step
 * that ended it. */
#include "host.h"

#ifndef _WIN32
#include <setjmp.h>
#endif

enum { SLOTS = 8, STREAMS = 8 };

/* The stacks of coroutines, by number. The last two are registered. On the first of these two,
 * upcalls run in place. */
static const struct {
    enum kind kind;
    size_t size;
    int registered;
} memories[] = {{MALLOCED, 96 << 10, 0}, {GUARDED, 192 << 10, 0}, {GUARDED, 512 << 10, 1}, {GUARDED, 112 << 10, 1}};

struct step {
    char what;
    int a, b;
    int frame;  /* the frame of C to take it */
    int enters; /* the frame begun by it, or 0 */
    int answer; /* the answer of the call ended by it */
    int caught; /* the panic caught by it, or 0 */
    int last;   /* the thread's last panic by then, or 0 if others share it */
};

struct stream {
    int number;
    char runs_on; /* 't'hread, 'f'iber, 's'ystem stack of a worker */
    int next, count, capacity;
    struct step *steps;
#ifndef _WIN32
    jmp_buf **jumps; /* by frame */
#endif
    struct coroutine coroutines[SLOTS];
    struct memory stacks[SLOTS];
    void *registrations[SLOTS];
    int elsewhere; /* resumed on another thread; returns into Rust at once */
    guest_fiber *fibers[SLOTS], *itself;
    guest_channel *gates[SLOTS], *gates_of_coroutines[SLOTS];
    int killed[SLOTS]; /* the coroutine's wait is to end */
    int told;          /* the set of coroutines to be resumed, from upcall */
};

static int program, stream_count;
static struct stream streams[STREAMS];
static guest_channel *channels[STREAMS][STREAMS];

static const struct step *taken(struct stream *s) { return &s->steps[s->next - 1]; }

static __attribute__((noreturn)) void wrong(struct stream *s, const char *what, intptr_t expected, intptr_t found) {
    fprintf(stderr, "program %d, thread %d, step %d '%c': %s is %zd, not %zd\n", program, s->number, s->next - 1,
            taken(s)->what, what, found, expected);
    fflush(NULL);
    _exit(1);
}

#define EXPECT(s, what, expected, found)                        \
    do {                                                        \
        intptr_t expected_ = (expected), found_ = (found);         \
        if (expected_ != found_)                                \
            wrong(s, what, expected_, found_);                  \
    } while (0)

/* Returns the number of a panic. */
static int number_of(const char *message) {
    int number;
    return sscanf(message, "panic %d", &number) == 1 ? number : -1;
}

/* Checks the answer of a call ended by the last step. */
static void ended(struct stream *s, int answer) {
    char message[64] = "";
    EXPECT(s, "the answer", taken(s)->answer, answer);
    if (taken(s)->last) {
        upcall_last_message(message, sizeof message);
        EXPECT(s, "the last panic", taken(s)->last, number_of(message));
    }
}

static void ended_by_panic(struct stream *s, int answer, const char *caught) {
    ended(s, answer);
    EXPECT(s, "the caught panic", taken(s)->caught, answer == -2 ? number_of(caught) : 0);
}

/* A frame of C. */
struct frame {
    int id;
#ifndef _WIN32
    jmp_buf jump;
#endif
    volatile int pattern[16];
};

static int run_steps(void *stream);
static void in_coroutine(struct coroutine *c, void *stream);

#ifndef _WIN32
/* ---- signals of a scheduler: their handlers take the next steps ---- */

/* The code interrupted by the next signal. */
struct interruption {
    struct stream *s;
    int answer;
};

static __thread struct interruption *volatile interrupting;

static void handle(int signal) {
    (void)signal;
    struct interruption *i = interrupting;
    i->answer = run_steps(i->s);
}

static int raises(void *interruption) {
    struct interruption *i = interrupting = interruption;
    raise(SIGUSR2);
    return i->answer;
}

/* Workers block all signals. */
static void unblock(void) {
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGUSR2);
    CHECK(pthread_sigmask(SIG_UNBLOCK, &one, NULL) == 0);
}

/* Takes the next steps in a handler, in the middle of an upcall's Rust code. */
static int interrupted_in_rust(struct stream *s) {
    unblock();
    return guest_call_plain(raises, &(struct interruption){.s = s});
}
#endif

/* Defined in model_catch.cpp, if there is a C++ compiler. */
int model_in_exception(bool caught, int number, guest_callback steps, void *stream) __attribute__((weak));
void model_exceptions(int *number, int *uncaught) __attribute__((weak));

static int in_exception(void *stream) {
    struct stream *s = stream;
    const struct step *step = taken(s);
    return model_in_exception(step->b, step->enters, run_steps, s);
}

static void check_exceptions(struct stream *s, const struct step *step) {
    int number, uncaught;
    model_exceptions(&number, &uncaught);
    EXPECT(s, "the exception that is handled", step->a, number);
    EXPECT(s, "the number of exceptions on their way", step->b, uncaught);
}

static void call(struct stream *s, const struct step *step) {
    char caught[64] = "";
    switch (step->a) {
    case 'c': return ended(s, guest_call(run_steps, s));
    case 'h': return ended(s, guest_call_holding(step->enters, run_steps, s));
    case 'p': return ended(s, guest_call_pooled(run_steps, s));
    case 'o': return ended(s, guest_call_caller(run_steps, s));
    case 'n': return ended(s, guest_call_plain(run_steps, s));
    case 't': return ended(s, guest_call_plain_then(run_steps, run_steps, s));
    case 'w': return ended(s, guest_with_stack(step->b, run_steps, s));
    case 'u': return ended(s, guest_use_and_call(step->b, run_steps, s));
#ifndef _WIN32
    case 's': return ended(s, interrupted_in_rust(s));
#endif
    case 'e': return ended(s, guest_call_on_own_fiber(in_exception, s));
    case 'P': return ended(s, guest_poll_calls(run_steps, s));
    case 'l': return ended(s, guest_call_using_fiber_local(step->enters, run_steps, s));
    case 'f': return ended(s, guest_call_on_own_fiber(run_steps, s));
    case 'x': return ended(s, guest_with_stack_on_own_fiber(step->b, run_steps, s));
    case 'd': return ended(s, guest_panic_calling(step->b, run_steps, s));
    case 'k': {
        int answer = guest_catch(run_steps, s, caught, sizeof caught);
        return ended_by_panic(s, answer, caught);
    }
    case 'K': {
        int answer = guest_catch_on_fiber(run_steps, s, caught, sizeof caught);
        return ended_by_panic(s, answer, caught);
    }
    default: wrong(s, "the call", 0, step->a);
    }
}

/* Checks the stack of upcalls from here: 'o'wn, 'r'egistered, 'p'ooled, or any other with enough
 * room. */
static void check_where(struct stream *s, const struct step *step) {
    struct guest_where where;
    EXPECT(s, "the answer", 0, guest_where(&where));
    EXPECT(s, "exactness", 1, where.exact);
    /* Unoptimised frames lie between the upcall's beginning and the measurement. */
    size_t frames = unoptimised() ? 4096 : 0;
    EXPECT(s, "room enough", 1, where.sp - where.low + frames >= 128 * 1024);
    if (step->a != 'a')
        EXPECT(s, "being on the own stack", step->a == 'o', where.own);
    if (step->a == 'r')
        EXPECT(s, "being on the registered stack", (intptr_t)s->stacks[step->b].base, (intptr_t)where.low);
    if (step->a == 'p')
        EXPECT(s, "being on this stack", 0, within(where.low, where.high, &where));
}

static void start(struct stream *s, int slot, int memory) {
    size_t size = memories[memory].size;
    struct memory stack = s->stacks[slot] = memory_new(memories[memory].kind, size);
    s->registrations[slot] = memories[memory].registered ? guest_register(stack.base, size) : NULL;
    EXPECT(s, "being registered", memories[memory].registered, s->registrations[slot] != NULL);
    coroutine_init(&s->coroutines[slot], stack.base, size, in_coroutine, s);
}

static void resume(struct stream *s, int slot) {
    s->told &= ~(1 << slot);
    coroutine_resume(&s->coroutines[slot]);
    if (s->coroutines[slot].done) {
        if (s->registrations[slot])
            guest_unregister(s->registrations[slot]);
        memory_free(s->stacks[slot]);
    }
}

static void *resume_there(void *coroutine) {
    coroutine_resume(coroutine);
    return NULL;
}

/* Registers a stack for a moment, so earlier results about stacks have to be determined anew. */
static void register_briefly(struct stream *s) {
    static char nothing[STREAMS][4096];
    void *registration = guest_register(nothing[s->number], sizeof nothing[0]);
    EXPECT(s, "being registered", 1, registration != NULL);
    guest_unregister(registration);
}

static void panics(struct stream *s, int number) {
    char message[64];
    snprintf(message, sizeof message, "panic %d", number);
    ended(s, guest_panic(message));
}

/* ---- waits that suspend a coroutine, by hooks of the process ---- */

/* The coroutine to be suspended by the next wait. Other waits block. */
static __thread struct coroutine *waiting;

static void *current_coroutine(void *data) {
    CHECK(data == streams);
    struct coroutine *c = waiting;
    waiting = NULL;
    return c;
}

static int suspend_coroutine(void *data, void *coroutine) {
    struct coroutine *c = coroutine;
    struct stream *s = c->argument;
    int *killed = &s->killed[c - s->coroutines];
    CHECK(data == streams);
    coroutine_yield(c);
    int is_killed = *killed;
    *killed = 0;
    return is_killed;
}

static int suspending_receive(struct stream *s, int slot) {
    waiting = &s->coroutines[slot];
    int answer = guest_receive(s->gates_of_coroutines[slot]);
    waiting = NULL;
    return answer;
}

static int suspending_join(struct stream *s, int slot, int fiber) {
    waiting = &s->coroutines[slot];
    int answer = guest_join_raising(s->fibers[fiber]);
    waiting = NULL;
    return answer;
}

/* Takes the coroutines that can go on. Those in the set `ready` must be among them, unless taken
 * before. All are in the set `possible`. */
static void take_ready(struct stream *s, int ready, int possible) {
    event told = coroutines_event();
    EXPECT(s, "being readable", 1, !(ready & ~s->told) || is_signalled(told, 0));
    for (void *next; upcall_coroutines_next_ready(&next) == 1;) {
        long slot = (struct coroutine *)next - s->coroutines;
        EXPECT(s, "a coroutine that waits", 1, slot >= 0 && slot < SLOTS && possible >> slot & 1);
        EXPECT(s, "taken twice", 0, s->told >> slot & 1);
        s->told |= 1 << slot;
    }
    EXPECT(s, "the set that can go on", ready, ready & s->told);
    EXPECT(s, "being readable", 0, is_signalled(told, 0));
}

struct food {
    guest_channel *gate;
    int number;
};

static int sends(void *food) {
    struct food *f = food;
    return guest_send(f->gate, f->number);
}

static void *sends_there(void *food) {
    CHECK(sends(food) == 0);
    return NULL;
}

static void feed_coroutine(struct stream *s, const struct step *step) {
    struct food food = {s->gates_of_coroutines[step->a], step->b};
    if (step->what == 'W') {
        EXPECT(s, "the answer", 0, sends(&food));
    } else if (step->what == 'T') {
        on_thread(NULL, 0, sends_there, &food);
    } else {
        guest_fiber *fiber = guest_spawn(sends, &food);
        while (!guest_is_finished(fiber))
            sched_yield();
        guest_detach(fiber);
    }
}

#ifndef _WIN32
static __thread jmp_buf out_of_wait;

static void leave_wait(int signal) {
    (void)signal;
    _longjmp(out_of_wait, 1);
}

static int raises_to_leave(void *unused) {
    (void)unused;
    return raise(SIGUSR1);
}

static void leave_a_wait(struct stream *s) {
    if (!_setjmp(out_of_wait))
        EXPECT(s, "coming back", 0, guest_poll_calls_plain(raises_to_leave, NULL) + 1);
}
#endif

/* Other fibers of a worker share its thread-local, so there its value is unknown. */
static void use_thread_local(struct stream *s, int way, int number) {
    int answer = guest_add_to_thread_local(way, number);
    ended(s, s->runs_on == 't' ? answer : number);
}

static guest_fiber *spawn_stream(struct stream *s) {
    return s->runs_on == 'f' ? guest_spawn_on_fiber("model", run_steps, s) : guest_spawn(run_steps, s);
}

/* Takes one step. Returns whether it ends the frame. */
static int take(struct stream *s, const struct step *step) {
    switch (step->what) {
    case 'c': call(s, step); break;
    case 'r': return 1;
    case 'p': panics(s, step->a); break;
    case 'i': ended(s, guest_increment(step->a)); break;
    case 'w': check_where(s, step); break;
    case 'o': EXPECT(s, "the number of open downcalls", step->a, guest_open_downcalls()); break;
    case 'g': register_briefly(s); break;
#ifndef _WIN32
    case 'j': _longjmp(*s->jumps[step->a], 1);
    case 'J': leave_a_wait(s); break;
#endif
    case 's': start(s, step->a, step->b); resume(s, step->a); break;
    case 'e': resume(s, step->a); break;
    case 'y': coroutine_yield(&s->coroutines[step->a]); return s->elsewhere;
    case 'E': s->elsewhere = 1; on_thread(NULL, 0, resume_there, &s->coroutines[step->a]); break;
    case 'A': ended(s, suspending_receive(s, step->a)); break;
    case 'B': ended(s, suspending_join(s, step->a, step->b)); break;
    case 'W':
    case 'T':
    case 'V': feed_coroutine(s, step); break;
    case 'q': take_ready(s, step->a, step->b); break;
    case 'x': s->killed[step->a] = 1; resume(s, step->a); break;
    case 'd': memory_free(s->stacks[step->a]); break;
    case 'f': CHECK((s->fibers[step->a] = guest_spawn_local(run_steps, s))); break;
    case 'n': ended(s, upcall_local_run_ready(1)); break;
    case 'm': EXPECT(s, "the answer", 0, guest_send(s->gates[step->a], step->b)); break;
    case 'a': ended(s, guest_receive(s->gates[step->a])); break;
    case 'z': ended(s, guest_yield()); break;
    case 'X': check_exceptions(s, step); break;
    case 'l': use_thread_local(s, step->a, step->b); break;
    case 'L': ended(s, guest_add_to_fiber_local(step->a)); break;
    case 'Z': ended(s, guest_add_around_yield(step->a)); break;
    case 'b': ended(s, guest_join_raising(s->fibers[step->a])); break;
    case 'S': EXPECT(s, "the answer", 0, guest_send(channels[s->number][step->a], step->b)); break;
    case 'R': ended(s, guest_receive(channels[step->a][s->number])); break;
    case 'F': streams[step->a].itself = spawn_stream(&streams[step->a]); break;
    default: wrong(s, "the step", 0, step->what);
    }
    return 0;
}

/* Takes steps until one ends this frame. */
static int run_steps(void *stream) {
    struct stream *s = stream;
    /* The return from a plain call is not checked, and now Rust calls C again. */
    if (s->elsewhere)
        return 0;
    struct frame frame = {.id = s->next ? taken(s)->enters : 1};
    for (int i = 0; i < 16; i++)
        frame.pattern[i] = frame.id + i;
#ifndef _WIN32
    s->jumps[frame.id] = &frame.jump;
    _setjmp(frame.jump);
#endif
    for (;;) {
        const struct step *step = &s->steps[s->next++];
        EXPECT(s, "the frame of C that runs", step->frame, frame.id);
        for (int i = 0; i < 16; i++)
            EXPECT(s, "a local", frame.id + i, frame.pattern[i]);
        if (take(s, step))
            return step->a;
    }
}

static void in_coroutine(struct coroutine *c, void *stream) {
    (void)c;
    run_steps(stream);
}

static void *run_thread(void *stream) {
    struct stream *s = stream;
    CHECK(guest_panic("panic 1") == -1);
    guest_reset_locals();
    CHECK(upcall_local_begin() == 0);
    run_steps(s);
    CHECK(upcall_local_end() == 0);
    return stream;
}

/* ---- programs ---- */

static void prepare(struct stream *s) {
    s->told = 0;
    for (int i = 0; i < SLOTS; i++) {
        s->gates[i] = guest_channel_new(2); /* one in flight, and one */
        s->gates_of_coroutines[i] = guest_channel_new(2);
        s->killed[i] = 0;
    }
}

static void free_gates(struct stream *s) {
    for (int i = 0; i < SLOTS; i++) {
        guest_channel_free(s->gates[i]);
        guest_channel_free(s->gates_of_coroutines[i]);
    }
}

/* Runs the first stream on the process's main thread. If the program `leaves` calls open, runs it
 * on a thread of its own: the main thread must have no open calls afterwards. */
static void run_program(int leaves, int hooks) {
    unsigned process = UPCALL_COROUTINES_PROCESS;
    int count = stream_count;
    pthread_t threads[STREAMS];
    for (int i = 0; i < count; i++)
        for (int j = 0; j < count; j++)
            channels[i][j] = guest_channel_new(64);
    for (int i = 0; i < count; i++)
        prepare(&streams[i]);
    if (hooks)
        CHECK(upcall_coroutines_install(process, streams, current_coroutine, suspend_coroutine, NULL) == 0);
    for (int i = 1; i < count; i++)
        if (streams[i].runs_on == 't')
            CHECK(pthread_create(&threads[i], NULL, run_thread, &streams[i]) == 0);
    if (leaves)
        on_thread(NULL, 0, run_thread, &streams[0]);
    else
        run_thread(&streams[0]);
    for (int i = 1; i < count; i++)
        if (streams[i].runs_on == 't')
            CHECK(pthread_join(threads[i], NULL) == 0);
    for (int i = 1; i < count; i++)
        if (streams[i].runs_on != 't')
            EXPECT(&streams[i], "the fiber's end", streams[i].steps[streams[i].count - 1].answer, guest_join(streams[i].itself));
    if (hooks)
        CHECK(upcall_coroutines_uninstall(process) == 0);
    for (int i = 0; i < count; i++)
        free_gates(&streams[i]);
    for (int i = 0; i < count; i++)
        for (int j = 0; j < count; j++)
            guest_channel_free(channels[i][j]);
    if (!leaves)
        EXPECT(&streams[0], "the number of open calls", 0, guest_open_calls());
}

static int read_number(void) {
    int number;
    CHECK(scanf("%d", &number) == 1);
    return number;
}

static void read_stream(struct stream *s, int number) {
    char runs_on;
    CHECK(scanf(" %c", &runs_on) == 1);
    s->number = number;
    s->runs_on = runs_on;
    s->next = 0;
    s->count = read_number();
    if (s->count + 2 > s->capacity) {
        s->capacity = 2 * s->count + 2;
        CHECK((s->steps = realloc(s->steps, s->capacity * sizeof *s->steps)));
#ifndef _WIN32
        CHECK((s->jumps = realloc(s->jumps, s->capacity * sizeof *s->jumps)));
#endif
    }
    for (int i = 0; i < s->count; i++) {
        struct step *step = &s->steps[i];
        CHECK(scanf(" %c", &step->what) == 1);
        int *fields[] = {&step->a, &step->b, &step->frame, &step->enters, &step->answer, &step->caught, &step->last};
        for (int j = 0; j < 7; j++)
            *fields[j] = read_number();
    }
    s->steps[s->count] = (struct step){.what = '-', .frame = -1};
}

/* A program takes some milliseconds. One that never ends is a failure. */
static void too_long(void) {
    fprintf(stderr, "program %d has not ended:", program);
    for (int i = 0; i < stream_count; i++)
        fprintf(stderr, " thread %d is in step %d;", i, streams[i].next - 1);
    fputs("\n", stderr);
    _exit(1);
}

int main(int argc, char **argv) {
    int leaves, hooks;
    CHECK(argc == 2);
#ifndef _WIN32
    CHECK(sigaction(SIGUSR1, &(struct sigaction){.sa_handler = leave_wait, .sa_flags = SA_NODEFER}, NULL) == 0);
    CHECK(sigaction(SIGUSR2, &(struct sigaction){.sa_handler = handle, .sa_flags = SA_NODEFER}, NULL) == 0);
#endif
    guest_panic_silently();
    while (scanf("%d %d %d %d", &program, &stream_count, &leaves, &hooks) == 4) {
        for (int i = 0; i < stream_count; i++)
            read_stream(&streams[i], i);
        end_after((unsigned)atoi(argv[1]), too_long);
        run_program(leaves, hooks);
        printf("%d\n", program);
        fflush(stdout);
    }
    return 0;
}
