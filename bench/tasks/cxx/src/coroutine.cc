/* A coroutine that awaits a Rust future, and then calls the completion. */
#include <coroutine>
#include <exception>

#include "benchtasks-cxx/src/lib.rs.h"
#include "operations.h"

extern "C" {
struct done;
void done_call(struct done *done, int status, std::int64_t value);
void cxx_start(int kind, struct done *done);
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

detached run(RustFutureI64 future, struct done *done) {
    std::int64_t value = co_await std::move(future);
    done_call(done, 1, value);
}

} // namespace

void cxx_start(int kind, struct done *done) { run(kind == 1 ? yields() : kind == 3 ? waits() : ready(), done); }
