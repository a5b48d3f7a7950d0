/* The C side of the guest library. src/lib.rs describes each function. */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "upcall.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef int (*guest_callback)(void *);

struct guest_where {
    uintptr_t low, high, sp;
    int exact; /* the bounds are given, not estimated */
    int own;   /* the stack is the thread's own */
};

int guest_empty(void);
int guest_increment(int x);
int guest_call(guest_callback callback, void *argument);
int guest_call_pooled(guest_callback callback, void *argument);
int guest_call_caller(guest_callback callback, void *argument);
int guest_call_plain(guest_callback callback, void *argument);
int guest_call_plain_pooled(guest_callback callback, void *argument);
int guest_downcall(guest_callback callback, void *argument);
int guest_call_plain_then(guest_callback plain, guest_callback then, void *argument);
int guest_use_and_call(size_t bytes, guest_callback callback, void *argument);
int guest_panic(const char *message);
int guest_panic_kept(const char *message);
int guest_serves(void);
int guest_panic_waits(void);
int guest_panic_with_bomb(void);
int guest_panic_with_heavy(void);
int guest_heavies_dropped(void);
int guest_panic_while_dropping(guest_callback callback, void *argument);
int guest_catch(guest_callback callback, void *argument, char *buffer, size_t size);
void guest_bounds(struct guest_where *answer);
int guest_where(struct guest_where *answer);
int guest_where_caller(struct guest_where *answer, size_t min_stack);
int guest_use_stack(size_t bytes);
int guest_use_sized_stack(size_t min_stack, size_t bytes);
int guest_with_stack(size_t bytes, guest_callback callback, void *argument);
int guest_overflow(struct guest_where *answer);
int guest_fault(void);
int guest_attached_threads(void);
int guest_open_calls(void);
int guest_stacks_in_use(void);
void *guest_register(void *low, size_t size);
void guest_unregister(void *registration);

/* Waiting functions: src/waiting.rs. */
typedef struct guest_channel guest_channel;
typedef struct guest_fiber guest_fiber;

guest_channel *guest_channel_new(size_t capacity);
void guest_channel_free(guest_channel *channel);
int guest_send(guest_channel *channel, int number);
int guest_receive(guest_channel *channel);
int guest_receive_pooled(guest_channel *channel);
int guest_receive_sized(size_t min_stack, guest_channel *channel);
int guest_receive_with_stack(size_t bytes, guest_channel *channel);
int guest_sleep(unsigned milliseconds);
int guest_yield(void);
int guest_wait_call_wait(guest_callback callback, void *argument);
int guest_wait_call_wait_on_fiber(guest_callback callback, void *argument);
int guest_catch_on_fiber(guest_callback callback, void *argument, char *buffer, size_t size);
int guest_call_on_fiber(size_t bytes, guest_callback callback, guest_callback left, void *argument);
guest_fiber *guest_spawn(guest_callback callback, void *argument);
guest_fiber *guest_spawn_on_fiber(const char *name, guest_callback callback, void *argument);
guest_fiber *guest_spawn_local(guest_callback callback, void *argument);
guest_fiber *guest_spawn_repeating(size_t bytes, guest_callback callback, void *argument);
int guest_join(guest_fiber *fiber);
int guest_is_finished(guest_fiber *fiber);
void guest_abort(guest_fiber *fiber);
void guest_detach(guest_fiber *fiber);
int guest_blocking(guest_callback callback, void *argument);

/* Functions with callbacks that may throw C++ exceptions: src/exceptions.rs. */
int guest_unwinding(guest_callback callback, void *argument);
int guest_unwinding_pooled(guest_callback callback, void *argument);
int guest_unwinding_plain(guest_callback callback, void *argument);
int guest_unwinding_plain_pooled(guest_callback callback, void *argument);
int guest_unwinding_in_fiber(guest_callback callback, void *argument);
int guest_unwinding_on_fiber(guest_callback callback, void *argument);
int guest_call_in_fiber(guest_callback callback, void *argument);

/* Functions of the model test: src/model.rs. */
void guest_panic_silently(void);
int guest_call_holding(int number, guest_callback callback, void *argument);
int guest_panic_calling(int number, guest_callback callback, void *argument);
int guest_call_on_own_fiber(guest_callback callback, void *argument);
int guest_with_stack_on_own_fiber(size_t bytes, guest_callback callback, void *argument);
int guest_join_raising(guest_fiber *fiber);
int guest_open_downcalls(void);
int guest_poll_calls_plain(guest_callback callback, void *argument);
void guest_reset_locals(void);
int guest_add_to_thread_local(int way, int number);
int guest_add_to_fiber_local(int number);
int guest_add_around_yield(int number);
int guest_call_using_fiber_local(int number, guest_callback callback, void *argument);
/* Functions during which a coroutine moves to another thread: src/moved.rs. */
int guest_moving(guest_callback callback, void *argument);
int guest_moving_pooled(guest_callback callback, void *argument);
int guest_moving_caller(guest_callback callback, void *argument);
int guest_moving_with_stack(guest_callback callback, void *argument);
int guest_moving_in_fiber(guest_callback callback, void *argument);
int guest_moving_on_fiber(guest_callback callback, void *argument);
int guest_moving_plain_in_fiber(guest_callback callback, void *argument);
int guest_end_when_stopped(void);
/* Functions called by signal handlers at any moment: src/interrupted.rs. */
int guest_panic_is_taken(bool pooled);
int guest_is_raised(bool pooled, void (*callback)(void));
/* A write to a closed pipe, with SIGPIPE or without: src/unix.rs. */
int guest_write_to_nobody(bool kept_off);
/* Functions abandoned by C in the middle of a wait, a poll or the use of a value: src/jumped.rs. */
int guest_poll_calls(guest_callback callback, void *argument);
int guest_poll_waits_and_calls(guest_callback callback, void *argument);
int guest_local_calls(guest_callback callback, void *argument);
int guest_fiber_calls(guest_callback callback, void *argument);

