/* Boost.Context: its three ways to switch stacks, each in the middle of calls of Rust. */
#include "../../c/host.h"

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <boost/context/continuation.hpp>
#include <boost/context/detail/fcontext.hpp>
#include <boost/context/fiber.hpp>
#include <boost/context/pooled_fixedsize_stack.hpp>

#include "across_rust.hpp"
#include "registered_stack.hpp"

namespace context = boost::context;

/* ---- one interface to the three ways ---- */

struct switching {
    std::function<void(switching &)> body;
    bool done = false;
    explicit switching(std::function<void(switching &)> body) : body(std::move(body)) {}
    virtual ~switching() = default;
    virtual void resume() = 0;
    virtual void yield() = 0;
};

struct with_fiber : switching {
    context::fiber self, resumer;
    template <class Stack>
    with_fiber(Stack stack, std::function<void(switching &)> body)
        : switching(std::move(body)), self(std::allocator_arg, stack, [this](context::fiber &&from) {
              resumer = std::move(from);
              this->body(*this);
              done = true;
              return std::move(resumer);
          }) {}
    void resume() override { self = std::move(self).resume(); }
    void yield() override { resumer = std::move(resumer).resume(); }
};

/* callcc runs the beginning at once, so the first resume starts the second part. */
struct with_callcc : switching {
    context::continuation self, resumer;
    with_callcc(size_t size, std::function<void(switching &)> body) : switching(std::move(body)) {
        self = context::callcc(std::allocator_arg, context::fixedsize_stack(size), [this](context::continuation &&from) {
            resumer = from.resume();
            this->body(*this);
            done = true;
            return std::move(resumer);
        });
    }
    void resume() override { self = self.resume(); }
    void yield() override { resumer = resumer.resume(); }
};

struct with_fcontext : switching {
    std::unique_ptr<char[]> stack;
    context::detail::fcontext_t self, resumer = nullptr;
    with_fcontext(size_t size, std::function<void(switching &)> body) : switching(std::move(body)), stack(new char[size]) {
        self = context::detail::make_fcontext(stack.get() + size, size, [](context::detail::transfer_t from) {
            auto &me = *static_cast<with_fcontext *>(from.data);
            me.resumer = from.fctx;
            me.body(me);
            me.done = true;
            me.yield();
        });
    }
    void resume() override { self = context::detail::jump_fcontext(self, this).fctx; }
    void yield() override { resumer = context::detail::jump_fcontext(resumer, nullptr).fctx; }
};

static std::unique_ptr<switching> any(size_t i, size_t size, std::function<void(switching &)> body) {
    switch (i % 3) {
    case 0: return std::make_unique<with_fiber>(context::fixedsize_stack(size), std::move(body));
    case 1: return std::make_unique<with_callcc>(size, std::move(body));
    default: return std::make_unique<with_fcontext>(size, std::move(body));
    }
}

/* ---- suspended under Rust ---- */

typedef int (*entry)(guest_callback, void *);
static const entry calls[] = {guest_call, guest_call_pooled, guest_call_caller, guest_call_plain};

static int yields(void *c) {
    static_cast<switching *>(c)->yield();
    return 7;
}

struct twice {
    entry inner;
    switching *c;
};

static int calls_and_yields(void *argument) {
    auto &twice = *static_cast<struct twice *>(argument);
    return twice.inner(yields, twice.c) + (yields(twice.c), 1);
}

/* Suspends twice: below two calls of Rust, and then below one. */
static void suspends_in_calls(size_t i, switching &c) {
    twice twice = {calls[i / 3 % 4], &c};
    CHECK(calls[i / 12 % 4](calls_and_yields, &twice) == 8);
    CHECK(guest_increment(i) == static_cast<int>(i) + 1);
}

static void in_order(size_t count, size_t size, size_t stride) {
    std::vector<std::unique_ptr<switching>> all;
    for (size_t i = 0; i < count; i++) {
        all.push_back(any(i, size, [i](switching &c) { suspends_in_calls(i, c); }));
        all.back()->resume();
    }
    for (int round = 0; round < 2; round++)
        for (size_t i = 0; i < count; i++)
            all[i * stride % count]->resume();
    for (auto &each : all)
        CHECK(each->done);
    CHECK(guest_open_calls() == 0 && guest_stacks_in_use() <= 64);
}

static void any_order() {
    for (size_t stride : {1, 239, 7}) /* first-in first-out, last-in first-out, mixed */
        in_order(240, 64 << 10, stride);
}

static void ten_thousand() { in_order(10000, 16 << 10, 7919); }

/* Boost runs a function on top of a context suspended under Rust. A panic in that function is
 * raised at the context's downcall, when the context continues. */
static void on_top() {
    with_fiber c(context::fixedsize_stack(), [](switching &c) {
        for (entry call : calls)
            CHECK(call(yields, &c) == (call == guest_call_plain ? 7 : -1));
    });
    c.resume();
    for (int i = 0; i < 4; i++)
        c.self = std::move(c.self).resume_with([](context::fiber &&from) {
            CHECK(guest_increment(1) == 2);
            CHECK(guest_panic("on top") == -1 && last_panic_says("on top"));
            return std::move(from);
        });
    CHECK(c.done && guest_open_calls() == 0);
}

