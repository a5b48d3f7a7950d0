/* upcall.h: the C functions of upcall. With upcall, C can call Rust from any thread, on any stack.
 *
 * A Rust library built on upcall exports these functions beside its own, under a prefix of its
 * choice. Name the prefix before the include:
 *
 *     #define UPCALL_PREFIX geo_
 *     #include "upcall.h"
 *
 * This declares geo_last_message, geo_dump and so on. Without a prefix, the names are
 * upcall_last_message, upcall_dump. The include uses the definition up: for a second library,
 * define it again and include the file again.
 *
 * Nothing needs set-up: none of these functions has to be called before or after the library's own.
 *
 * Names      The comments leave the prefix out. A library may export fewer functions than declared:
 *            local_* and coroutines_* exist only if its author lets C run fibers.
 * Copies     Each library has its own upcall, with its own messages, threads, fibers and workers.
 *            Register a stack with each library called on it.
 * Results    0 or a number ≥ 0 on success, -1 on failure. On failure nothing is changed and nothing
 *            is written; last_message tells the reason.
 * Threads    Any thread may call, from any stack, at any time, inside functions called by Rust.
 *            If a comment speaks of the calling thread, it concerns only this thread.
 * Signals    Handlers may call version, and no other function.
 * Ownership  Strings are copied, or static. The caller frees nothing returned by these functions.
 *            memory_free frees what the library's own functions return, if they say so.
 * Tasks      A task is an opaque pointer, and not an address: one that is null, freed or of another
 *            kind is an error. Its owner frees it by task_free.
 *
 * Written by `cargo xtask header`. Change the doc comments in src/capi/, not this file. */
#ifndef UPCALL_H
#define UPCALL_H

#include <stddef.h>
#include <stdint.h>

/* The version of this header, or of the first one if libraries bring different ones. The function
 * version() returns the library's. */
#define UPCALL_VERSION "0.1.0"
#define UPCALL_VERSION_MAJOR 0
#define UPCALL_VERSION_MINOR 1
#define UPCALL_VERSION_PATCH 0

/* The results of functions whose author returns a Status, as an int. */
enum upcall_status {
    UPCALL_OK = 0,
    /* The function failed. last_message tells the reason, here and below. */
    UPCALL_ERROR = -1,
    /* A bug: the function panicked. */
    UPCALL_PANIC = -2,
    /* The function was not run: there was no stack for it, for example. */
    UPCALL_REFUSED = -3
};

/* UPCALL_NAME(dump) is the library's name of the function dump. */
#define UPCALL_NAME(name) UPCALL_EXPAND(UPCALL_PREFIX, name)
#define UPCALL_EXPAND(prefix, name) UPCALL_PASTE(prefix, name)
#define UPCALL_PASTE(prefix, name) prefix##name

/* The status of a task, as an int: it runs, or the kind of its end. */
enum {
  UPCALL_TASK_RUNNING = 0,           /* it has not ended */
  UPCALL_TASK_DONE = 1,              /* it has a value */
  UPCALL_TASK_FAILED = 2,            /* it ended with an error */
  UPCALL_TASK_PANICKED = 3,          /* it panicked */
  UPCALL_TASK_CANCELLED = 4,         /* task_cancel or task_free ended it */
  UPCALL_TASK_DEADLINE_EXCEEDED = 5, /* its deadline came first */
  UPCALL_TASK_LOST = 6               /* its executor has ended, or runs in the parent process only */
};

/* Flags of coroutines_install. */
enum {
  UPCALL_COROUTINES_PROCESS = 1,     /* for all threads of the process */
  UPCALL_COROUTINES_STACKS_MOVE = 2  /* the host copies the stack of a suspended coroutine away */
};
#endif

#ifndef UPCALL_PREFIX
#define UPCALL_PREFIX upcall_
#endif

/* Two headers may include this one for the same library. */
#ifdef __GNUC__
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wredundant-decls"
#ifdef __clang__
#pragma clang diagnostic ignored "-Wtypedef-redefinition"
#else
#pragma GCC diagnostic ignored "-Wpedantic"
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* A task: an asynchronous operation, started by a function of the library's own. */
typedef struct UPCALL_NAME(task) UPCALL_NAME(task);