/* Operations that C starts: their kind, and the options of their start. */
enum guest_operation { GUEST_VALUE, GUEST_ERROR, GUEST_PANIC, GUEST_NEVER };
enum {
    GUEST_ON_WORKERS = 1, /* not on tokio */
    GUEST_LATER = 2,      /* the first poll is the executor's */
    GUEST_LOCAL = 4,      /* on the calling thread's runtime */
    GUEST_ON_LOOP = 8     /* the completion is called on the calling thread's runtime */
};
typedef void (*guest_done)(void *data, upcall_task *task, int status);
upcall_task *guest_start(enum guest_operation operation, unsigned milliseconds, unsigned options, guest_done done, void *data);
upcall_task *guest_start_with_deadline(unsigned milliseconds, guest_done done, void *data);
upcall_task *guest_start_parts(int parts, size_t capacity, guest_done done, void *data);
int guest_task_value(upcall_task *task, int *value);
int guest_task_part(upcall_task *task, int *part);
int guest_running_tasks(void);
int guest_operations_alive(void);
int guest_thread_waits(void);
/* Waits on coroutines of a host with hooks: src/suspended.rs. */
typedef struct guest_bell guest_bell;
int guest_receive_in_initialiser(guest_channel *channel);
int guest_receive_interruptible(guest_channel *channel);
int guest_receive_and_panic(guest_channel *channel);
int guest_receive_while_panicking(guest_channel *channel);
int guest_scope_receives(guest_channel *own, guest_channel *fibers);
int guest_scopes_ended(void);
int guest_suspended_coroutines(void);
guest_bell *guest_bell_new(void);
int guest_bell_ring(guest_bell *bell);
int guest_bell_ring_slowly(guest_bell *bell);
int guest_bell_fork(guest_bell *bell);
int guest_bell_wait(guest_bell *bell);
/* A fiber-local value, for a thread to be detached: src/detach.rs. */
int guest_keep_local(guest_callback callback, void *argument);
/* Backtraces, and errors for tools to find: src/tools.rs. */
int guest_backtrace(char *buffer, size_t size);
int guest_misread(size_t index);

/* Functions with the attribute `upcall::export`: src/exported.rs. */
typedef struct guest_end guest_end;
struct guest_pair {
    int first, second;
};

int guest_exported_divide(int dividend, int divisor);
void guest_exported_where(struct guest_where *answer);
const int *guest_exported_compare(int *count, const int *a, const int *b);
int guest_exported_call(guest_callback callback, void *argument);
void guest_exported_panic(void);
bool guest_exported_panic_bool(void);
char guest_exported_panic_char(void);
size_t guest_exported_panic_size(void);
double guest_exported_panic_double(void);
const void *guest_exported_panic_pointer(void);
guest_callback guest_exported_panic_callback(void);
int *guest_exported_panic_box(void);
guest_end *guest_exported_end_new(guest_callback callback, void *argument);
int guest_exported_end(guest_end *end, int *failed);
int guest_exported_sum(struct guest_pair pair, int sum, int more, const int *last);
int guest_exported_wait(void);
int guest_exported_panic_twice(const char *message);
int guest_exported_error(const char *message);
int guest_exported_status(int status);
int guest_exported_error_then_panic(const char *message);
void guest_exported_on_caller(void);
guest_callback guest_exported_pointer(void);

/* Memory owned by C: memory.rs. */
char *guest_memory_text(const char *text);
long *guest_memory_numbers(long count, size_t *length);

/* Closures called by C, and values kept by C: src/callbacks.rs. */
struct guest_closure {
    int (*call)(void *data, int number);
    void *data;
    void (*destroy)(void *data);
};

typedef int (*guest_borrower)(const struct guest_closure *);

int guest_closures(void);
struct guest_closure guest_adder(void);
struct guest_closure guest_calls_back(int shared, int (*back)(void *, int), void *argument);
struct guest_closure guest_once(void);
struct guest_closure guest_waiter(void);
struct guest_closure guest_bomb(void);
int guest_lend(guest_borrower user);
int guest_lend_calling(int (*back)(int), guest_borrower user);
int guest_lend_shared(guest_borrower user);
void *guest_account_new(int balance);
int guest_account_add(void *account, int number, int (*back)(void *account));
int guest_account_free(void *account);
int guest_account_close(void *account);

#ifdef __cplusplus
}
#endif

#endif