/* ---- exceptions and panics ---- */

static int throws_and_catches(void *c) {
    try {
        yields(c);
        throw std::runtime_error("below Rust");
    } catch (const std::runtime_error &error) {
        CHECK(std::string(error.what()) == "below Rust");
        return 6;
    }
}

static int panics(void *c) {
    yields(c);
    return guest_panic("after a switch");
}

static void exceptions_and_panics() {
    std::vector<std::unique_ptr<switching>> all;
    for (size_t i = 0; i < 12; i++) {
        all.push_back(any(i, 64 << 10, [i](switching &c) {
            char message[32];
            CHECK(calls[i / 3](throws_and_catches, &c) == 6);
            CHECK(guest_catch(panics, &c, message, sizeof message) == -2 && std::string(message) == "after a switch");
        }));
    }
    for (int round = 0; round < 3; round++)
        for (auto &each : all)
            each->resume();
    for (auto &each : all)
        CHECK(each->done);
}

/* ---- destroyed while suspended under Rust: Boost unwinds the stack ---- */

static int alive;
struct counted {
    counted() { alive++; }
    ~counted() { alive--; }
};

static void destroyed() {
    with_fiber c(context::fixedsize_stack(), [](switching &c) { guest_unwinding(yields, &c); });
    c.resume();
}

struct passage {
    switching *c;
    upcall::across_rust exception;
};

static int yields_below(void *argument) {
    auto &passage = *static_cast<struct passage *>(argument);
    return passage.exception.below(-1, [&] {
        counted below;
        return yields(passage.c);
    });
}

static void destroyed_across_rust() {
    for (entry call : calls) {
        {
            with_fiber c(upcall::registered_stack<>(), [call](switching &c) {
                counted above;
                passage passage = {&c, {}};
                CHECK(call(yields_below, &passage) == -1);
                passage.exception.above();
                CHECK(!"came here");
            });
            c.resume();
            CHECK(alive == 2);
        }
        CHECK(alive == 0 && guest_open_calls() == 0 && guest_increment(1) == 2);
    }
}

/* ---- registered stacks ---- */

template <class Allocator> static void registered_by(size_t size, bool in_place) {
    for (int i = 0; i < 100; i++) {
        with_fiber c(upcall::registered_stack<Allocator>(size), [&](switching &c) {
            struct guest_where here, outside;
            guest_bounds(&outside);
            CHECK(outside.exact && !outside.own && within(outside.low, outside.high, &here));
            CHECK(outside.high - outside.low >= size && outside.high - outside.low < size + 4096);
            CHECK(guest_where(&here) == 0 && within(outside.low, outside.high, (void *)here.sp) == in_place);
            /* All of it is usable: the bounds exclude the guard page. */
            *(volatile char *)outside.low = 1;
            CHECK(guest_call(yields, &c) == 7);
        });
        c.resume();
        c.resume();
        CHECK(c.done);
    }
}

static void registered() {
    registered_by<context::protected_fixedsize_stack>(512 << 10, true);
    registered_by<context::fixedsize_stack>(512 << 10, true);
    registered_by<context::pooled_fixedsize_stack>(512 << 10, true);
    registered_by<context::protected_fixedsize_stack>(64 << 10, false);
}

/* An allocator with one stack, allocated before. */
struct given {
    context::stack_context stack;
    context::stack_context allocate() { return stack; }
    void deallocate(context::stack_context &) noexcept {}
};

/* A deallocated stack is unregistered. A stack in use stays registered. */
static void deallocated() {
    upcall::registered_stack<> allocator;
    for (int i = 0; i < 1000; i++) {
        auto stack = allocator.allocate();
        char *low = static_cast<char *>(stack.sp) - stack.size + 4096;
        CHECK(upcall_stack_register(low, 4096, "again") == -1);
        if (i % 100 == 0) {
            with_fiber c(given{stack}, [](switching &c) { CHECK(guest_call(yields, &c) == 7); });
            c.resume();
            allocator.deallocate(stack);
            CHECK(last_panic_says("the registered stack \"Boost's\", ") && last_panic_says("is in use"));
            c.resume();
            CHECK(c.done);
        }
        allocator.deallocate(stack);
        CHECK(upcall_stack_unregister(low) == -1 && guest_open_calls() == 0);
    }
}

/* ---- resumed on another thread ---- */

static void moved() {
    pthread_setname_np(pthread_self(), "first");
    with_fiber c(upcall::registered_stack<>(), [](switching &c) { guest_moving(yields, &c); });
    c.resume();
    std::thread([&] {
        pthread_setname_np(pthread_self(), "second");
        c.resume();
    }).join();
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"any_order", any_order},
        {"ten_thousand", ten_thousand},
        {"on_top", on_top},
        {"exceptions_and_panics", exceptions_and_panics},
        {"destroyed", destroyed},
        {"destroyed_across_rust", destroyed_across_rust},
        {"registered", registered},
        {"deallocated", deallocated},
        {"moved", moved},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