/**
 * Copies the last message into `buffer`.
 *
 * The message tells why the last call failed on this thread. It is the error or the panic of a
 * Rust function called by C, which then returned its declared error value; the reason why such a
 * function was not run; or the reason why a function of this header returned -1. If a signal
 * handler's call was not run for want of a reserve (`thread_attach`), there is no message of it.
 * As with `snprintf`, the copy is truncated to `size` bytes, including a terminating 0. `buffer`
 * may be null if `size` is 0.
 *
 * Each fiber has a message of its own for C code on its stack. So failures of other fibers do not
 * replace it while the fiber waits.
 *
 * Returns the length of the whole message in bytes, without the terminating 0. Returns -1 if there
 * is no message. A message stays until the next one, until the thread is detached, or until the
 * fiber ends.
 *
 * Requirements:
 * `buffer` is valid for writing `size` bytes.
 */
int UPCALL_NAME(last_message)(char *buffer, size_t size);

/**
 * Attaches the calling thread now, before its first call of a Rust function.
 *
 * This also reserves a stack for calls of Rust functions from the thread's signal handlers.
 * Handlers on an alternate stack must not allocate: without the reserve, such calls fail. Threads
 * without signal handlers need not call this.
 *
 * Returns 0, also if the thread is attached already. Returns -1 if there is not enough memory. The
 * thread stays attached until `thread_detach` or its exit.
 */
int UPCALL_NAME(thread_attach)(void);

/**
 * Detaches the calling thread now, before its exit.
 *
 * This frees everything kept for the thread since it was attached, by its first call of a Rust
 * function or by `thread_attach`; also its last message. If the thread calls a Rust function
 * later, it is attached again.
 *
 * Returns 0, also if the thread is not attached. Returns -1 and changes nothing if something of
 * the thread is in use; the message names it:
 * - a call between C and Rust that has not returned, in either direction, on any coroutine. A call
 *   abandoned by `longjmp` may count as one.
 * - a fiber, or the runtime of `local_begin`.
 *
 * Signal handlers and upcall's own threads cannot be detached: there, the function returns -1.
 */
int UPCALL_NAME(thread_detach)(void);

/**
 * Returns the version of upcall in the library, for example `"0.1.0"`.
 *
 * `UPCALL_VERSION` is the version of this header. The string is static. The function may be called
 * from anywhere, also from signal handlers.
 */
const char *UPCALL_NAME(version)(void);

/**
 * Says how to suspend the host's coroutines, so that waits of Rust functions suspend them and not
 * the thread.
 *
 * `flags` is 0, or a sum:
 * - `UPCALL_COROUTINES_PROCESS`: for all threads. Otherwise it is for the calling thread.
 * - `UPCALL_COROUTINES_STACKS_MOVE`: the host copies parts of the thread's own stack away while
 *   coroutines are suspended, as greenlet does. Then `current` is also called before each call of
 *   C by Rust, and gives each coroutine the same name for its life.
 *
 * The functions get `data`, and are called on the thread and the stack of the running coroutine:
 * - `current` names it by any pointer except null. If it returns null, the wait blocks the thread.
 * - `suspend` suspends it, and returns when the host has resumed it: 0 for it to go on, or 1 if it
 *   is to end. Then the wait is ended: the Rust function returns its declared error value. If the
 *   host cannot switch at this point, `suspend` returns -1 at once: the wait blocks the thread.
 * - `resume` may be null. It resumes a coroutine that can go on, and returns when that has been
 *   suspended again, or has ended. `coroutines_run_ready` calls it.
 *
 * The host resumes a coroutine when `coroutines_next_ready` or `coroutines_run_ready` names it; a
 * resumption before that does no harm.
 *
 * An installation keeps a few words for the life of the process, unless it is equal to the
 * thread's last one.
 *
 * Returns 0. Returns -1 if `current` or `suspend` is null, if a flag is unknown, or if the thread,
 * or the process, has hooks already.
 *
 * Requirements:
 * - The functions may be called with `data` until the hooks are uninstalled and every wait that
 *   began before has ended: on the calling thread, or with `UPCALL_COROUTINES_PROCESS` on any.
 * - `suspend` returns on the thread that called it.
 * - The stack of a suspended coroutine is not freed or used otherwise. To get rid of a coroutine,
 *   resume it, and let `suspend` return 1. The stack is not moved, except with
 *   `UPCALL_COROUTINES_STACKS_MOVE`.
 * - C++ code there keeps the promise of `local_spawn` for its `thread_local` variables.
 */
int UPCALL_NAME(coroutines_install)(unsigned int flags, void *data, void *(*current)(void*), int (*suspend)(void*, void *coroutine), void (*resume)(void*, void *coroutine));

/**
 * Removes the hooks of `coroutines_install`, of the process or of the calling thread.
 *
 * `flags` is 0 or `UPCALL_COROUTINES_PROCESS`. Waits block their threads from now on. Coroutines
 * that are suspended stay so, and the functions below name them as before. A wait that had begun
 * on another thread may still call the hooks of the process.
 *
 * Returns 0. Returns -1 if there are no hooks, or if a flag is unknown.
 */
