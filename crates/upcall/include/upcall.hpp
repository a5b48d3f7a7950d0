/* upcall.hpp: the C++20 side of upcall.h. Errors are exceptions, ownership is RAII, and coroutines
 * await tasks.
 *
 * The header of a library written in Rust includes it once, in the library's namespace:
 *
 *     #pragma once
 *     #define UPCALL_PREFIX geo_
 *     #define UPCALL_NAMESPACE geo
 *     #include "upcall.hpp"
 *
 * This also includes upcall.h. The include uses both definitions up: for a second library, define
 * them again and include the file again. The same library's second include is an error.
 *
 * A library function of the following form starts a task. A second function takes its result:
 *
 *     geo_task *geo_lookup(const char *name, void (*done)(void *, geo_task *, int), void *data);
 *     int geo_lookup_result(geo_task *task, size_t *length);
 *
 * A coroutine starts the task and awaits its result:
 *
 *     std::size_t length = co_await geo::start<std::size_t>(
 *         [](geo_task *task) {
 *             std::size_t length;
 *             geo::check(geo_lookup_result(task, &length));
 *             return length;
 *         },
 *         [&](geo::completion done, void *data) { return geo_lookup(name, done, data); },
 *         stop_token);
 *
 * Errors     A function that fails throws `error`, with the message of last_message. No exception
 *            enters Rust: one that leaves a completion calls std::terminate.
 * Threads    As in upcall.h. An object of a class here belongs to one thread at a time.
 * Compilers  g++ 12, clang 14 and later, with exceptions, and a standard library with
 *            <stop_token>. */

#if __cplusplus < 202002L
#error "upcall.hpp needs C++20: compile with -std=c++20"
#endif
#if !defined __cpp_exceptions
#error "upcall.hpp needs exceptions: compile without -fno-exceptions"
#endif
#ifndef UPCALL_NAMESPACE
#error "define UPCALL_NAMESPACE before the include of upcall.hpp: the C++ namespace of the library"
#endif

#include <atomic>
#include <chrono>
#include <climits>
#include <cmath>
#include <concepts>
#include <coroutine>
#include <cstddef>
#include <exception>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <type_traits>
#include <utility>

/* upcall.h uses the prefix up, and the names below need it. */
#ifndef UPCALL_PREFIX
#define UPCALL_PREFIX upcall_
#endif
#pragma push_macro("UPCALL_PREFIX")
#include "upcall.h"
#pragma pop_macro("UPCALL_PREFIX")

namespace UPCALL_NAMESPACE {

/* ---- errors ---- */

/**
 * Returns the calling thread's last message, empty if there is none.
 */
inline std::string last_message() {
    const int length = ::UPCALL_NAME(last_message)(nullptr, 0);
    std::string message(length < 0 ? 0 : static_cast<std::size_t>(length), '\0');
    if (length > 0)
        ::UPCALL_NAME(last_message)(message.data(), message.size() + 1);
    return message;
}

/**
 * The error of a function or of a task.
 */
class error : public std::runtime_error {
  public:
    /* Takes the calling thread's last message. */
    explicit error(int status) : error(status, last_message()) {}
    error(int status, const std::string &message) : std::runtime_error(message), status_(status) {}

    /* The negative result of a function; or the kind of a task's end, such as
     * UPCALL_TASK_CANCELLED. */
    int status() const noexcept { return status_; }

  private:
    int status_;
};

/**
 * Returns the result of a function. Throws `error` if it is negative.
 */
template <std::signed_integral Result> Result check(Result result) {
    if (result < 0)
        throw error(static_cast<int>(result));
    return result;
}

/* ---- ownership ---- */

/* Frees by a C function of the library. Its result, if any, is ignored. */
template <auto free_function> struct deleter {
    template <class T> void operator()(T *owned) const noexcept { static_cast<void>(free_function(owned)); }
};

/**
 * Owns a pointer of the library: `geo::handle<geo_map, geo_map_free>`.
 */
template <class T, auto free_function> using handle = std::unique_ptr<T, deleter<free_function>>;

/**
 * Copies a string returned by the library, and frees it: `geo::take_string<geo_text_free>(text)`.
 *
 * Throws `error` if `owned` is null.
 */
template <auto free_function> std::string take_string(char *owned) {
    if (!owned)
        throw error(-1);
    const handle<char, free_function> held(owned);
    return std::string(owned);
}

/**
 * Describes a stack made by the program, for the lifetime of this object.
 *
 * The parameters are those of stack_register. Destroy the object before the stack's memory gets
 * another use. If an open call uses the stack then, it stays registered. `unregister` reports this,
 * and the memory must stay, too.
 */
class registered_stack {
  public:
    registered_stack(void *low, std::size_t size, const char *name) : low_(low) {
        check(::UPCALL_NAME(stack_register)(low, size, name));
    }
    registered_stack(registered_stack &&other) noexcept : low_(std::exchange(other.low_, nullptr)) {}
    registered_stack &operator=(registered_stack &&) = delete;
    ~registered_stack() {
        if (low_)
            ::UPCALL_NAME(stack_unregister)(low_);
    }

