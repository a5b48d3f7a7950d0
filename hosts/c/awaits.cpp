/* upcall.hpp in a C++20 program: coroutines, futures and objects of the library geo. */
#include "geo.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <new>
#include <thread>
#include <unistd.h>
#include <vector>

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
            std::fflush(nullptr);                                                     \
            _exit(1);                                                                 \
        }                                                                             \
    } while (0)

static bool never_here(const char *) { return false; }

using namespace std::chrono_literals;

/* ---- allocations ---- */

static std::atomic<long> allocations;

/* g++ warns of these functions when it inlines one of the pair alone. */
__attribute__((noinline)) void *operator new(std::size_t size) {
    allocations++;
    if (void *memory = std::malloc(size))
        return memory;
    throw std::bad_alloc();
}
__attribute__((noinline)) void operator delete(void *memory) noexcept { std::free(memory); }
__attribute__((noinline)) void operator delete(void *memory, std::size_t) noexcept { std::free(memory); }

/* ---- coroutines ---- */

/* A coroutine that begins at once, and frees itself at its end. Until then `handle` is valid. */
struct job {
    struct promise_type {
        job get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
        std::suspend_never initial_suspend() noexcept { return {}; }
        std::suspend_never final_suspend() noexcept { return {}; }
        void return_void() {}
        void unhandled_exception() { CHECK(never_here("an exception has left a coroutine")); }
    };
    std::coroutine_handle<> handle;
};

/* Counts events, for a thread to wait for. Its objects live as long as the program. */
class counter {
    std::atomic<int> count_{0};

  public:
    void add() {
        count_++;
        count_.notify_all();
    }
    int count() const { return count_; }
    void wait_for(int expected) {
        for (int count; (count = count_) != expected;) {
            CHECK(count < expected);
            count_.wait(count);
        }
    }
};

static long result(geo_task *task) {
    long value;
    geo::check(geo_lookup_result(task, &value));
    return value;
}

static auto now(long value) {
    const auto starter = [=](geo::completion done, void *data) { return geo_lookup_now(value, done, data); };
    return geo::start<long>(result, starter);
}

static auto later(long value, int milliseconds, std::stop_token stop = {}) {
    const auto starter = [=](geo::completion done, void *data) {
        return geo_lookup_later(value, milliseconds, done, data);
    };
    return geo::start<long>(result, starter, stop);
}

static auto never(std::stop_token stop = {}) { return geo::start<long>(result, geo_lookup_never, stop); }

/* Tasks are freed and ended, once their threads have finished with them. */
static void no_task_runs() {
    for (int i = 0; geo_running() != 0; i++) {
        CHECK(i < 10000);
        std::this_thread::sleep_for(1ms);
    }
}

/* Checks that `f` throws an error of this status and message. */
static void throws(int status, const char *message, const std::function<void()> &f) {
    try {
        f();
    } catch (const geo::error &error) {
        if (error.status() == status && std::strstr(error.what(), message))
            return;
        std::fprintf(stderr, "status %d, message %s\n", error.status(), error.what());
    }
    std::fprintf(stderr, "expected status %d, message %s\n", status, message);
    CHECK(never_here("it throws"));
}

/* ---- awaits ---- */

static counter ended;

static const char *lowest, *highest;

static long watched_result(geo_task *task) {
    const char *here = static_cast<const char *>(__builtin_frame_address(0));
    if (!lowest || here < lowest)
        lowest = here;
    if (here > highest)
        highest = here;
    return result(task);
}

static job many_at_once() {
    const std::thread::id thread = std::this_thread::get_id();
    const long before = allocations;
    for (long i = 0; i < 100000; i++) {
        const auto starter = [=](geo::completion done, void *data) { return geo_lookup_now(i, done, data); };
        CHECK(co_await geo::start<long>(watched_result, starter) == i);
        CHECK(std::this_thread::get_id() == thread);
    }
    CHECK(allocations == before);
    ended.add();
}

static void at_once() {
    many_at_once();
    CHECK(ended.count() == 1 && geo_running() == 0);
    CHECK(highest - lowest < 4096);
}

