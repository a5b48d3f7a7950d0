/* Waits in Rust that suspend fibers of Boost.Fiber and coroutines of Boost.Coroutine2. */
#include "../../c/host.h"

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include <sys/wait.h>

#include "registered_stack.hpp"
#include "waiting_coroutines.hpp"
#include "waiting_fibers.hpp"

namespace fibers = boost::fibers;
namespace this_fiber = boost::this_fiber;
using namespace std::chrono_literals;

typedef int (*entry)(guest_callback, void *);
static const entry calls[] = {guest_call, guest_call_pooled, guest_call_caller, guest_call_plain};

/* Calls `body` through Rust. */
template <class Body> static int under_rust(entry call, Body body) {
    return call([](void *body) -> int { return (*static_cast<Body *>(body))(); }, &body);
}

static void begin() { fibers::use_scheduling_algorithm<upcall::waiting_fibers<>>(); }

static void all_returned() { CHECK(guest_open_calls() == 0 && guest_increment(1) == 2 && guest_sleep(1) == 0); }

/* Runs `body(i)` on `count` fibers, to their ends. Returns the milliseconds taken. */
template <class Body> static double on_fibers(int count, Body body) {
    std::vector<fibers::fiber> all;
    double before = milliseconds(CLOCK_MONOTONIC);
    for (int i = 0; i < count; i++)
        all.emplace_back(body, i);
    for (auto &fiber : all)
        fiber.join();
    return milliseconds(CLOCK_MONOTONIC) - before;
}

/* ---- beside Boost's own sleep ---- */

static double median(std::vector<double> &&all) {
    std::nth_element(all.begin(), all.begin() + all.size() / 2, all.end());
    return all[all.size() / 2];
}

static void thousand_sleep() {
    begin();
    std::vector<double> boosts, waits;
    for (int round = 0; round < 16; round++) {
        double boost = on_fibers(1000, [](int) { this_fiber::sleep_for(10ms); });
        double wait = on_fibers(1000, [](int) { CHECK(guest_sleep(10) == 0); });
        CHECK(wait >= 10);
        if (round > 0)
            boosts.push_back(boost), waits.push_back(wait);
    }
    double boost = median(std::move(boosts)), wait = median(std::move(waits));
    printf("1,000 fibers sleep for 10 ms: sleep_for %.1f ms, waits %.1f ms, ratio %.2f\n", boost, wait, wait / boost);
    CHECK(wait < 10 * boost);
    all_returned();
}

/* ---- messages: woken by a fiber of the same thread, and by other threads ---- */

enum { MESSAGES = 200, PAIRS = 20 };

struct channels {
    guest_channel *to[PAIRS], *from[PAIRS];
    channels() {
        for (int n = 0; n < PAIRS; n++)
            to[n] = guest_channel_new(1 + n % 3), from[n] = guest_channel_new(1);
    }
    ~channels() {
        for (int n = 0; n < PAIRS; n++)
            guest_channel_free(to[n]), guest_channel_free(from[n]);
    }
    void ask(int n) {
        for (int i = 0; i < MESSAGES; i++) {
            CHECK(guest_send(to[n], i) == 0);
            CHECK(guest_receive(from[n]) == i + 1);
        }
    }
    void answer(int n) {
        for (int i = 0; i < MESSAGES; i++)
            CHECK(guest_send(from[n], guest_receive(to[n]) + 1) == 0);
    }
};

static void messages() {
    begin();
    channels channels;
    on_fibers(2 * PAIRS, [&](int i) { i % 2 ? channels.ask(i / 2) : channels.answer(i / 2); });
    all_returned();
}

/* Two threads with a scheduler each, and messages between their fibers. */
static void two_threads() {
    channels channels;
    std::thread answers([&] {
        begin();
        on_fibers(PAIRS, [&](int n) { channels.answer(n); });
    });
    begin();
    on_fibers(PAIRS, [&](int n) { channels.ask(n); });
    answers.join();
    all_returned();
}

