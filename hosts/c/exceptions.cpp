/* C++ exceptions stay below downcalls: none enters Rust, and no panic enters C++. */
#include "host.h"

#include <exception>
#include <stdexcept>
#include <string>

typedef int (*entry)(guest_callback, void *);

/* The ways to have Rust call a callback that lets no exception out. */
static const entry calls[] = {
    guest_call,      guest_call_pooled,      guest_call_caller,     guest_call_plain,
    guest_unwinding, guest_unwinding_pooled, guest_unwinding_plain, guest_unwinding_plain_pooled,
    guest_unwinding_in_fiber, guest_unwinding_on_fiber, guest_call_in_fiber,
};

struct counted {
    static int alive;
    counted() { alive++; }
    ~counted() { alive--; }
};

int counted::alive;

static void in_place_and_on_coroutine(void (*body)()) {
    body();
    struct coroutine c;
    struct memory stack = memory_new(GUARDED, 256 << 10);
    coroutine_init(
        &c, stack.base, stack.size, [](struct coroutine *, void *body) { reinterpret_cast<void (*)()>(body)(); },
        reinterpret_cast<void *>(body));
    coroutine_resume(&c);
    CHECK(c.done);
    memory_free(stack);
    CHECK(counted::alive == 0 && std::uncaught_exceptions() == 0 && guest_open_calls() == 0);
}

/* ---- thrown and caught in C++ ---- */

static void throw_deep(int depth) {
    counted here;
    if (depth == 0)
        throw std::runtime_error("from deep down");
    throw_deep(depth - 1);
}

static int catch_below(void *number) {
    for (int depth = 0; depth < 10; depth++) {
        try {
            throw_deep(depth);
            CHECK(false);
        } catch (const std::runtime_error &error) {
            CHECK(std::string(error.what()) == "from deep down" && counted::alive == 0);
            CHECK(guest_increment(depth) == depth + 1);
        }
    }
    return *static_cast<int *>(number);
}

static void caught_below() {
    in_place_and_on_coroutine([] {
        for (entry call : calls) {
            int number = 5;
            CHECK(call(catch_below, &number) == 5);
        }
    });
}

/* Rust calls C++ code that throws and catches, while another exception is being handled or unwinds
 * through destructors. */
struct calls_rust {
    entry call;
    ~calls_rust() {
        int number = 6;
        CHECK(std::uncaught_exceptions() == 1);
        CHECK(call(catch_below, &number) == 6);
        CHECK(guest_panic("while C++ unwinds") == -1 && last_panic_says("while C++ unwinds"));
        CHECK(std::uncaught_exceptions() == 1);
    }
};

static void across_upcalls() {
    in_place_and_on_coroutine([] {
        for (entry call : calls) {
            int caught = 0;
            try {
                try {
                    calls_rust destructor{call};
                    throw_deep(3);
                } catch (const std::exception &error) {
                    int number = 7;
                    CHECK(call(catch_below, &number) == 7);
                    CHECK(std::string(error.what()) == "from deep down");
                    throw;
                }
            } catch (const std::runtime_error &error) {
                CHECK(std::string(error.what()) == "from deep down");
                caught++;
            }
            CHECK(caught == 1);
        }
    });
}

/* ---- panics ---- */

static int panic_in_try(void *text) {
    try {
        counted here;
        CHECK(guest_panic(static_cast<char *>(text)) == -1);
        return 8;
    } catch (...) {
        CHECK(false);
    }
}

/* If a downcall encloses the panic, the panic continues there, and the upcall outside catches
 * it. */
static int catches_nothing(void *text) {
    for (entry call : calls) {
        try {
            int plain = call == guest_call_plain || call == guest_unwinding_plain || call == guest_unwinding_plain_pooled;
            CHECK(call(panic_in_try, text) == (plain ? 8 : -1) && last_panic_says(static_cast<char *>(text)));
        } catch (...) {
            CHECK(false);
        }
    }
    return 9;
}

static char text[] = "a panic";

static void panics() {
    in_place_and_on_coroutine([] {
        char message[32];
        CHECK(guest_catch(panic_in_try, text, message, sizeof message) == -2 && std::string(message) == text);
    });
    CHECK(panic_in_try(text) == 8 && catches_nothing(text) == 9);
}

/* ---- exceptions reaching Rust: upcall aborts ---- */

static int throw_it(void *warm) {
    if (!warm)
        throw std::runtime_error("to Rust");
    return 1;
}

/* A thread's first call takes another path, so make one before the test. */
static void throw_to(entry call) {
    CHECK(call(throw_it, text) == 1);
    try {
        call(throw_it, nullptr);
    } catch (...) {
        fprintf(stderr, "it came out\n");
    }
    CHECK(false);
}

static void throw_on_coroutine() {
    in_place_and_on_coroutine([] { throw_to(guest_unwinding); });
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"caught_below", caught_below},
        {"across_upcalls", across_upcalls},
        {"panics", panics},
        {"reaches_downcall", [] { throw_to(guest_unwinding); }},
        {"reaches_downcall_from_pooled", [] { throw_to(guest_unwinding_pooled); }},
        {"reaches_upcall", [] { throw_to(guest_unwinding_plain); }},
        {"reaches_pooled_upcall", [] { throw_to(guest_unwinding_plain_pooled); }},
        {"reaches_fiber", [] { throw_to(guest_unwinding_in_fiber); }},
        {"reaches_downcall_on_fiber", [] { throw_to(guest_unwinding_on_fiber); }},
        {"reaches_coroutine", throw_on_coroutine},
        {"not_declared", [] { throw_to(guest_call); }},
        {"not_declared_pooled", [] { throw_to(guest_call_pooled); }},
        {"not_declared_in_upcall", [] { throw_to(guest_call_plain); }},
        {"not_declared_in_fiber", [] { throw_to(guest_call_in_fiber); }},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
