/* The coroutines that await, and the completions that they call. */
#pragma once

#include <coroutine>
#include <cstdint>
#include <exception>

extern "C" {
struct done;
void done_call(struct done *done, int status, std::int64_t value);
void cxx_start(int kind, struct done *done);
}

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
