/* Boost.Fiber's shared_work for programs with Rust. A fiber in the middle of a call of Rust stays
 * on its thread; all other fibers move as usual.
 *
 *     boost::fibers::use_scheduling_algorithm<upcall::pinning_shared_work>(); // on each thread
 *     …
 *     upcall::on_this_thread here; // in a fiber, around a call of Rust
 */
#ifndef UPCALL_PINNING_SHARED_WORK_HPP
#define UPCALL_PINNING_SHARED_WORK_HPP

#include <boost/fiber/all.hpp>

namespace upcall {

struct pins : boost::fibers::fiber_properties {
    using fiber_properties::fiber_properties;
    unsigned held = 0;
};

class on_this_thread {
    pins &mine = boost::this_fiber::properties<pins>();

  public:
    on_this_thread() { mine.held++; }
    ~on_this_thread() { mine.held--; }
    on_this_thread(const on_this_thread &) = delete;
    on_this_thread &operator=(const on_this_thread &) = delete;
};

class pinning_shared_work : public boost::fibers::algo::algorithm_with_properties<pins> {
    using context = boost::fibers::context;

    boost::fibers::algo::shared_work shared;
    boost::fibers::scheduler::ready_queue_type pinned;
    bool pinned_next = true;

    context *next_pinned() noexcept {
        if (pinned.empty())
            return nullptr;
        context *next = &pinned.front();
        pinned.pop_front();
        return next;
    }

  public:
    /* `suspend` is that of shared_work: whether a thread without ready fibers sleeps. */
    explicit pinning_shared_work(bool suspend = false) : shared(suspend) {}

    void awakened(context *fiber, pins &pins) noexcept override {
        if (pins.held)
            fiber->ready_link(pinned);
        else
            shared.awakened(fiber);
    }

    /* Takes pinned and shared fibers in turn, so neither kind starves the other. */
    context *pick_next() noexcept override {
        pinned_next = !pinned_next;
        context *next = pinned_next ? next_pinned() : shared.pick_next();
        return next ? next : pinned_next ? shared.pick_next() : next_pinned();
    }

    bool has_ready_fibers() const noexcept override { return !pinned.empty() || shared.has_ready_fibers(); }

    void suspend_until(const std::chrono::steady_clock::time_point &end) noexcept override { shared.suspend_until(end); }

    void notify() noexcept override { shared.notify(); }
};

} // namespace upcall

#endif