static job many_later() {
    for (int i = 0; i < 100; i++) {
        CHECK(co_await later(i, i % 3) == i);
        CHECK(co_await now(-i) == -i);
    }
    CHECK(co_await geo::start<short>([](geo_task *) { return short(7); },
                                     [](auto done, void *data) { return geo_lookup_later(1, 1, done, data); }) == 7);
    co_await geo::start<void>([](geo_task *task) { CHECK(result(task) == 3); },
                              [](auto done, void *data) { return geo_lookup_later(3, 1, done, data); });
    ended.add();
}

static void in_time() {
    for (int i = 0; i < 10; i++)
        many_later();
    ended.wait_for(10);
    no_task_runs();
}

/* Awaits an operation that throws an error of this status and message. */
template <class Starter> static job fails(Starter starter, int status, const char *message) {
    for (int i = 0; i < 3; i++) {
        try {
            co_await geo::start<long>(result, starter);
            CHECK(never_here("it fails"));
        } catch (const geo::error &error) {
            CHECK(error.status() == status && std::strstr(error.what(), message));
        }
    }
    ended.add();
}

static void errors() {
    for (int milliseconds : {0, 1}) {
        const auto failing = [=](auto done, void *data) { return geo_lookup_failing(milliseconds, done, data); };
        fails(failing, UPCALL_TASK_FAILED, "no such place");
    }
    fails(geo_lookup_panicking, UPCALL_TASK_PANICKED, "lost the map");
    fails(geo_lookup_refused, -1, "no lookups today");
    ended.wait_for(4);
    /* The error of `take`, after a successful end. */
    const auto twice = [](geo_task *task) { return result(task) + result(task); };
    bool thrown = false;
    [](auto take, bool &caught) -> job {
        try {
            co_await geo::start<long>(take, [](auto done, void *data) { return geo_lookup_now(1, done, data); });
        } catch (const geo::error &error) {
            caught = error.status() == -1 && error.what()[0];
        }
    }(twice, thrown);
    CHECK(thrown);
    no_task_runs();
}

/* ---- stops ---- */

static job stopped(std::stop_token stop) {
    try {
        co_await never(stop);
        CHECK(never_here("it never ends"));
    } catch (const geo::error &error) {
        CHECK(error.status() == UPCALL_TASK_CANCELLED && std::strstr(error.what(), "cancelled"));
    }
    ended.add();
}

static void stopped_before() {
    std::stop_source source;
    source.request_stop();
    bool starts = false;
    [](std::stop_token stop, bool &has_started) -> job {
        try {
            co_await geo::start<long>(
                result,
                [&](auto done, void *data) {
                    has_started = true;
                    return geo_lookup_now(1, done, data);
                },
                stop);
        } catch (const geo::error &error) {
            CHECK(error.status() == UPCALL_TASK_CANCELLED);
            ended.add();
        }
    }(source.get_token(), starts);
    CHECK(ended.count() == 1 && !starts);
    no_task_runs();
}

/* A C function during which a stop is requested. */
static auto stopping(std::stop_source stop) {
    return [=](geo::completion done, void *data) mutable {
        geo_task *task = geo_lookup_never(done, data);
        stop.request_stop();
        return task;
    };
}

/* The cancellation comes before the coroutine is suspended, and its completion may, too. */
static void stopped_by_starter() {
    for (int i = 0; i < 500; i++) {
        [](std::stop_source stop) -> job {
            try {
                co_await geo::start<long>(result, stopping(stop), stop.get_token());
                CHECK(never_here("it never ends"));
            } catch (const geo::error &error) {
                CHECK(error.status() == UPCALL_TASK_CANCELLED);
            }
            ended.add();
        }(std::stop_source());
        std::stop_source stop;
        std::future<long> stopped = geo::future<long>(result, stopping(stop), stop.get_token());
        throws(UPCALL_TASK_CANCELLED, "cancelled", [&] { stopped.get(); });
    }
    ended.wait_for(500);
    no_task_runs();
}

static void stopped_during() {
    for (int i = 0; i < 300; i++) {
        std::stop_source source;
        for (int j = 0; j < 3; j++)
            stopped(source.get_token());
        if (i % 2) {
            std::thread([&] { source.request_stop(); }).join();
        } else {
            source.request_stop();
        }
        ended.wait_for(3 * i + 3);
    }
    no_task_runs();
}