int UPCALL_NAME(coroutines_uninstall)(unsigned int flags);

/**
 * Takes the next coroutine of the calling thread that can go on.
 *
 * The host resumes it, sooner or later: it is not named again before that. A coroutine that has
 * ended is not named.
 *
 * Returns 1 and writes the coroutine to `coroutine`. Returns 0 and writes null if there is none.
 * Returns -1 if `coroutine` is null.
 *
 * Requirements:
 * `coroutine` is null or valid for writing a pointer.
 */
int UPCALL_NAME(coroutines_next_ready)(void **coroutine);

/**
 * Resumes coroutines of the calling thread that can go on, at most `max` of them.
 *
 * Each runs until it is suspended again, or ends. One can be ready again at once: give a finite
 * `max`, and look at the loop's other work in between.
 *
 * Returns the number of resumed coroutines. Returns -1 if one can go on and its hooks have no
 * function `resume`; `coroutines_next_ready` names it then. Returns -1 if a Rust function panicked
 * on a coroutine: its caller there has got its error value. Call this again for the others.
 */
long UPCALL_NAME(coroutines_run_ready)(size_t max);

#if !defined(_WIN32)
/**
 * Returns a file descriptor that tells an event loop of a task.
 *
 * It is readable (`POLLIN`, level-triggered) when the task has ended, or has a part to be taken.
 * Only poll it: do not read from it, and do not close it. It is valid until the task is freed. In
 * the child of a fork, call this again: the descriptor keeps its number.
 *
 * Returns -1 if `task` is no task, or if no file descriptor is available.
 */
int UPCALL_NAME(task_fd)(UPCALL_NAME(task) *task);
#endif

#if !defined(_WIN32)
/**
 * Returns the file descriptor that tells an event loop when a fiber of the calling thread is
 * ready.
 *
 * While a fiber of the thread's runtime can run, the descriptor is readable (`POLLIN`,
 * level-triggered). Only poll it: do not read from it, and do not close it. It is valid until
 * `local_end`.
 *
 * Returns -1 if the thread has no runtime.
 */
int UPCALL_NAME(local_fd)(void);
#endif

#if !defined(_WIN32)
/**
 * Returns the file descriptor that tells an event loop when a coroutine of the calling thread can
 * go on.
 *
 * While one can, the descriptor is readable (`POLLIN`, level-triggered). `coroutines_next_ready`
 * ends that when it returns 0. It may be readable in vain. Only poll it: do not read from it, and
 * do not close it. It is valid until the thread's exit.
 *
 * Returns -1 if no file descriptor is available.
 */
int UPCALL_NAME(coroutines_fd)(void);
#endif

/**
 * Writes the state of the process to the file descriptor `fd`, as a tree.
 *
 * The tree has every attached thread with its stacks, open calls and fibers. From a debugger, with
 * the prefix `geo_`: `call (int)geo_dump(2)`. If the debugger has stopped the process inside
 * `malloc`, or inside upcall while it held a lock, this call waits for ever, like any function
 * that allocates. Then let the process run for a moment, and stop it again.
 *
 * Returns 0. Returns -1 if `fd` cannot be written to.
 *
 * Requirements:
 * If `fd` is an open descriptor, the caller may write to it.
 */
int UPCALL_NAME(dump)(int fd);

#if defined(_WIN32)
/**
 * Returns an event object, a `HANDLE`, that tells an event loop of a task.
 *
 * It is signalled when the task has ended, or has a part to be taken. It is reset by hand, not by
 * a wait. Only wait for it: do not reset it, and do not close it. It is valid until the task is
 * freed.
 *
 * Returns null if `task` is no task, or if the system gives no event object.
 */
void *UPCALL_NAME(task_event)(UPCALL_NAME(task) *task);
#endif

#if defined(_WIN32)
/**
 * Returns the event object, a `HANDLE`, that tells an event loop when a fiber of the calling
 * thread is ready.
 *
 * While a fiber of the thread's runtime can run, the object is signalled. It is reset by hand, not
 * by a wait. Only wait for it: do not reset it, and do not close it. It is valid until
 * `local_end`.
 *
 * Returns null if the thread has no runtime.
 */
void *UPCALL_NAME(local_event)(void);
#endif

#if defined(_WIN32)
/**
 * Returns the event object, a `HANDLE`, that tells an event loop when a coroutine of the calling
 * thread can go on.
 *
 * While one can, the object is signalled. `coroutines_next_ready` ends that when it returns 0. It
 * may be signalled in vain. Only wait for it: do not reset it, and do not close it. It is valid
 * until the thread's exit.
 *
 * Returns null if the system gives no event object.
 */
