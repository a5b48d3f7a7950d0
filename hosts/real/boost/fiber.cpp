/* Boost.Fiber: fibers suspended under Rust, by Boost's means and by waits; on one thread, and with
 * schedulers that move fibers to others. */
#include "../../c/host.h"

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include <boost/fiber/all.hpp>

#include "pinning_shared_work.hpp"
#include "registered_stack.hpp"

namespace fibers = boost::fibers;
namespace this_fiber = boost::this_fiber;

typedef int (*entry)(guest_callback, void *);
static const entry calls[] = {guest_call, guest_call_pooled, guest_call_caller, guest_call_plain};

/* Calls `body` through Rust. */
template <class Body> static int under_rust(entry call, Body body) {
    return call([](void *body) -> int { return (*static_cast<Body *>(body))(); }, &body);
}

static void all_returned() { CHECK(guest_open_calls() == 0 && guest_increment(1) == 2); }

static void join_all(std::vector<fibers::fiber> &all) {
    for (auto &fiber : all)
        fiber.join();
}

/* ---- one thread: waits under Rust for mutexes, condition variables, channels and futures ---- */

static void mutexes() {
    fibers::mutex mutex;
    fibers::condition_variable turned;
    std::vector<fibers::fiber> all;
    int turn = 0;
    for (int i = 0; i < 40; i++)
        all.emplace_back([&, i] {
            for (int round = 0; round < 25; round++)
                under_rust(calls[i % 4], [&] {
                    std::unique_lock<fibers::mutex> lock(mutex);
                    turned.wait(lock, [&] { return turn % 40 == i; });
                    this_fiber::yield(); /* holding the lock */
                    turn++;
                    turned.notify_all();
                    return 0;
                });
        });
    join_all(all);
    CHECK(turn == 40 * 25);
    all_returned();
}

static void channels() {
    fibers::buffered_channel<int> numbers(4);
    fibers::unbuffered_channel<int> squares;
    std::vector<fibers::fiber> all;
    int sum = 0;
    all.emplace_back([&] {
        for (int n = 1; n <= 100; n++)
            CHECK(under_rust(calls[n % 4], [&] { return (int)numbers.push(n); }) == 0);
        numbers.close();
    });
    all.emplace_back([&] {
        int n;
        while (under_rust(guest_call, [&] { return (int)numbers.pop(n); }) == 0)
            CHECK(under_rust(calls[n % 4], [&] { return (int)squares.push(n * n); }) == 0);
        squares.close();
    });
    all.emplace_back([&] {
        int square;
        while (under_rust(guest_call_pooled, [&] { return (int)squares.pop(square); }) == 0)
            sum += square;
    });
    join_all(all);
    CHECK(sum == 338350);
    all_returned();
}

/* Ten thousand fibers on registered stacks, each suspended under Rust. */
static void ten_thousand() {
    enum { COUNT = 10000 };
    upcall::registered_stack<boost::context::fixedsize_stack> stacks(32 << 10);
    fibers::promise<int> promise;
    auto future = promise.get_future().share();
    std::vector<fibers::fiber> all;
    int waiting = 0, sum = 0;
    for (int i = 0; i < COUNT; i++)
        all.emplace_back(fibers::launch::dispatch, std::allocator_arg, stacks, [&, i] {
            sum += under_rust(calls[i % 4], [&] {
                waiting++;
                return future.get();
            });
        });
    CHECK(waiting == COUNT && sum == 0);
    promise.set_value(3);
    join_all(all);
    CHECK(sum == 3 * COUNT);
    all_returned();
}

/* A panic under a fiber's downcall is raised at that downcall, whatever ran in between. */
static void panics() {
    std::vector<fibers::fiber> all;
    int caught = 0;
    for (int i = 0; i < 20; i++)
        all.emplace_back([&, i] {
            char message[32], expected[32];
            snprintf(expected, sizeof expected, "fiber %d", i);
            auto body = [&] {
                this_fiber::yield();
                CHECK(guest_panic(expected) == -1);
                this_fiber::yield();
                return 0;
            };
            auto call = [](void *b) -> int { return (*static_cast<decltype(body) *>(b))(); };
            CHECK(guest_catch(call, &body, message, sizeof message) == -2);
            caught += strcmp(message, expected) == 0;
        });
    join_all(all);
    CHECK(caught == 20);
    all_returned();
}

/* Threads with their own fibers work together, all under Rust. No fiber leaves its thread. */
static void threads() {
    enum { THREADS = 4, FIBERS = 10, EACH = 100 };
    fibers::buffered_channel<int> channel(8);
    std::vector<std::thread> all;
    std::atomic<int> sum{0}, senders{THREADS / 2 * FIBERS};
    for (int thread = 0; thread < THREADS; thread++)
        all.emplace_back([&, thread] {
            std::vector<fibers::fiber> mine;
            for (int i = 0; i < FIBERS; i++)
                mine.emplace_back([&, thread, i] {
                    int n;
                    if (thread % 2) {
                        while (under_rust(calls[i % 4], [&] { return (int)channel.pop(n); }) == 0)
                            sum += n;
                        return;
                    }
                    for (n = 1; n <= EACH; n++)
                        CHECK(under_rust(calls[i % 4], [&] { return (int)channel.push(n); }) == 0);
                    if (--senders == 0)
                        channel.close();
                });
            join_all(mine);
            all_returned();
        });
    for (auto &thread : all)
        thread.join();
    CHECK(sum == THREADS / 2 * FIBERS * EACH * (EACH + 1) / 2);
}