static job stopped_or_not(std::stop_token stop, int milliseconds) {
    try {
        CHECK(co_await later(5, milliseconds, stop) == 5);
    } catch (const geo::error &error) {
        CHECK(error.status() == UPCALL_TASK_CANCELLED);
    }
    ended.add();
}

/* The stop and the end come at about the same time. */
static void stopped_at_the_end() {
    for (int i = 0; i < 500; i++) {
        std::stop_source source;
        stopped_or_not(source.get_token(), 1);
        std::this_thread::sleep_for(std::chrono::microseconds(900 + i));
        source.request_stop();
        ended.wait_for(i + 1);
        CHECK(!source.request_stop());
    }
    no_task_runs();
}

static void stopped_after() {
    std::stop_source source;
    static bool values_stay;
    [](std::stop_source stop) -> job {
        const long first = co_await later(4, 1, stop.get_token());
        stop.request_stop();
        values_stay = first == 4;
        ended.add();
    }(source);
    ended.wait_for(1);
    CHECK(values_stay);
    no_task_runs();
}

/* ---- abandoned coroutines ---- */

struct counts {
    ~counts() { ended.add(); }
};

static job waits_for_ever(std::stop_token stop) {
    const counts destroyed;
    co_await never(stop);
    CHECK(never_here("it never ends"));
}

static void abandoned() {
    std::stop_source source;
    for (int i = 0; i < 300; i++) {
        const job waiting = waits_for_ever(i % 3 ? source.get_token() : std::stop_token());
        CHECK(geo_running() == 1);
        if (i % 2)
            std::thread([=] { waiting.handle.destroy(); }).join();
        else
            waiting.handle.destroy();
        CHECK(ended.count() == i + 1);
        no_task_runs();
    }
    /* No callback of the abandoned coroutines is left. */
    CHECK(source.request_stop());
    /* Nothing has started before it is awaited. */
    { [[maybe_unused]] auto unused = later(1, 0); }
    CHECK(geo_running() == 0);
}

static job abandons(std::coroutine_handle<> other) {
    co_await later(1, 2);
    other.destroy();
    ended.add();
}

/* The only worker destroys a coroutine inside a completion, and also runs the coroutine's task. */
static void abandoned_on_worker() {
    CHECK(setenv("UPCALL_WORKERS", "1", 1) == 0);
    for (int i = 0; i < 50; i++) {
        abandons(waits_for_ever({}).handle);
        ended.wait_for(2 * i + 2);
        no_task_runs();
    }
}

/* ---- an executor ---- */

static std::mutex lock;
static std::vector<std::coroutine_handle<>> posted;

struct post {
    std::string held = "destroyed with its coroutine, or with this call, and longer than 16 bytes";
    void operator()(std::coroutine_handle<> coroutine) const {
        {
            const std::lock_guard held_lock(lock);
            posted.push_back(coroutine);
        }
        /* Meanwhile the coroutine goes on, and its await is over. */
        std::this_thread::sleep_for(2ms);
        CHECK(held.size() > 16 && held[0] == 'd');
    }
};

static job on_main(std::thread::id main, std::stop_token stop) {
    for (int i = 0; i < 20; i++) {
        const auto starter = [=](auto done, void *data) { return geo_lookup_later(i, i % 2, done, data); };
        CHECK(co_await geo::start<long>(result, starter, std::stop_token(), post()) == i);
        CHECK(std::this_thread::get_id() == main);
    }
    try {
        co_await geo::start<long>(result, geo_lookup_never, stop, post());
        CHECK(never_here("it never ends"));
    } catch (const geo::error &error) {
        CHECK(error.status() == UPCALL_TASK_CANCELLED && std::this_thread::get_id() == main);
    }
    ended.add();
}

static void with_executor() {
    std::stop_source source;
    for (int i = 0; i < 20; i++)
        on_main(std::this_thread::get_id(), source.get_token());
    for (int rounds = 0; ended.count() < 20; rounds++) {
        std::vector<std::coroutine_handle<>> ready;
        {
            const std::lock_guard held(lock);
            ready.swap(posted);
        }
        for (std::coroutine_handle<> coroutine : ready)
            coroutine.resume();
        std::this_thread::sleep_for(1ms);
        if (rounds == 100)
            source.request_stop();
    }
    no_task_runs();
}

