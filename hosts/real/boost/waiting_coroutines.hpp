/* Coroutines of Boost.Coroutine2 that wait in Rust, and the loop of their thread.
 *
 *     upcall::waiting_coroutines coroutines;
 *     coroutines.start([] { int page = upcall::calling_rust([] { return geo_fetch(5); }); … });
 *     coroutines.run(); // until all have ended
 *
 * A wait in Rust suspends the coroutine, and the loop resumes others. Boost ends a destroyed
 * coroutine by an exception, thrown where it is suspended. If that is in a wait, the wait ends, and
 * the Rust function returns its error value. `calling_rust` then throws the exception again.
 */
#ifndef UPCALL_WAITING_COROUTINES_HPP
#define UPCALL_WAITING_COROUTINES_HPP

#include <functional>
#include <memory>
#include <stdexcept>
#include <unordered_map>
#include <utility>

#include <poll.h>

#include <boost/coroutine2/all.hpp>
#include <upcall.h>

#include "across_rust.hpp"

namespace upcall {

class waiting_coroutine {
    friend class waiting_coroutines;
    using two_ways = boost::coroutines2::coroutine<void>;

    static inline thread_local waiting_coroutine *running;

    /* Makes a coroutine the running one, until the end of a block. */
    class runs {
        waiting_coroutine *before;

      public:
        explicit runs(waiting_coroutine *self) : before(std::exchange(running, self)) {}
        ~runs() { running = before; }
        runs(const runs &) = delete;
    };

    two_ways::pull_type *yield = nullptr;
    bool is_destroyed = false;
    across_rust exception;
    two_ways::push_type resume; /* last, since its destructor runs the coroutine's destructors */

    template <class Stack>
    waiting_coroutine(Stack stack, std::function<void()> body)
        : resume(stack, [this, body = std::move(body)](two_ways::pull_type &yield) {
              this->yield = &yield;
              body();
          }) {}

    static void *current(void *) noexcept { return running; }

    /* A destructor may wait in turn, while its coroutine is destroyed: that wait ends at once. */
    static int suspend(void *, void *named) noexcept {
        auto &self = *static_cast<waiting_coroutine *>(named);
        if (!self.is_destroyed)
            self.is_destroyed = self.exception.below(true, [&] { return (*self.yield)(), false; });
        return self.is_destroyed;
    }

  public:
    /* The exception on its way past Rust in the running coroutine. */
    static across_rust &passing() { return running->exception; }
};

/* Around each call of Rust on a coroutine. */
template <class Call> auto calling_rust(Call call) {
    auto result = call();
    waiting_coroutine::passing().above();
    return result;
}

/* Around the body of each callback on a coroutine: `failed` tells Rust to return. */
template <class Result, class Body> Result called_by_rust(Result failed, Body body) noexcept {
    return waiting_coroutine::passing().below(failed, std::move(body));
}

class waiting_coroutines {
    using coroutine = waiting_coroutine;
    std::unordered_map<coroutine *, std::unique_ptr<coroutine>> all;

    bool run(coroutine *self) {
        coroutine::runs here(self);
        self->resume();
        return static_cast<bool>(self->resume);
    }

    /* Returns whether it is suspended now; otherwise it has ended. */
    bool resume(coroutine *self) {
        bool suspended = false;
        try {
            suspended = run(self);
        } catch (...) {
            all.erase(self);
            throw;
        }
        if (!suspended)
            all.erase(self);
        return suspended;
    }

  public:
    waiting_coroutines() {
        if (upcall_coroutines_install(0, nullptr, coroutine::current, coroutine::suspend, nullptr) != 0)
            throw std::logic_error("waiting_coroutines: the thread has hooks already");
    }

    /* Destroys all coroutines. */
    ~waiting_coroutines() {
        while (!all.empty())
            destroy(all.begin()->first);
        upcall_coroutines_uninstall(0);
    }

    waiting_coroutines(const waiting_coroutines &) = delete;
    waiting_coroutines &operator=(const waiting_coroutines &) = delete;

    /* Runs a new coroutine until it waits. Returns null if it has ended. Throws what it throws. */
    template <class Stack = boost::context::fixedsize_stack>
    coroutine *start(std::function<void()> body, Stack stack = Stack()) {
        std::unique_ptr<coroutine> made(new coroutine(std::move(stack), std::move(body)));
        coroutine *self = made.get();
        all.emplace(self, std::move(made));
        return resume(self) ? self : nullptr;
    }

    /* Ends a suspended coroutine by unwinding it. */
    void destroy(coroutine *self) {
        auto node = all.extract(self);
        coroutine::runs here(self);
        node.mapped().reset();
    }

    /* For a loop of yours: resumes the coroutines that can go on. Call it when `fd` is readable.
     * It stays so if some became ready meanwhile. */
    void run_ready() {
        void *named;
        for (auto most = all.size() + 1; most > 0 && upcall_coroutines_next_ready(&named) == 1; most--)
            resume(static_cast<coroutine *>(named));
    }

    int fd() const { return upcall_coroutines_fd(); }

    /* Runs all coroutines to their ends. */
    void run() {
        for (run_ready(); !all.empty(); run_ready()) {
            pollfd ready = {fd(), POLLIN, 0};
            poll(&ready, 1, -1);
        }
    }
};

} // namespace upcall

#endif
