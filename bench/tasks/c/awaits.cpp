/* A coroutine that awaits a task of upcall by upcall.hpp, and then calls the completion. */
#include <coroutine>
#include <cstdint>
#include <exception>

#define UPCALL_PREFIX tasks_
#define UPCALL_NAMESPACE tasks
#include "upcall.hpp"

extern "C" {
struct done;
void done_call(struct done *done, int status, std::int64_t value);
void cxx_start(int kind, struct done *done);
tasks_task *tasks_start(int kind, void (*done)(void *data, tasks_task *task, int status), void *data);
std::int64_t tasks_value(tasks_task *task);
}

namespace {

/* A coroutine that begins at once, and frees itself at its end. */
struct detached {
    struct promise_type {
        detached get_return_object() { return {}; }
        std::suspend_never initial_suspend() { return {}; }
        std::suspend_never final_suspend() noexcept { return {}; }
        void return_void() {}
        void unhandled_exception() { std::terminate(); }
    };
};

detached run(int kind, struct done *done) {
    auto begin = [kind](tasks::completion completion, void *data) { return tasks_start(kind, completion, data); };
    std::int64_t value = co_await tasks::start<std::int64_t>(tasks_value, begin);
    done_call(done, 1, value);
}

} // namespace

void cxx_start(int kind, struct done *done) { run(kind, done); }