/* ---- futures ---- */

static void futures() {
    std::vector<std::future<long>> values;
    for (long i = 0; i < 100; i++) {
        values.push_back(geo::future<long>(
            result, [=](auto done, void *data) { return geo_lookup_later(i, int(i % 3), done, data); }));
        values.push_back(
            geo::future<long>(result, [=](auto done, void *data) { return geo_lookup_now(i, done, data); }));
    }
    for (std::size_t i = 0; i < 100; i++)
        CHECK(values[2 * i].get() == long(i) && values[2 * i + 1].get() == long(i));
    geo::future<void>([](geo_task *task) { CHECK(result(task) == 2); },
                      [](auto done, void *data) { return geo_lookup_later(2, 1, done, data); })
        .get();
    const auto failing = [](auto done, void *data) { return geo_lookup_failing(1, done, data); };
    std::future<long> failed = geo::future<long>(result, failing);
    throws(UPCALL_TASK_FAILED, "no such place", [&] { failed.get(); });
    std::future<long> panicked = geo::future<long>(result, geo_lookup_panicking);
    throws(UPCALL_TASK_PANICKED, "lost the map", [&] { panicked.get(); });
    throws(-1, "no lookups today", [] { geo::future<long>(result, geo_lookup_refused); });
    for (int i = 0; i < 300; i++) {
        std::stop_source source;
        if (i % 3 == 0)
            source.request_stop();
        std::future<long> stopped = geo::future<long>(result, geo_lookup_never, source.get_token());
        source.request_stop();
        throws(UPCALL_TASK_CANCELLED, "cancelled", [&] { stopped.get(); });
    }
    /* A future without a wait. */
    { std::future<long> dropped = geo::future<long>(result, failing); }
    no_task_runs();
}

/* ---- tasks ---- */

static std::atomic<int> completions;

static void completed(void *, geo_task *, int) { completions++; }

static void tasks() {
    geo::task<long> soon(geo_lookup_later(6, 20, completed, nullptr), result);
    CHECK(soon.status() == UPCALL_TASK_RUNNING);
    CHECK(soon.wait_for(0s) == UPCALL_TASK_RUNNING && soon.wait_for(-1h) == UPCALL_TASK_RUNNING);
    CHECK(soon.wait_for(1us) == UPCALL_TASK_RUNNING);
    CHECK(soon.wait_for(std::chrono::hours::max()) == UPCALL_TASK_DONE);
    CHECK(soon.wait() == UPCALL_TASK_DONE && soon.get() == 6);
    throws(-1, "", [&] { soon.get(); });

    geo::task<long> first(geo_lookup_never(completed, nullptr), result);
    geo::task<long> moved = std::move(first);
    throws(-1, "", [&] { first.wait(); });
    CHECK(moved.raw() && !first.raw());
    moved.cancel();
    throws(UPCALL_TASK_CANCELLED, "cancelled", [&] { moved.get(); });

    const int base = 10;
    geo::task<long, std::function<long(geo_task *)>> adding(geo_lookup_now(6, completed, nullptr),
                                                           [&](geo_task *task) { return base + result(task); });
    CHECK(adding.get() == 16);
    throws(-1, "no lookups today", [] { geo::task<long>(geo_lookup_refused(completed, nullptr), result); });

    /* The destructor cancels, and `detach` does not. */
    { geo::task<long> dropped(geo_lookup_never(completed, nullptr), result); }
    no_task_runs();
    geo::task<long> detached(geo_lookup_later(6, 5, completed, nullptr), result);
    detached.detach();
    CHECK(geo_running() == 1 && !detached.raw());
    throws(-1, "", [&] { detached.status(); });
    no_task_runs();
    for (int i = 0; completions != 5; i++) {
        CHECK(i < 10000);
        std::this_thread::sleep_for(1ms);
    }
}

/* ---- objects ---- */