/* The main fiber waits, and is suspended like the others. */
static void on_main() {
    begin();
    guest_channel *channel = guest_channel_new(1);
    fibers::fiber other([&] { CHECK(guest_send(channel, 5) == 0); });
    CHECK(guest_receive(channel) == 5);
    other.join();
    guest_channel_free(channel);
    all_returned();
}

/* ---- Boost's means next to waits ---- */

/* One fiber of three waits in Rust, another for a condition variable, the last for time. Half of
 * the notifications come from the other thread. */
static void condition_variables() {
    enum { TURNS = 600 };
    fibers::mutex mutex;
    fibers::condition_variable turned;
    int turn = 0;
    auto take_turns = [&](int thread) {
        begin();
        on_fibers(3, [&, thread](int i) {
            for (int mine = 2 * i + thread; mine < TURNS; mine += 6) {
                under_rust(calls[mine % 4], [&] {
                    std::unique_lock<fibers::mutex> lock(mutex);
                    turned.wait(lock, [&] { return turn == mine; });
                    if (i == 0)
                        CHECK(guest_sleep(mine % 2) == 0);
                    else if (i == 1)
                        this_fiber::sleep_for(100us);
                    turn++;
                    turned.notify_all();
                    return 0;
                });
            }
        });
    };
    std::thread other(take_turns, 1);
    take_turns(0);
    other.join();
    CHECK(turn == TURNS);
    all_returned();
}

/* A thread without ready fibers sleeps, whatever it waits for. */
static void idle() {
    begin();
    double before = milliseconds(CLOCK_PROCESS_CPUTIME_ID);
    on_fibers(2, [](int i) { i ? this_fiber::sleep_for(600ms) : (void)guest_sleep(600); });
    CHECK(milliseconds(CLOCK_PROCESS_CPUTIME_ID) - before < 200);
    all_returned();
}

/* ---- nested: C++ → Rust → C++ → Rust, with a wait at each level ---- */

static void descend(int fiber, int level) {
    volatile char filler[300];
    for (size_t i = 0; i < sizeof filler; i++)
        filler[i] = (char)(fiber + level + i);
    CHECK(guest_sleep((fiber + level) % 3) == 0);
    if (level > 0)
        under_rust(calls[(fiber + level) % 4], [=] {
            CHECK(guest_yield() == 0);
            descend(fiber, level - 1);
            this_fiber::yield();
            return guest_sleep(level % 2);
        });
    for (size_t i = 0; i < sizeof filler; i++)
        CHECK(filler[i] == (char)(fiber + level + i));
}

static void nested() {
    begin();
    on_fibers(60, [](int fiber) { descend(fiber, 4); });
    upcall::registered_stack<> stacks(1 << 20);
    std::vector<fibers::fiber> all;
    for (int fiber = 0; fiber < 20; fiber++)
        all.emplace_back(std::allocator_arg, stacks, [=] { descend(fiber, 4); });
    for (auto &fiber : all)
        fiber.join();
    all_returned();
}

/* A panic after a wait arrives at its own fiber, whatever ran in between. */
static void panics() {
    begin();
    int caught = 0;
    on_fibers(20, [&](int i) {
        char message[32], expected[32];
        snprintf(expected, sizeof expected, "fiber %d", i);
        auto body = [&] {
            CHECK(guest_sleep(i % 3) == 0 && guest_panic(expected) == -1 && guest_sleep(i % 2) == 0);
            return 0;
        };
        auto call = [](void *b) -> int { return (*static_cast<decltype(body) *>(b))(); };
        CHECK(guest_catch(call, &body, message, sizeof message) == -2);
        caught += strcmp(message, expected) == 0;
    });
    CHECK(caught == 20);
    all_returned();
}

/* ---- the ends of threads and processes ---- */

/* The fibers that wait at their thread's exit are told that their waits have ended. */
static void thread_exits() {
    std::atomic<int> told{0};
    guest_channel *never = guest_channel_new(1);
    std::thread([&] {
        begin();
        for (int i = 0; i < 10; i++)
            fibers::fiber([&] {
                CHECK(guest_receive(never) == -1);
                told++;
            }).detach();
        this_fiber::yield();
        CHECK(told == 0);
    }).join();
    CHECK(told == 10);
    CHECK(guest_send(never, 5) == 0 && guest_receive(never) == 5);
    guest_channel_free(never);
    all_returned();
}