    /* Ends the registration. If the stack is in use, throws `error` and changes nothing. */
    void unregister() {
        check(::UPCALL_NAME(stack_unregister)(low_));
        low_ = nullptr;
    }

  private:
    void *low_;
};

/* ---- tasks ---- */

/**
 * Owns a task with a result of type `T`.
 *
 * `take(task)` takes the result of a finished task, and throws `error` on failure. The destructor
 * frees the task, and cancels it if it runs. It does not wait for the end; `detach` lets the task
 * run on. After a move or `detach`, the object is empty, and all its other functions throw `error`.
 */
template <class T, class Take = T (*)(::UPCALL_NAME(task) *)> class task {
  public:
    /* Takes ownership of a started task. If `started` is null, throws `error`. */
    task(::UPCALL_NAME(task) *started, Take take) : task_(started), take_(std::move(take)) {
        if (!started)
            throw error(-1);
    }

    /* Waits until the task has ended. Returns the kind of its end. */
    int wait() const { return check(::UPCALL_NAME(task_wait)(task_.get(), -1)); }

    /* Waits for `limit` at most, rounded up to milliseconds. Returns UPCALL_TASK_RUNNING if time
     * has run out, otherwise the kind of the end. */
    template <class Rep, class Period> int wait_for(std::chrono::duration<Rep, Period> limit) const {
        const double exact = std::chrono::duration<double, std::milli>(limit).count();
        int milliseconds = 0;
        if (exact >= INT_MAX)
            milliseconds = INT_MAX;
        else if (exact > 0)
            milliseconds = static_cast<int>(std::ceil(exact));
        return check(::UPCALL_NAME(task_wait)(task_.get(), milliseconds));
    }

    /* Returns UPCALL_TASK_RUNNING, or the kind of the task's end. */
    int status() const { return check(::UPCALL_NAME(task_status)(task_.get())); }

    /* Asks for the task's end, and returns at once. */
    void cancel() const { check(::UPCALL_NAME(task_cancel)(task_.get())); }

    /* Waits until the task has ended, and takes its result. If it has none, throws `error` with the
     * kind of its end as the status. A result can be taken once. */
    T get() {
        const int status = wait();
        if (status != UPCALL_TASK_DONE)
            throw error(status);
        return take_(task_.get());
    }

    /* Frees the task without its cancellation. Its completion, if any, is still called. */
    void detach() { check(::UPCALL_NAME(task_free)(task_.release(), 0)); }

    /* The C library's pointer. This object stays its owner. */
    ::UPCALL_NAME(task) *raw() const noexcept { return task_.get(); }

  private:
    struct cancelling {
        void operator()(::UPCALL_NAME(task) *owned) const noexcept { ::UPCALL_NAME(task_free)(owned, 1); }
    };

    std::unique_ptr<::UPCALL_NAME(task), cancelling> task_;
    Take take_;
};

/**
 * The completion of a task: the function for `starter` to hand to C, along with its data.
 */
using completion = void (*)(void *data, ::UPCALL_NAME(task) *task, int status);

namespace detail {

/* Counts the completions of abandoned operations, for their owners to wait on. */
inline std::atomic<unsigned> abandoned_completions;

/* A task from its start to its end, for the awaitable and the future.
 *
 *     started ── await() ──→ awaited ── completion ──→ ended: the completion resumes the owner
 *        ├────── completion ──────────────────────────→ ended: await() returns false
 *        └────── destructor ──→ abandoned ── completion ──→ ended: the destructor goes on
 *
 * Rule: each step is one atomic step of `state_`, and the second of two parties acts. The step is
 * the last access to the operation by `await`, if it returns true, and by an abandoned operation's
 * completion. */
class operation {
  public:
    operation(const operation &) = delete;
    operation &operator=(const operation &) = delete;