static void objects() {
    using place = geo::handle<geo_place, geo_place_free>;
    static_assert(sizeof(place) == sizeof(geo_place *));
    {
        place first(geo_place_new(4));
        place second = std::move(first);
        CHECK(!first && second && geo_alive() == 1);
        CHECK(geo::take_string<geo_text_free>(geo_place_name(second.get())) == "place 4");
        CHECK(geo_alive() == 1);
        second = place(geo_place_new(5));
        CHECK(geo_alive() == 1);
    }
    CHECK(geo_alive() == 0);
    CHECK(geo_panic("of geo") == -1 && geo::last_message() == "of geo" && map::last_message().empty());
    CHECK(map_panic("of map") == -1 && geo::message_elsewhere() == "of geo" && map::last_message() == "of map");
    throws(-1, "of geo", [] { geo::take_string<geo_text_free>(nullptr); });
    throws(-1, "of geo", [] { geo::check(-1); });
    throws(-3, "of geo", [] { geo::check(-3L); });
    CHECK(geo::check(7L) == 7);
    const std::string longer(5000, 'x');
    CHECK(geo_panic(longer.c_str()) == -1 && geo::last_message() == longer);
    static_assert(!std::is_same_v<geo::error, map::error>);
}

static void stacks() {
    static constexpr std::size_t size = 64 << 10;
    const std::unique_ptr<char[]> memory(new char[size]);
    {
        geo::registered_stack stack(memory.get(), size, "a stack");
        throws(-1, "", [&] { geo::registered_stack(memory.get() + 64, 64, nullptr); });
        /* The other library registers it, too. */
        const map::registered_stack other(memory.get(), size, "a stack");
        geo::registered_stack moved = std::move(stack);
        throws(-1, "", [&] { geo::registered_stack(memory.get(), size, nullptr); });
        moved.unregister();
        throws(-1, "", [&] { moved.unregister(); });
        const geo::registered_stack again(memory.get(), size, nullptr);
    }
    const geo::registered_stack again(memory.get(), size, nullptr);
    throws(-1, "", [] { geo::registered_stack(nullptr, 0, nullptr); });
}

/* ---- many threads ---- */

static std::atomic<int> values, cancellations;

/* Each await is resumed once: otherwise the counts differ, or the frame is used after its end. */
static job starts_many(std::stop_token stop, unsigned seed) {
    for (int i = 0; i < 50; i++) {
        seed = seed * 1103515245 + 12345;
        try {
            const int milliseconds = int(seed >> 16) % 3;
            const long value = co_await later(i, milliseconds, stop);
            CHECK(value == i);
            values++;
        } catch (const geo::error &error) {
            CHECK(error.status() == UPCALL_TASK_CANCELLED);
            cancellations++;
        }
    }
    ended.add();
}

static void on_threads() {
    constexpr int threads = 8, jobs = 20;
    std::vector<std::jthread> all;
    for (unsigned t = 0; t < threads; t++) {
        all.emplace_back([=] {
            std::vector<std::stop_source> sources(jobs);
            for (unsigned j = 0; j < jobs; j++)
                starts_many(sources[j].get_token(), t * jobs + j);
            for (unsigned j = 0; j < jobs; j++) {
                if (j % 2)
                    std::this_thread::sleep_for(3ms);
                sources[j].request_stop();
            }
        });
    }
    all.clear();
    ended.wait_for(threads * jobs);
    CHECK(values + cancellations == threads * jobs * 50 && values > 0 && cancellations > 0);
    no_task_runs();
    std::printf("%d values, %d cancellations\n", values.load(), cancellations.load());
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)();
    } cases[] = {
        {"at_once", at_once},
        {"in_time", in_time},
        {"errors", errors},
        {"stopped_before", stopped_before},
        {"stopped_by_starter", stopped_by_starter},
        {"stopped_during", stopped_during},
        {"stopped_at_the_end", stopped_at_the_end},
        {"stopped_after", stopped_after},
        {"abandoned", abandoned},
        {"abandoned_on_worker", abandoned_on_worker},
        {"with_executor", with_executor},
        {"futures", futures},
        {"tasks", tasks},
        {"objects", objects},
        {"stacks", stacks},
        {"on_threads", on_threads},
    };
    for (const auto &one : cases) {
        if (argc == 2 && std::strcmp(one.name, argv[1]) == 0) {
            one.run();
            return 0;
        }
    }
    std::fprintf(stderr, "usage: %s CASE\n", argv[0]);
    return 2;
}
