/* upcall.h: the C functions of upcall, by which C can call Rust from any thread, on any stack.
 *
 * Every Rust library built on upcall has these functions beside its own. Nothing has to be set up: none
 * of them has to be called before the library's own, or after.
 *
 * Names      begin with upcall_ or UPCALL_.
 * Results    are 0 for done and -1 for not done, or a number that is not negative and -1 for none. On
 *            failure nothing is changed and nothing is written; upcall_last_panic tells why.
 * Threads    Any thread may call, from any stack, at any time, also inside functions that Rust calls.
 *            Where "the calling thread" is spoken of, only that thread is concerned.
 * Signals    Handlers may call upcall_version, and no other.
 * Ownership  Strings are copied, or static. Nothing that these functions return is the caller's to free.
 *
 * Written by `cargo xtask header`: change the doc comments in src/capi*.rs, not this file. */
#ifndef UPCALL_H
#define UPCALL_H

#include <stddef.h>
#include <stdint.h>

/* The version of this header; upcall_version() is that of the library. */
#define UPCALL_VERSION "0.1.0"
#define UPCALL_VERSION_MAJOR 0
#define UPCALL_VERSION_MINOR 1
#define UPCALL_VERSION_PATCH 0

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Copies the calling thread's last message into `buffer`, cut to `size` bytes with a terminating 0
 * as `snprintf` does: that of the last panic in a function that C called, which it answered with the
 * value that it declares for that, or why a function of this header returned -1.
 *
 * Returns the message's length in bytes without the 0, whatever fitted; -1 if there was none on this
 * thread. It stays until the next one, and at most as long as the thread is attached. `buffer` may be
 * null if `size` is 0.
 *
 * What the caller answers for:
 * `buffer` is valid for writing `size` bytes.
 */
int upcall_last_panic(char *buffer, size_t size);

/**
 * Attaches the calling thread now rather than at its first call of a Rust function, and keeps a stack
 * in reserve, with which calls from its signal handlers can be served: on an alternate stack, where
 * nothing can be allocated, they fail otherwise. Threads that handle no signals need not call this.
 *
 * Returns 0, also if the thread is attached already; -1 if there is no memory for that. It ends with
 * `upcall_thread_detach`, or with the thread.
 */
int upcall_thread_attach(void);

/**
 * Detaches the calling thread now rather than at its exit: frees what was kept for it since its first
 * call of a Rust function, or `upcall_thread_attach`, last message included. A later call of a Rust
 * function attaches it again.
 *
 * Returns 0, also if the thread is not attached. Returns -1 and changes nothing if something of the
 * thread is in use: a call between C and Rust that has not returned, in either direction and on
 * whatever coroutine; a fiber, or the runtime of `upcall_local_begin`. The message says what. A call
 * that was left by `longjmp` may count as one that has not returned. Signal handlers, and upcall's own
 * threads, cannot be detached: -1 there.
 */
int upcall_thread_detach(void);

/**
 * The version of the library that was linked, as `"0.1.0"`; `UPCALL_VERSION` is that of this header.
 *
 * The string is static. May be called from anywhere, signal handlers included.
 */
const char *upcall_version(void);

/**
 * Writes what is going on in the process to the file descriptor `fd`, as a tree: every attached thread,
 * its stacks, its open calls and fibers. From a debugger: `call (int)upcall_dump(2)`. Where the process
 * was stopped inside `malloc`, or inside upcall while that held a lock, this waits for ever, as every
 * function would that allocates; let the process go on for a moment then, and stop it again.
 *
 * Returns 0, or -1 if `fd` can't be written to.
 */
int upcall_dump(int fd);

/**
 * Gives the calling thread a runtime: a queue of fibers, which it runs itself, on its own event loop.
 * The loop watches the descriptor `upcall_local_fd`, and calls `upcall_local_run_ready` when that is
 * readable.
 *
 * Returns 0, or -1 if the thread has one already or there is no file descriptor. It ends with
 * `upcall_local_end`, or with the thread.
 */
int upcall_local_begin(void);