/* ---- waits ---- */

/* A wait in one of Boost's fibers blocks the thread with all its fibers: upcall cannot suspend
 * fibers scheduled by Boost. */
static void wait_blocks() {
    guest_channel *channel = guest_channel_new(1);
    std::atomic<bool> sent{false};
    bool ran = false;
    fibers::fiber waits([&] {
        std::thread sends([&] {
            sent = true;
            guest_send(channel, 5);
        });
        CHECK(guest_receive(channel) == 5 && sent && !ran);
        sends.join();
    });
    fibers::fiber other([&] { ran = true; });
    waits.join();
    other.join();
    CHECK(ran);
    guest_channel_free(channel);
    all_returned();
}

/* A job for one of upcall's fibers, which waits. One of Boost's fibers waits for the answer, as for
 * any future. */
struct job {
    guest_channel *channel;
    fibers::promise<int> answer;

    static void run(void *argument) {
        auto &job = *static_cast<struct job *>(argument);
        job.answer.set_value(guest_receive(job.channel));
    }
};

static void wait_suspends() {
    enum { COUNT = 100 };
    CHECK(upcall_local_begin() == 0);
    guest_channel *channel = guest_channel_new(1);
    int sum = 0, left = COUNT;
    std::vector<fibers::fiber> all;
    for (int i = 0; i < COUNT; i++)
        all.emplace_back([&] {
            job job = {channel, {}};
            auto answer = job.answer.get_future();
            CHECK(upcall_local_spawn(job::run, &job) == 0);
            sum += answer.get();
            left--;
        });
    /* All these fibers wait on this thread, and this thread serves them. */
    all.emplace_back([&] {
        for (int n = 1; n <= COUNT; n++) {
            CHECK(guest_send(channel, n) == 0);
            this_fiber::yield();
        }
    });
    all.emplace_back([&] {
        while (left) {
            CHECK(upcall_local_run_ready(COUNT) >= 0);
            this_fiber::yield();
        }
    });
    join_all(all);
    CHECK(sum == COUNT * (COUNT + 1) / 2);
    CHECK(upcall_local_end() == 0);
    guest_channel_free(channel);
    all_returned();
}

/* ---- schedulers that move fibers ---- */

/* Yields until the fiber runs on another thread. */
static int until_moved() {
    for (pid_t began_on = gettid(); gettid() == began_on;)
        this_fiber::yield();
    return 0;
}

/* Runs `body` to its end in a fiber of two threads sharing their fibers. */
template <class Algorithm, class Body, class... Arguments> static void on_two(Body body, Arguments... arguments) {
    fibers::promise<void> done;
    auto ended = done.get_future().share();
    pthread_setname_np(pthread_self(), "first");
    std::thread second([=] {
        pthread_setname_np(pthread_self(), "second");
        fibers::use_scheduling_algorithm<Algorithm>(arguments...);
        ended.wait();
    });
    fibers::use_scheduling_algorithm<Algorithm>(arguments...);
    fibers::fiber([&] {
        body();
        done.set_value();
    }).detach();
    ended.wait();
    second.join();
}

template <entry call> static void moved_by_shared_work() {
    on_two<fibers::algo::shared_work>([] { under_rust(call, until_moved); });
}

static void moved_by_work_stealing() {
    on_two<fibers::algo::work_stealing>([] { under_rust(guest_moving, until_moved); }, 2);
}

/* Fibers move freely between calls. */
static void calls_and_moves() {
    for (int round = 0; round < 20; round++) {
        CHECK(under_rust(calls[round % 4], [=] { return guest_increment(round); }) == round + 1);
        until_moved();
    }
    CHECK(guest_open_calls() == 0);
}

static void free_between_calls() { on_two<fibers::algo::shared_work>(calls_and_moves); }
static void free_between_calls_stealing() { on_two<fibers::algo::work_stealing>(calls_and_moves, 2); }

/* Twenty fibers yield under Rust on their thread, and move between their calls of Rust. */
static void pinned() {
    on_two<upcall::pinning_shared_work>([] {
        std::vector<fibers::fiber> all;
        std::atomic<int> done{0};
        for (int i = 0; i < 20; i++)
            all.emplace_back([&, i] {
                for (int round = 0; round < 10; round++) {
                    {
                        upcall::on_this_thread here;
                        pid_t began_on = gettid();
                        under_rust(calls[i % 4], [&] {
                            for (int n = 0; n < 10; n++, this_fiber::yield())
                                CHECK(gettid() == began_on);
                            return 0;
                        });
                    }
                    until_moved();
                }
                done++;
            });
        join_all(all);
        CHECK(done == 20);
    });
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"mutexes", mutexes},
        {"channels", channels},
        {"ten_thousand", ten_thousand},
        {"panics", panics},
        {"threads", threads},
        {"wait_blocks", wait_blocks},
        {"wait_suspends", wait_suspends},
        {"moved_by_shared_work", moved_by_shared_work<guest_moving>},
        {"moved_by_shared_work_pooled", moved_by_shared_work<guest_moving_pooled>},
        {"moved_by_work_stealing", moved_by_work_stealing},
        {"free_between_calls", free_between_calls},
        {"free_between_calls_stealing", free_between_calls_stealing},
        {"pinned", pinned},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