void *UPCALL_NAME(coroutines_event)(void);
#endif

/**
 * Frees a string or an array returned by a function of this library.
 *
 * It is for memory that the library's author documents so. The C library's `free` is not for it,
 * nor is this function for memory of `malloc`, or of another library.
 *
 * Returns 0, also if `memory` is null. Returns -1 and changes nothing if `memory` is not such a
 * pointer, or was freed already. (If the same address was returned again since, it is the newer
 * memory that is freed.)
 *
 * Requirements:
 * Nobody uses `memory` any more.
 */
int UPCALL_NAME(memory_free)(void *memory);

/**
 * Gives the calling thread a runtime: a run queue of fibers, run by this thread on its own event
 * loop.
 *
 * The loop watches the descriptor `local_fd`. When this is readable, the loop calls
 * `local_run_ready`.
 *
 * Returns 0. Returns -1 if the thread has a runtime already, or if no file descriptor is
 * available. The runtime lives until `local_end` or the exit of the thread.
 */
int UPCALL_NAME(local_begin)(void);

/**
 * Adds a fiber to the calling thread's runtime: it will call `run(argument)` on a stack of its
 * own.
 *
 * The fiber begins in a later `local_run_ready`, or while a Rust function waits on this thread. If
 * its C code calls a Rust function and this waits, the fiber is suspended, and the thread
 * continues with other work.
 *
 * The library's author promises in Rust that the library's functions may wait on fibers. A library
 * without this promise exports no function `local_*`, so a program with calls of them does not
 * link. C++ code on fibers makes the same promise for its own `thread_local` variables.
 *
 * Returns 0. Returns -1 if `run` is null, or if the thread has no runtime. The caller keeps
 * the ownership of `argument`.
 *
 * Requirements:
 * `run(argument)` may be called once, on this thread, until `local_end` has returned. If
 * `local_end` ends the fiber during a wait, the waiting Rust function returns its error value to
 * C. Then `run` has to return as well.
 */
int UPCALL_NAME(local_spawn)(void (*run)(void*), void *argument);

/**
 * Runs fibers of the calling thread's runtime that are ready, at most `max` of them.
 *
 * Each runs until it waits or ends.
 *
 * Returns the number of runs. Returns -1 if the thread has no runtime.
 */
long UPCALL_NAME(local_run_ready)(size_t max);

/**
 * Ends the calling thread's runtime, and its fibers.
 *
 * A fiber in the middle of a wait is ended there: the waiting Rust function returns to C its error
 * value, as after a panic.
 *
 * Returns 0. Returns -1 if the thread has no runtime, or if the call comes from inside
 * `local_run_ready`.
 */
int UPCALL_NAME(local_end)(void);

/**
 * Ends upcall's worker threads; their fibers and tasks have `milliseconds` to end.
 *
 * It is for programs that want no other thread to run during their exit. From the call on, no
 * fiber or task can be given to a worker. Everything without workers continues to work. Tasks that
 * run out of time are ended, as `UPCALL_TASK_LOST`.
 *
 * Returns 0. Returns -1 if some fibers or blocking calls have not ended by then; the message names
 * them. In this case the function may be called again.
 */
int UPCALL_NAME(shutdown)(unsigned int milliseconds);

/**
 * Describes a stack made by the program, such as a coroutine's.
 *
 * ```text
 *   low + size ─┬─────────────┐
 *               │ the stack   │ grows downwards
 *          low ─┼─────────────┤ lowest usable address
 *               │ guard pages │ not included
 *               └─────────────┘
 * ```
 *
 * A Rust function called on the stack, by any thread, runs there if the stack has enough room.
 * Otherwise it runs on a stack of upcall's, as it does for every call from an undescribed stack.
 * `size` is in bytes. `name` is for reports; it may be null, and is copied.
 *
 * Returns 0. Returns -1 and changes nothing in three cases: `low` is null or `size` is 0; the
 * stack would reach past the end of the address space; it overlaps a registered stack or the
 * calling thread's own. The registration lasts until `stack_unregister`.
 *
 * Requirements:
 * The `size` bytes from `low` on are one stack, readable and writable, until it is unregistered.
 * `name` is null or a C string.
 */
int UPCALL_NAME(stack_register)(void *low, size_t size, const char *name);

