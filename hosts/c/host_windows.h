/* What host.h needs of Windows: events as handles, coroutines on fibers of the system. Threads are
 * those of winpthreads, a library of mingw-w64, where a program does not choose their stacks. */
#ifndef HOST_WINDOWS_H
#define HOST_WINDOWS_H

#include <fcntl.h>
#include <io.h>
#include <limits.h>
#include <malloc.h>
#include <windows.h>

#include <psapi.h>
#include <tlhelp32.h>

/* GetCurrentFiber reads at small addresses of a segment, which gcc 12 takes for null pointers. */
#pragma GCC diagnostic ignored "-Warray-bounds"

/* Not in the headers of mingw-w64 10. */
WINBASEAPI HRESULT WINAPI GetThreadDescription(HANDLE thread, PWSTR *name);
WINBASEAPI HRESULT WINAPI SetThreadDescription(HANDLE thread, PCWSTR name);

/* Returns the resident memory of the process in KiB, or 0 under an emulator. */
static inline long resident_kib(void) {
    PROCESS_MEMORY_COUNTERS counters;
    if (is_emulated())
        return 0;
    CHECK(K32GetProcessMemoryInfo(GetCurrentProcess(), &counters, sizeof counters));
    return (long)(counters.WorkingSetSize >> 10);
}

/* Returns the number of open handles. */
static inline int open_descriptors(void) {
    DWORD count;
    CHECK(GetProcessHandleCount(GetCurrentProcess(), &count));
    return (int)count;
}

/* Returns the number of threads with names beginning with `prefix`. */
static inline int threads_named(const char *prefix) {
    int count = 0;
    HANDLE all = CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0);
    THREADENTRY32 entry;
    entry.dwSize = sizeof entry;
    CHECK(all != INVALID_HANDLE_VALUE);
    for (BOOL more = Thread32First(all, &entry); more; more = Thread32Next(all, &entry)) {
        HANDLE thread = NULL;
        PWSTR wide = NULL;
        char name[64] = "";
        if (entry.th32OwnerProcessID == GetCurrentProcessId())
            thread = OpenThread(THREAD_QUERY_LIMITED_INFORMATION, FALSE, entry.th32ThreadID);
        if (!thread)
            continue; /* of another process, or gone */
        if (GetThreadDescription(thread, &wide) >= 0 && wide) {
            wcstombs(name, wide, sizeof name - 1);
            count += strncmp(name, prefix, strlen(prefix)) == 0;
            LocalFree(wide);
        }
        CloseHandle(thread);
    }
    CloseHandle(all);
    return count;
}

/* Calls `end` after some seconds, on any thread. A later call replaces this one. */
static void (*end_by_timer)(void);
static inline void CALLBACK on_timer(void *unused, BOOLEAN fired) {
    (void)unused, (void)fired;
    end_by_timer();
}
static inline void end_after(unsigned seconds, void (*end)(void)) {
    static HANDLE timer;
    end_by_timer = end;
    if (timer)
        CHECK(ChangeTimerQueueTimer(NULL, timer, seconds * 1000, 0));
    else
        CHECK(CreateTimerQueueTimer(&timer, NULL, on_timer, NULL, seconds * 1000, 0, WT_EXECUTEINTIMERTHREAD));
}

/* Names the calling thread. */
static inline void name_thread(const char *name) {
    wchar_t wide[64] = L"";
    mbstowcs(wide, name, 63);
    CHECK(SetThreadDescription(GetCurrentThread(), wide) >= 0);
}

/* Returns the number of the calling thread in messages. */
static inline size_t thread_number(void) { return GetCurrentThreadId(); }

/* Returns whether a thread destroys its thread-locals before the values of its keys. */
static inline int locals_go_first(void) { return 1; }

/* Returns the low end of the calling thread's own stack. The system keeps the lowest pages, for
 * guards and for handlers of overflows. */
static inline uintptr_t low_end(void) {
    ULONG_PTR low, high;
    GetCurrentThreadStackLimits(&low, &high);
    return low + 4 * 4096;
}

static inline int pipe(int ends[2]) { return _pipe(ends, 1 << 16, _O_BINARY); }

/* ---- events: handles, signalled while there is something to do ---- */

typedef void *event;
#define NO_EVENT NULL
#define EVENT "event" /* the end of the names of functions that return one */
#define EVENT_OF(name) name##_event
#define local_event EVENT_OF(upcall_local)
#define task_event EVENT_OF(upcall_task)
#define coroutines_event EVENT_OF(upcall_coroutines)

/* Waits for an event, for ever if `milliseconds` is negative. Returns whether there is one. */
static inline int is_signalled(event handle, int milliseconds) {
    DWORD ended = WaitForSingleObject(handle, milliseconds < 0 ? INFINITE : (DWORD)milliseconds);
    CHECK(ended == WAIT_OBJECT_0 || ended == WAIT_TIMEOUT);
    return ended == WAIT_OBJECT_0;
}

