/* Boost.Fiber's fibers wait in Rust without blocking their thread.
 *
 *     boost::fibers::use_scheduling_algorithm<upcall::waiting_fibers<>>(); // on each thread
 *
 * A wait of a Rust function suspends the fiber of its caller, or the thread's main fiber, and the
 * thread runs its other fibers. When none is ready, it sleeps for all at once: for the next
 * `sleep_for`, for other threads with fibers, and for the wakes of Rust. No thread is added.
 */
#ifndef UPCALL_WAITING_FIBERS_HPP
#define UPCALL_WAITING_FIBERS_HPP

#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <utility>

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <boost/fiber/all.hpp>
#include <boost/intrusive/list.hpp>
#include <upcall.h>

namespace upcall {

/* An algorithm of Boost's or of yours, with waits.
 *
 * `Algorithm` chooses between ready fibers, and must leave a fiber on its thread as long as Rust is
 * on its stack. Its own `suspend_until` and `notify` are not used. */
template <class Algorithm = boost::fibers::algo::round_robin> class waiting_fibers : public Algorithm {
    using context = boost::fibers::context;
    using type = boost::fibers::type;

    /* A fiber in a wait. It lies on the fiber's own stack. */
    struct suspended : boost::intrusive::list_base_hook<> {
        context *fiber;
        bool is_to_end = false;
        explicit suspended(context *fiber) : fiber(fiber) {}
    };

    boost::intrusive::list<suspended> all;
    pid_t process = getpid();
    int notified = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    /* Boost's dispatcher chooses the next fiber, so it cannot be suspended. */
    static void *current(void *) noexcept {
        context *active = context::active();
        return active->is_context(type::dispatcher_context) ? nullptr : active;
    }

    static int suspend(void *data, void *fiber) noexcept {
        suspended here(static_cast<context *>(fiber));
        auto &all = static_cast<waiting_fibers *>(data)->all;
        all.push_back(here);
        here.fiber->suspend();
        all.erase(all.iterator_to(here));
        return here.is_to_end;
    }

    /* Takes all ready fibers from Rust; or one, if Boost has none. As long as Rust has not returned
     * 0, further wakes make no system calls. */
    void take_ready() noexcept {
        bool others = this->has_ready_fibers();
        void *fiber;
        do {
            if (upcall_coroutines_next_ready(&fiber) != 1)
                return;
            this->awakened(static_cast<context *>(fiber));
        } while (others);
    }

    /* The thread is exiting, and no wake arrives any more: ends all waits. */
    void end_waits() noexcept {
        for (auto &wait : all)
            if (!std::exchange(wait.is_to_end, true) && !wait.fiber->ready_is_linked())
                this->awakened(wait.fiber);
    }

    /* In the child of a fork: makes a descriptor of its own. Returns whether it did. */
    bool has_forked() noexcept {
        if (process == getpid())
            return false;
        close(notified);
        notified = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        process = getpid();
        return true;
    }

  public:
    template <class... Arguments>
    explicit waiting_fibers(Arguments &&...arguments) : Algorithm(std::forward<Arguments>(arguments)...) {
        if (notified < 0 || upcall_coroutines_fd() < 0 || upcall_coroutines_install(0, this, current, suspend, nullptr) != 0)
            throw std::runtime_error("waiting_fibers: no descriptor, or the thread has hooks already");
    }

    ~waiting_fibers() override {
        upcall_coroutines_uninstall(0);
        close(notified);
    }

    /* Fibers of Rust's become ready when the dispatcher asks, like Boost's own: the fiber that
     * suspends itself at this moment must not be chosen. */
    context *pick_next() noexcept override {
        if (context::active()->is_context(type::dispatcher_context))
            take_ready();
        return Algorithm::pick_next();
    }

    void suspend_until(const std::chrono::steady_clock::time_point &end) noexcept override {
        using namespace std::chrono;
        int ready = upcall_coroutines_fd();
        if (ready < 0)
            end_waits();
        if (has_forked() || this->has_ready_fibers())
            return;
        timespec left = {};
        if (auto now = steady_clock::now(); now < end) {
            auto whole = duration_cast<seconds>(end - now);
            left.tv_sec = whole.count();
            left.tv_nsec = duration_cast<nanoseconds>(end - now - whole).count();
        }
        pollfd watched[] = {{notified, POLLIN, 0}, {ready, POLLIN, 0}};
        ppoll(watched, 2, end == steady_clock::time_point::max() ? nullptr : &left, nullptr);
        std::uint64_t count;
        if (watched[0].revents && read(notified, &count, sizeof count) < 0)
            return; /* taken meanwhile */
    }

    /* Called from any thread when a fiber of this one becomes ready. */
    void notify() noexcept override {
        std::uint64_t one = 1;
        if (write(notified, &one, sizeof one) < 0)
            return; /* it has been written to often enough */
    }
};

} // namespace upcall

#endif