/* Parent and child go on with the same fibers, each with its own wakes. */
static void forked() {
    begin();
    guest_channel *channel = guest_channel_new(10);
    pid_t child = -1;
    int received = 0;
    on_fibers(11, [&](int i) {
        if (i < 10) {
            received += guest_receive(channel);
            return;
        }
        CHECK((child = fork()) >= 0);
        this_fiber::sleep_for(5ms);
        for (int n = 1; n <= 10; n++)
            CHECK(guest_send(channel, n) == 0);
    });
    CHECK(received == 55);
    if (child == 0) {
        this_fiber::sleep_for(1h);
        _exit(1);
    }
    /* The child sleeps in its scheduler, and takes no notification of ours. */
    for (int i = 0; i < 2000; i++) {
        fibers::promise<int> promise;
        std::thread other([&] { promise.set_value(i); });
        CHECK(promise.get_future().get() == i);
        other.join();
    }
    int status;
    CHECK(kill(child, SIGTERM) == 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    guest_channel_free(channel);
}

/* ---- Boost.Coroutine2 ---- */

static int alive;
struct counted {
    counted() { alive++; }
    ~counted() { alive--; }
};

static void coroutines() {
    upcall::waiting_coroutines loop;
    channels channels;
    int ended = 0;
    double before = milliseconds(CLOCK_MONOTONIC);
    for (int i = 0; i < 1000; i++)
        CHECK(loop.start([&] { ended += upcall::calling_rust([] { return guest_sleep(10); }) == 0; }));
    loop.run();
    CHECK(ended == 1000 && milliseconds(CLOCK_MONOTONIC) - before < 5000);
    for (int i = 0; i < 2 * PAIRS; i++)
        loop.start([&, i] { i % 2 ? channels.ask(i / 2) : channels.answer(i / 2); });
    loop.run();
    CHECK(loop.start([] { CHECK(guest_increment(1) == 2); }) == nullptr);
    all_returned();
}

/* Waits in a callback under Rust, below a second one. The coroutine's destructors run above Rust,
 * between its two calls, and below; each waits in turn. */
struct waiting_destructor : counted {
    ~waiting_destructor() { CHECK(guest_sleep(60000) == -1); }
};

static void wait_until_destroyed(entry call, guest_channel *never) {
    waiting_destructor above;
    upcall::calling_rust([&] {
        return under_rust(call, [&] {
            return upcall::called_by_rust(-1, [&] {
                waiting_destructor between;
                int end = upcall::calling_rust([&] { return guest_receive(never); });
                CHECK(!"came here");
                return end;
            });
        });
    });
    CHECK(!"came here");
}

static void destroyed_in_waits() {
    guest_channel *never = guest_channel_new(1);
    for (int round = 0; round < 3; round++) {
        upcall::waiting_coroutines loop;
        std::vector<upcall::waiting_coroutine *> all;
        for (int i = 0; i < 40; i++)
            all.push_back(loop.start([=] { wait_until_destroyed(calls[i % 4], never); }));
        CHECK(alive == 80);
        for (int i = 0; i < 20; i++)
            loop.destroy(all[i * 7 % 20]);
        CHECK(alive == 40);
        /* One is destroyed after its wake, and before it is served. */
        CHECK(guest_send(never, round) == 0);
        loop.destroy(all[20]);
        CHECK(guest_receive(never) == round);
        loop.run_ready();
    }
    CHECK(alive == 0 && guest_send(never, 5) == 0 && guest_receive(never) == 5);
    guest_channel_free(never);
    all_returned();
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"thousand_sleep", thousand_sleep},
        {"messages", messages},
        {"two_threads", two_threads},
        {"on_main", on_main},
        {"condition_variables", condition_variables},
        {"idle", idle},
        {"nested", nested},
        {"panics", panics},
        {"thread_exits", thread_exits},
        {"forked", forked},
        {"coroutines", coroutines},
        {"destroyed_in_waits", destroyed_in_waits},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