/**
 * Adds a fiber to the calling thread's runtime that will call `run(argument)` on a stack of its own, in
 * a later `upcall_local_run_ready`, or while a Rust function waits on this thread. C code there may
 * call Rust functions that wait: the fiber is suspended, and the thread goes on.
 *
 * Returns 0, or -1 if `run` is null or the thread has no runtime. `argument` stays the caller's.
 *
 * What the caller answers for:
 * `run(argument)` may be called, once, on this thread, until `upcall_local_end` has returned. If the
 * fiber is ended there while it waits, `run` has to return as after an error of the function that
 * waited.
 */
int upcall_local_spawn(void (*run)(void*), void *argument);

/**
 * Runs fibers of the calling thread's runtime that are ready, each until it waits or ends, `max` of them
 * at most.
 *
 * Returns how many it ran, or -1 if the thread has no runtime.
 */
long upcall_local_run_ready(size_t max);

/**
 * The file descriptor that is readable (`POLLIN`, level-triggered) whenever a fiber of the calling
 * thread's runtime can run. To be polled only: not read, not closed. It is good until
 * `upcall_local_end`.
 *
 * Returns -1 if the thread has no runtime.
 */
int upcall_local_fd(void);

/**
 * Ends the calling thread's runtime: fibers that have not ended are ended where they wait, the function
 * that waits returning to C what it declares for a panic.
 *
 * Returns 0, or -1 if the thread has none, or if it is called from inside `upcall_local_run_ready`.
 */
int upcall_local_end(void);

/**
 * Ends upcall's worker threads, giving their fibers `milliseconds` to end. For programs that want
 * nothing to run while they exit. No fiber can be given to a worker any more; all that needs none works
 * as before.
 *
 * Returns 0, or -1 if some have not ended by then; the message says which. It may be called again then.
 */
int upcall_shutdown(unsigned int milliseconds);

/**
 * Describes a stack of the program's own making, a coroutine's: Rust functions that are called there,
 * on any thread, run on that stack if it has room enough for them. Otherwise they run on a stack of
 * upcall's, as they do when they are called on stacks that nobody described. `low` is the lowest usable
 * address, guard pages left out, `size` the size in bytes. `name` is for reports, may be null, and is
 * copied.
 *
 * Returns 0; -1 if `low` is null or `size` is 0, if the stack would reach past the end of the address
 * space, or if it overlaps a registered one or the calling thread's own. Nothing is changed then. It
 * ends with `upcall_stack_unregister`.
 *
 * What the caller answers for:
 * The `size` bytes from `low` on are one stack, readable and writable, until it is unregistered. `name`
 * is null or a C string.
 */
int upcall_stack_register(void *low, size_t size, const char *name);

/**
 * Ends what `upcall_stack_register` began, before the memory becomes something else. `low` is what the
 * stack was registered with. Any thread may do that, not only the one that registered it.
 *
 * Returns 0; -1 if no stack is registered there by `upcall_stack_register`, or if the stack is in use:
 * a call that has not returned, of any thread, was made on it, from it or to it. The message says which
 * call, where and on which thread. Nothing is changed then. Code on the stack may unregister it, as the
 * last thing before it leaves, if no other call of its is open.
 *
 * What cannot be seen: calls of threads that have begun to exit; and, on another thread, a Rust function
 * that called C as a plain function instead of by `upcall::downcall`. What can be seen too long: a call
 * that was left by `longjmp`.
 */
int upcall_stack_unregister(void *low);

/**
 * How many bytes the caller's stack certainly has left below the caller: on its thread's own stack, a
 * registered one, or one of upcall's.
 *
 * Returns -1 on a stack that nobody described. The first call of a thread may ask the system; later ones
 * make no system call.
 */
ptrdiff_t upcall_stack_remaining(void);

/**
 * Has stack overflows reported on stderr: which thread's, on which stack, inside which calls. The
 * handlers of SIGSEGV and SIGBUS that were there before get their turn after that. To be called before
 * the first call of a Rust function.
 *
 * Returns 0, or -1 if the system refuses it.
 */
int upcall_report_install(void);

#ifdef __cplusplus
}
#endif
#endif
