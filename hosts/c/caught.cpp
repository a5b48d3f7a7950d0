/* C++ exceptions on fibers: each fiber has its own, both those being handled and those in
 * flight. */
#include "host.h"

#include <exception>
#include <string>
#include <vector>

/* Counts the live objects. */
struct error {
    static int alive;
    std::string text;
    explicit error(std::string text) : text(std::move(text)) { __atomic_fetch_add(&alive, 1, __ATOMIC_RELAXED); }
    error(const error &other) : error(other.text) {}
    ~error() { __atomic_fetch_sub(&alive, 1, __ATOMIC_RELAXED); }
};

int error::alive;

static bool none_here() { return std::uncaught_exceptions() == 0 && !std::current_exception(); }

/* Returns the text of the exception being handled, found by rethrowing it. */
static std::string thrown_again() {
    try {
        throw;
    } catch (const error &again) {
        return again.text;
    }
}

static std::string current() {
    try {
        std::rethrow_exception(std::current_exception());
    } catch (const error &again) {
        return again.text;
    }
}

/* Waits inside `depth` nested handlers. */
static void nested(const std::string &name, int depth) {
    if (depth == 0)
        return;
    const std::string text = name + " at " + std::to_string(depth);
    try {
        throw error(text);
    } catch (const error &caught) {
        CHECK(guest_yield() == 0);
        CHECK(caught.text == text && thrown_again() == text && current() == text);
        nested(name, depth - 1);
        CHECK(guest_yield() == 0);
        CHECK(caught.text == text && thrown_again() == text && current() == text);
    }
}

static int handles(void *number) {
    const std::string name = "fiber " + std::to_string(*static_cast<int *>(number));
    CHECK(none_here());
    for (int depth = 1; depth <= 4; depth++)
        nested(name, depth);
    CHECK(guest_yield() == 0);
    CHECK(none_here());
    return 1;
}

/* Waits in a destructor while an exception is in flight, and again in a nested one. */
struct waits {
    int depth;
    ~waits() {
        int uncaught = std::uncaught_exceptions();
        CHECK(guest_yield() == 0);
        CHECK(std::uncaught_exceptions() == uncaught);
        if (depth > 0) {
            try {
                waits deeper{depth - 1};
                throw error("deeper");
            } catch (const error &caught) {
                CHECK(guest_yield() == 0);
                CHECK(caught.text == "deeper" && std::uncaught_exceptions() == uncaught);
            }
        }
        CHECK(guest_yield() == 0);
        CHECK(std::uncaught_exceptions() == uncaught);
    }
};

static int unwinds(void *number) {
    const int depth = *static_cast<int *>(number) % 3;
    CHECK(none_here());
    try {
        waits here{depth};
        throw error("on its way");
    } catch (const error &caught) {
        CHECK(caught.text == "on its way" && std::uncaught_exceptions() == 0);
    }
    CHECK(none_here());
    return 1;
}

static int numbers[] = {0, 1, 2, 3, 4, 5, 6};

/* Spawns fibers of the thread's runtime, one for each number and body. */
static std::vector<guest_fiber *> spawned(std::vector<guest_callback> bodies) {
    std::vector<guest_fiber *> fibers;
    for (int &number : numbers)
        for (guest_callback body : bodies)
            fibers.push_back(guest_spawn_local(body, &number));
    return fibers;
}

static void joined(const std::vector<guest_fiber *> &fibers) {
    for (guest_fiber *fiber : fibers)
        CHECK(guest_join(fiber) == 1);
}

static void on_local_fibers(std::vector<guest_callback> bodies) {
    CHECK(upcall_local_begin() == 0);
    joined(spawned(bodies));
    CHECK(upcall_local_end() == 0);
    CHECK(none_here() && error::alive == 0);
}

static void in_handlers() { on_local_fibers({handles}); }
static void in_destructors() { on_local_fibers({unwinds}); }
static void in_both() { on_local_fibers({handles, unwinds}); }

/* ---- places from which fibers are resumed ---- */

/* Runs a few steps of the fibers. */
static void resume() { CHECK(upcall_local_run_ready(5) <= 5); }

struct resumes {
    ~resumes() {
        CHECK(std::uncaught_exceptions() == 1);
        resume();
        CHECK(std::uncaught_exceptions() == 1);
    }
};

/* Resumes fibers from code without exceptions, from handlers and from a destructor, in turn,
 * different fibers each time. */