  protected:
    using resume_function = void (*)(operation *);

    operation(std::stop_token stop, resume_function resume) : stop_(std::move(stop)), resume_(resume) {}

    /* Abandons the operation if it has not ended: cancels it, and waits for its completion. */
    ~operation() {
        canceller_.reset();
        if (!task_)
            return;
        if (state_.exchange(abandoned, std::memory_order_acq_rel) != ended) {
            ::UPCALL_NAME(task_cancel)(task_);
            /* Unlike a wait on `state_`, this runs fibers and tasks of the calling thread. The
             * completion may be called a moment later. */
            ::UPCALL_NAME(task_wait)(task_, -1);
            unsigned seen = abandoned_completions.load(std::memory_order_acquire);
            while (state_.load(std::memory_order_acquire) != ended) {
                abandoned_completions.wait(seen, std::memory_order_acquire);
                seen = abandoned_completions.load(std::memory_order_acquire);
            }
        }
        ::UPCALL_NAME(task_free)(task_, 1);
    }

    /* Starts the operation, except after a request to stop. Returns whether nothing is to be waited
     * for. */
    template <class Starter> bool start(Starter &starter) {
        if (stop_.stop_requested())
            return true;
        task_ = starter(completion(done), static_cast<void *>(this));
        if (!task_)
            throw error(-1);
        if (state_.load(std::memory_order_acquire) == ended)
            return true;
        /* If a stop was requested meanwhile, this cancels at once. */
        if (stop_.stop_possible())
            canceller_.emplace(stop_, canceller{task_});
        return false;
    }

    /* Leaves the rest to the completion, and returns true. Then the operation may be gone. If the
     * operation has ended, returns false. */
    bool await() noexcept {
        state before = started;
        return state_.compare_exchange_strong(before, awaited, std::memory_order_acq_rel);
    }

    /* Hands the task of an ended operation to the caller. */
    ::UPCALL_NAME(task) *release() {
        /* From here on, no request to stop reaches the task. */
        canceller_.reset();
        if (!task_)
            throw error(UPCALL_TASK_CANCELLED, "the task was cancelled before its start");
        return std::exchange(task_, nullptr);
    }

  private:
    enum state { started, awaited, ended, abandoned };

    /* Cancels a task. The cancellation may resume a coroutine and so destroy this object during
     * the call. */
    struct canceller {
        ::UPCALL_NAME(task) *task;
        void operator()() const noexcept { ::UPCALL_NAME(task_cancel)(task); }
    };

    static void done(void *data, ::UPCALL_NAME(task) *, int) noexcept {
        operation *const self = static_cast<operation *>(data);
        const state before = self->state_.exchange(ended, std::memory_order_acq_rel);
        if (before == awaited) {
            self->resume_(self);
        } else if (before == abandoned) {
            abandoned_completions.fetch_add(1, std::memory_order_release);
            abandoned_completions.notify_all();
        }
    }