/**
 * Ends the registration of a stack, before its memory gets another use.
 *
 * `low` is the address given to `stack_register`. Any thread may call this, not only the one that
 * registered the stack.
 *
 * Returns 0. Returns -1 and changes nothing if `stack_register` has registered no stack at `low`,
 * or if the stack is in use. It is in use if a call of any thread has not returned, and was made
 * on the stack, from it or to it. The message tells which call, where, and on which thread. Code
 * on the stack may unregister it as its last action there, if it has no other open call.
 *
 * Two kinds of use are not detected: calls of threads that have begun to exit; and, on another
 * thread, a Rust function in the middle of a plain call of C, without `upcall::downcall`. In the
 * other direction, a call abandoned by `longjmp` may count as open.
 */
int UPCALL_NAME(stack_unregister)(void *low);

/**
 * Returns the bytes certainly remaining on the caller's stack, below the caller.
 *
 * This works on the thread's own stack, on registered stacks, and on upcall's stacks. On an
 * undescribed stack, it returns -1.
 *
 * On the thread's own stack, upcall asks the system at the thread's first call. When a later call
 * comes from deeper than any before, by 128 KiB or more, upcall asks again: it checks that the 256
 * KiB below the caller exist. The part further down may turn out not to exist, if the stack's
 * limit is lowered or guard pages are put there. So ask again every 128 KiB of depth.
 */
ptrdiff_t UPCALL_NAME(stack_remaining)(void);

/**
 * Installs signal handlers that report faults and stack overflows on stderr.
 *
 * The signals are SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGABRT. A report tells on which thread and
 * inside which calls the fault happened. Afterwards the previous handler is called. Call this
 * before the first call of a Rust function. If the host raises SIGSEGV on purpose, set the
 * variable `UPCALL_REPORTS=overflows`: then upcall reports only stack overflows, and leaves all
 * other faults to the host.
 *
 * Returns 0. Returns -1 if the system refuses it.
 */
int UPCALL_NAME(report_install)(void);

/**
 * Waits until a task has ended.
 *
 * It waits for `milliseconds` at most; if negative, for as long as it takes. Any thread may wait,
 * and several may at the same time. On a fiber, or on a stack of
 * `local_spawn`, only the fiber waits. If the calling thread has a runtime of `local_begin`, its
 * fibers run meanwhile.
 *
 * If the task has a completion, this may return before its call has begun, or while it runs. So
 * whoever waits does not free what the completion uses.
 *
 * Returns the task's status: `UPCALL_TASK_RUNNING` if time has run out, otherwise the kind of its
 * end. If that is not `UPCALL_TASK_DONE`, `last_message` tells the reason. Returns -1 if `task` is
 * no task, or if the host has ended the wait.
 */
int UPCALL_NAME(task_wait)(UPCALL_NAME(task) *task, int milliseconds);

/**
 * Returns the status of a task.
 *
 * It is `UPCALL_TASK_RUNNING` or the kind of the task's end. If the task has ended and the status
 * is not `UPCALL_TASK_DONE`, `last_message` tells the reason. Returns -1 if `task` is no task.
 */
int UPCALL_NAME(task_status)(UPCALL_NAME(task) *task);

/**
 * Asks for the end of a task.
 *
 * Its operation is dropped at a point where it waits; then the task ends as
 * `UPCALL_TASK_CANCELLED`. It may have another end before that. This function returns at once;
 * `task_wait` waits for the end. Any thread may call it, also inside the task's own completion.
 *
 * Returns 0, also if the task has ended. Returns -1 if `task` is no task.
 */
int UPCALL_NAME(task_cancel)(UPCALL_NAME(task) *task);

/**
 * Frees a task.
 *
 * If `cancel` is not 0 and the task runs, it is cancelled; otherwise it goes on by itself. In
 * either case its completion is called, if it has not been. A value that nobody has taken is
 * dropped. From now on, the pointer is stale: functions that get it return -1.
 *
 * Returns 0. Returns -1 if `task` is no task, as when it was freed already.
 */
int UPCALL_NAME(task_free)(UPCALL_NAME(task) *task, int cancel);

/**
 * Waits for the next part of a result that comes in parts.
 *
 * It waits for `milliseconds` at most; if negative, for as long as it takes.
 *
 * A function of the library's own takes the part.
 *
 * Returns 1 if there is a part; 2 if there is none any more, since the task has ended; 0 if time
 * has run out. Returns -1 if `task` is no task, or if its result does not come in parts.
 */
int UPCALL_NAME(task_next)(UPCALL_NAME(task) *task, int milliseconds);

#ifdef __cplusplus
}
#endif

#ifdef __GNUC__
#pragma GCC diagnostic pop
#endif
#undef UPCALL_PREFIX