static inline int is_either_signalled(const event handles[2], int milliseconds) {
    return WaitForMultipleObjects(2, handles, FALSE, (DWORD)milliseconds) < WAIT_OBJECT_0 + 2;
}

/* ---- coroutines on fibers, and memory for their stacks ----
 *
 * The system makes the stack of a fiber, larger than asked for. So memory for a stack is the high
 * end of a fiber's own, and this fiber runs one coroutine after another. */

struct coroutine {
    void *self, *resumer; /* fibers */
    void (*body)(struct coroutine *, void *);
    void *argument;
    int done;
};

struct home {
    void *fiber, *maker;
    char *low; /* of the memory */
    size_t size;
    struct coroutine *volatile runs;
    struct home *next;
};

static struct home *homes;
static SRWLOCK homes_lock = SRWLOCK_INIT;

/* Returns the running fiber. A thread becomes one for it. */
static inline void *current_fiber(void) {
    if (!IsThreadAFiber())
        CHECK(ConvertThreadToFiberEx(NULL, FIBER_FLAG_FLOAT_SWITCH));
    return GetCurrentFiber();
}

static inline void switch_to_fiber(void *fiber) {
    current_fiber();
    SwitchToFiber(fiber);
}

static void WINAPI home_run(void *home) {
    struct home *h = (struct home *)home;
    ULONG_PTR low, high;
    GetCurrentThreadStackLimits(&low, &high);
    h->low = (char *)high - h->size;
    switch_to_fiber(h->maker);
    for (;;) {
        struct coroutine *c = h->runs;
        c->body(c, c->argument);
        h->runs = NULL;
        c->done = 1;
        switch_to_fiber(c->resumer);
    }
}

static inline struct home *home_new(size_t size) {
    struct home *h = (struct home *)calloc(1, sizeof *h);
    CHECK(h != NULL);
    h->maker = current_fiber();
    h->size = size;
    /* The system has guards at the low end. */
    CHECK((h->fiber = CreateFiberEx(0, size + (64 << 10), FIBER_FLAG_FLOAT_SWITCH, home_run, h)) != NULL);
    switch_to_fiber(h->fiber);
    AcquireSRWLockExclusive(&homes_lock);
    h->next = homes;
    homes = h;
    ReleaseSRWLockExclusive(&homes_lock);
    return h;
}

/* Returns the fiber of the memory at `low`, or NULL. `taken` takes it out of the list. */
static inline struct home *home_at(const char *low, int taken) {
    AcquireSRWLockExclusive(&homes_lock);
    struct home **at = &homes;
    while (*at && (*at)->low != low)
        at = &(*at)->next;
    struct home *found = *at;
    if (found && taken)
        *at = found->next;
    ReleaseSRWLockExclusive(&homes_lock);
    return found;
}

/* Returns `size` bytes of the stack of a new fiber. Both kinds are alike. */
static inline struct memory memory_new(enum kind kind, size_t size) {
    struct memory m = {kind, home_new(size)->low, size};
    return m;
}

static inline void memory_free(struct memory m) {
    struct home *h = home_at(m.base, 1);
    CHECK(h != NULL);
    DeleteFiber(h->fiber);
    free(h);
}

/* The coroutine runs in memory of `memory_new`, if it uses all of that. Otherwise a fiber is made
 * here, and stays. */
static inline void coroutine_init(struct coroutine *c, char *stack, size_t size,
                                  void (*body)(struct coroutine *, void *), void *argument) {
    struct home *h = home_at(stack, 0);
    if (!h || h->size != size)
        h = home_new(size);
    CHECK(!h->runs);
    memset(c, 0, sizeof *c);
    c->body = body;
    c->argument = argument;
    c->self = h->fiber;
    h->runs = c;
}

static inline void coroutine_resume(struct coroutine *c) {
    c->resumer = current_fiber();
    switch_to_fiber(c->self);
}

static inline void coroutine_yield(struct coroutine *c) { switch_to_fiber(c->resumer); }

/* ---- threads ---- */

#define PTHREAD_STACK_MIN (64 << 10)

struct start {
    void *(*body)(void *);
    void *argument;
};

static DWORD WINAPI thread_start(void *start) {
    struct start *s = (struct start *)start;
    s->body(s->argument);
    return 0;
}

/* Runs `body` on a new thread of `size` bytes of stack, or 8 MiB if that is 0, and waits for it.
 * The system makes the stack, so `low` must be NULL. */
static inline void on_thread(char *low, size_t size, void *(*body)(void *), void *argument) {
    struct start start = {body, argument};
    CHECK(!low);
    HANDLE thread = CreateThread(NULL, size ? size : 8 << 20, thread_start, &start, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    CHECK(thread && WaitForSingleObject(thread, INFINITE) == WAIT_OBJECT_0);
    CloseHandle(thread);
}

#endif
