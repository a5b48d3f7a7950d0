/* The libraries, one of them in each program. */
#include "tasks.h"

#if defined(UPCALL)

#define UPCALL_PREFIX tasks_
#include "upcall.h"

typedef void completion(void *data, tasks_task *task, int status);
tasks_task *tasks_start(int kind, completion *done, void *data);
int64_t tasks_value(tasks_task *task);

static void complete(void *data, tasks_task *task, int status) {
    (void)task;
    done_call(data, status, 0);
}

void *task_start(enum kind kind, struct done *done) { return tasks_start(kind, complete, done); }

void task_cancel(void *task) { tasks_task_cancel(task); }

int64_t task_finish(void *task, struct done *done) {
    done_wait(done);
    int64_t value = done->status == 1 ? tasks_value(task) : 0;
    tasks_task_free(task, 0);
    return value;
}

#elif defined(UNIFFI)

/* As in UniFFI's bindings: poll, sleep until the continuation is called, poll again if it said
 * so. */
struct buffer {
    uint64_t capacity, length;
    uint8_t *data;
};
struct call_status {
    int8_t code;
    struct buffer error;
};
typedef void continuation(uint64_t data, int8_t poll);
uint64_t uniffi_benchtasks_uniffi_fn_func_ready(void);
uint64_t uniffi_benchtasks_uniffi_fn_func_yields(void);
uint64_t uniffi_benchtasks_uniffi_fn_func_waits(void);
void ffi_benchtasks_uniffi_rust_future_poll_i64(uint64_t future, continuation *f, uint64_t data);
void ffi_benchtasks_uniffi_rust_future_cancel_i64(uint64_t future);
int64_t ffi_benchtasks_uniffi_rust_future_complete_i64(uint64_t future, struct call_status *status);
void ffi_benchtasks_uniffi_rust_future_free_i64(uint64_t future);

static void resume(uint64_t data, int8_t poll) { done_call((struct done *)(uintptr_t)data, poll, 0); }

static void poll(struct done *done) {
    ffi_benchtasks_uniffi_rust_future_poll_i64(done->handle, resume, (uintptr_t)done);
}

void *task_start(enum kind kind, struct done *done) {
    done->handle = kind == YIELDS  ? uniffi_benchtasks_uniffi_fn_func_yields()
                   : kind == WAITS ? uniffi_benchtasks_uniffi_fn_func_waits()
                                   : uniffi_benchtasks_uniffi_fn_func_ready();
    poll(done);
    return done;
}

void task_cancel(void *task) { ffi_benchtasks_uniffi_rust_future_cancel_i64(((struct done *)task)->handle); }

int64_t task_finish(void *task, struct done *done) {
    (void)task;
    for (done_wait(done); done->status != 0; done_wait(done)) {
        atomic_store(&done->state, 0);
        poll(done);
    }
    struct call_status status = {0};
    int64_t value = ffi_benchtasks_uniffi_rust_future_complete_i64(done->handle, &status);
    ffi_benchtasks_uniffi_rust_future_free_i64(done->handle);
    return value;
}

#elif defined(HAND) || defined(GO)

#ifdef GO
#define NAME(name) go_##name
#else
#define NAME(name) hand_##name
#endif

typedef void callback(void *data, int status, int64_t value);
uintptr_t NAME(start)(int kind, callback *f, void *data);
void NAME(cancel)(uintptr_t task);
void NAME(free)(uintptr_t task);

static void complete(void *data, int status, int64_t value) { done_call(data, status, value); }

void *task_start(enum kind kind, struct done *done) { return (void *)NAME(start)(kind, complete, done); }

void task_cancel(void *task) { NAME(cancel)((uintptr_t)task); }

int64_t task_finish(void *task, struct done *done) {
    done_wait(done);
    int64_t value = done->value;
    NAME(free)((uintptr_t)task);
    return value;
}

#elif defined(CXX_ASYNC)

/* A C++ coroutine awaits the future, in cxx/ or in awaits.cpp. It has no handle here, and is not
 * cancelled. */
void cxx_start(int kind, struct done *done);

void *task_start(enum kind kind, struct done *done) {
    cxx_start(kind, done);
    return done;
}

void task_cancel(void *task) { (void)task; }

int64_t task_finish(void *task, struct done *done) {
    (void)task;
    done_wait(done);
    return done->value;
}

#elif defined(SPAWN)

/* tokio's own memory: tasks without handle, callback and end. */
void hand_spawn(void);

void *task_start(enum kind kind, struct done *done) {
    (void)kind;
    hand_spawn();
    return done;
}

void task_cancel(void *task) { (void)task; }

int64_t task_finish(void *task, struct done *done) {
    (void)task, (void)done;
    return 0;
}

#endif