    const std::stop_token stop_;
    const resume_function resume_;
    ::UPCALL_NAME(task) *task_ = nullptr;
    std::optional<std::stop_callback<canceller>> canceller_;
    std::atomic<state> state_ = started;
};

/* The default executor of `start`. */
struct resume_here {
    void operator()(std::coroutine_handle<> coroutine) const { coroutine.resume(); }
};

} // namespace detail

/**
 * The awaitable returned by `start`, to be awaited once.
 */
template <class T, class Take, class Starter, class Post> class [[nodiscard]] awaitable : detail::operation {
  public:
    awaitable(Take take, Starter starter, std::stop_token stop, Post post)
        : operation(std::move(stop), resume), take_(std::move(take)), starter_(std::move(starter)),
          post_(std::move(post)) {}

    bool await_ready() { return start(starter_); }

    bool await_suspend(std::coroutine_handle<> coroutine) noexcept {
        coroutine_ = coroutine;
        return await();
    }

    T await_resume() { return task<T, Take>(release(), std::move(take_)).get(); }

  private:
    /* The coroutine may end on another thread while `post` runs, so this uses copies. */
    static void resume(detail::operation *of) {
        awaitable *const self = static_cast<awaitable *>(of);
        const std::coroutine_handle<> coroutine = self->coroutine_;
        Post post = std::move(self->post_);
        post(coroutine);
    }

    Take take_;
    Starter starter_;
    Post post_;
    std::coroutine_handle<> coroutine_;
};

/**
 * Starts a task when it is awaited: `co_await geo::start<T>(take, starter)`.
 *
 * `starter(done, data)` calls the C function, and returns its task. `take(task)` returns the
 * result. If the task is not started or ends without a result, `co_await` throws `error`.
 *
 * Resumption: the coroutine is resumed exactly once. A task that is ready at once does not suspend
 * it, and nothing is allocated for it here. Otherwise the completion calls `post(coroutine)`, on
 * the thread that ends the task; by default, this resumes the coroutine there. The coroutine then
 * holds up that thread until it suspends again. With a `post` of its own, a program resumes the
 * coroutine elsewhere. It is called once, must not throw, and must not wait for the coroutine.
 *
 * Stop: a request to stop cancels the task. If it comes before the start, nothing is started. The
 * error has the status UPCALL_TASK_CANCELLED in either case. After the end, a request changes
 * nothing. Without a `post`, the call of `request_stop` may be the one to resume the coroutine.
 *
 * Abandonment: a coroutine may be destroyed while it waits here. This cancels the task, and waits
 * for its completion. So the task's memory, such as a buffer in the coroutine's frame, stays valid
 * until nobody uses it. There are two requirements:
 * - The coroutine is not being resumed, and not handed to `post`. If the task may end at any time,
 *   request a stop instead, and let the coroutine end by itself.
 * - The task can end during a task_wait of the calling thread, and its completion can be called.
 *   On upcall's workers this is so: they run other tasks meanwhile. It is not so on the only thread
 *   of a tokio runtime, nor on the thread whose run_ready makes the call (`Completion::on`).
 */
template <class T, class Take, class Starter, class Post = detail::resume_here>
awaitable<T, Take, Starter, Post> start(Take take, Starter starter, std::stop_token stop = {},
                                        Post post = {}) {
    return {std::move(take), std::move(starter), std::move(stop), std::move(post)};
}

namespace detail {

/* Owns itself, and deletes itself at its end. */
template <class T, class Take> class future_operation final : operation {
  public:
    template <class Starter> static std::future<T> begin(Take take, Starter &starter, std::stop_token stop) {
        std::unique_ptr<future_operation> self(new future_operation(std::move(take), std::move(stop)));
        std::future<T> future = self->promise_.get_future();
        if (self->start(starter))
            finish(self.release());
        else if (future_operation *const running = self.release(); !running->await())
            finish(running);
        return future;
    }

    ~future_operation() = default;

  private:
    future_operation(Take take, std::stop_token stop)
        : operation(std::move(stop), finish), take_(std::move(take)) {}

    static void finish(operation *of) {
        const std::unique_ptr<future_operation> self(static_cast<future_operation *>(of));
        try {
            task<T, Take> ended(self->release(), std::move(self->take_));
            if constexpr (std::is_void_v<T>) {
                ended.get();
                self->promise_.set_value();
            } else {
                self->promise_.set_value(ended.get());
            }
        } catch (...) {
            self->promise_.set_exception(std::current_exception());
        }
    }

    std::promise<T> promise_;
    Take take_;
};

} // namespace detail

/**
 * Starts a task now, and returns the future of its result.
 *
 * The parameters are those of `start`. Throws `error` if the task is not started. Otherwise the
 * future has the error. The thread that ends the task calls `take`. A request to stop cancels the
 * task; the destruction of the future does not, and does not wait.
 */
template <class T, class Take, class Starter>
std::future<T> future(Take take, Starter starter, std::stop_token stop = {}) {
    return detail::future_operation<T, Take>::begin(std::move(take), starter, std::move(stop));
}

} // namespace UPCALL_NAMESPACE

#undef UPCALL_NAMESPACE
#undef UPCALL_PREFIX