static void by_others() {
    CHECK(upcall_local_begin() == 0);
    std::vector<guest_fiber *> fibers = spawned({handles, unwinds});
    for (int i = 0; i < 10; i++) {
        resume();
        CHECK(none_here());
        try {
            resumes here;
            throw error("the host's");
        } catch (const error &caught) {
            resume();
            CHECK(thrown_again() == "the host's" && current() == "the host's");
            try {
                throw error("another of the host's");
            } catch (const error &inner) {
                resume();
                CHECK(inner.text == "another of the host's" && thrown_again() == inner.text);
            }
            CHECK(caught.text == "the host's" && thrown_again() == caught.text);
        }
        CHECK(none_here());
    }
    try {
        throw error("the host's last");
    } catch (const error &caught) {
        joined(fibers);
        CHECK(thrown_again() == "the host's last" && caught.text == "the host's last");
    }
    CHECK(upcall_local_end() == 0);
    CHECK(none_here() && error::alive == 0);
}

/* Polls another fiber by a wait inside a handler. */
static int polls(void *number) {
    try {
        throw error("the poller's");
    } catch (const error &caught) {
        CHECK(guest_unwinding_on_fiber(handles, number) == 1);
        CHECK(thrown_again() == "the poller's");
        CHECK(guest_unwinding_on_fiber(unwinds, number) == 1);
        CHECK(caught.text == "the poller's" && current() == "the poller's");
    }
    return 1;
}

static void by_fibers() { on_local_fibers({polls, handles}); }

/* ---- the end of a fiber ---- */

static int waits_for_ever(void *channel) {
    struct on_return {
        ~on_return() { CHECK(std::uncaught_exceptions() == 0); }
    } here;
    try {
        throw error("never thrown again");
    } catch (const error &caught) {
        try {
            throw error("nor this one");
        } catch (const error &) {
            CHECK(guest_receive(static_cast<guest_channel *>(channel)) == -1);
            CHECK(thrown_again() == "nor this one");
        }
        CHECK(caught.text == "never thrown again" && thrown_again() == caught.text);
    }
    return 0;
}

/* Fibers cancelled inside handlers: C++ continues to its end, with its own exceptions. */
static void cancelled() {
    CHECK(upcall_local_begin() == 0);
    guest_channel *channel = guest_channel_new(1);
    guest_fiber *fibers[4];
    for (guest_fiber *&fiber : fibers)
        fiber = guest_spawn_local(waits_for_ever, channel);
    upcall_local_run_ready(SIZE_MAX);
    CHECK(none_here() && error::alive == 8);
    guest_abort(fibers[2]);
    upcall_local_run_ready(SIZE_MAX);
    CHECK(error::alive == 6 && none_here());
    try {
        throw error("the host's");
    } catch (const error &caught) {
        guest_abort(fibers[0]);
        upcall_local_run_ready(SIZE_MAX);
        CHECK(error::alive == 5 && thrown_again() == "the host's");
        for (guest_fiber *fiber : fibers)
            guest_detach(fiber);
        CHECK(upcall_local_end() == 0);
        CHECK(error::alive == 1 && thrown_again() == caught.text);
    }
    guest_channel_free(channel);
    CHECK(none_here() && error::alive == 0);
}

/* ---- threads ---- */

static void on_workers() {
    std::vector<guest_fiber *> fibers;
    for (int turn = 0; turn < 20; turn++) {
        for (int &number : numbers) {
            fibers.push_back(guest_spawn_on_fiber("handles", handles, &number));
            fibers.push_back(guest_spawn_on_fiber("unwinds", unwinds, &number));
        }
    }
    try {
        throw error("the joiner's");
    } catch (const error &) {
        joined(fibers);
        CHECK(thrown_again() == "the joiner's");
    }
    CHECK(none_here() && error::alive == 0);
}

static void *thread(void *) {
    on_local_fibers({handles, unwinds});
    return nullptr;
}

static void on_threads() {
    for (int i = 0; i < 20; i++)
        on_thread(nullptr, 0, thread, nullptr);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"in_handlers", in_handlers},
        {"in_destructors", in_destructors},
        {"in_both", in_both},
        {"by_others", by_others},
        {"by_fibers", by_fibers},
        {"cancelled", cancelled},
        {"on_workers", on_workers},
        {"on_threads", on_threads},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
