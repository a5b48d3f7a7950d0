/* A coroutine that awaits a task of upcall by upcall.hpp, and then calls the completion. */
#define UPCALL_PREFIX tasks_
#define UPCALL_NAMESPACE tasks
#include "upcall.hpp"

#include "detached.hpp"

extern "C" {
tasks_task *tasks_start(int kind, void (*done)(void *data, tasks_task *task, int status), void *data);
std::int64_t tasks_value(tasks_task *task);
}

namespace {

detached run(int kind, struct done *done) {
    auto begin = [kind](tasks::completion completion, void *data) { return tasks_start(kind, completion, data); };
    std::int64_t value = co_await tasks::start<std::int64_t>(tasks_value, begin);
    done_call(done, 1, value);
}

} // namespace

void cxx_start(int kind, struct done *done) { run(kind, done); }
