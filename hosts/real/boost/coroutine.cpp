/* Boost.Coroutine2: generators and sinks. Their bodies call Rust, and are suspended in callbacks
 * under it. */
#include "../../c/host.h"

#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <boost/coroutine2/all.hpp>

#include "across_rust.hpp"
#include "registered_stack.hpp"

typedef boost::coroutines2::coroutine<int> numbers;
typedef int (*entry)(guest_callback, void *);
static const entry calls[] = {guest_call, guest_call_pooled, guest_call_caller, guest_call_plain};

static int alive;
struct counted {
    counted() { alive++; }
    ~counted() { alive--; }
};

/* ---- a tree, walked through Rust at every node; each leaf is handed out ---- */

struct walk {
    numbers::push_type &sink;
    int depth, leaf;
};

static int walk_node(void *argument) {
    auto &node = *static_cast<walk *>(argument);
    if (node.depth == 0) {
        node.sink(node.leaf);
        return 1;
    }
    int leaves = 0;
    for (int side = 0; side < 2; side++) {
        walk child = {node.sink, node.depth - 1, node.leaf * 2 + side};
        leaves += calls[child.leaf % 4](walk_node, &child);
    }
    return leaves;
}

static auto tree(int depth) {
    return [depth](numbers::push_type &sink) {
        walk root = {sink, depth, 0};
        CHECK(walk_node(&root) == 1 << depth);
    };
}

static void same_fringe() {
    upcall::registered_stack<> large(256 << 10);
    numbers::pull_type left(tree(9)), right(large, tree(9));
    int leaf = 0;
    for (; left && right; left(), right(), leaf++)
        CHECK(left.get() == leaf && right.get() == leaf);
    CHECK(!left && !right && leaf == 512 && guest_open_calls() == 0);
}

/* ---- a hundred generators, in any order ---- */

static void any_order() {
    std::mt19937 random(5);
    std::vector<numbers::pull_type> sources;
    std::vector<int> next(100);
    for (int i = 0; i < 100; i++)
        sources.emplace_back(tree(5));
    for (size_t left = sources.size(); left;) {
        size_t i = random() % sources.size();
        if (!sources[i])
            continue;
        CHECK(sources[i].get() == next[i]++);
        sources[i]();
        left -= !sources[i];
    }
    for (int count : next)
        CHECK(count == 32);
    CHECK(guest_open_calls() == 0);
}

/* ---- sinks pulling under Rust ---- */

struct sum {
    numbers::pull_type &source;
    int total = 0;
};

static int add_100(void *argument) {
    auto &sum = *static_cast<struct sum *>(argument);
    for (int n = 1;; n++, sum.source()) {
        sum.total = guest_increment(sum.total + sum.source.get() - 1);
        if (n == 100)
            return 0;
    }
}

static void sinks() {
    std::vector<numbers::push_type> all;
    int totals[4] = {};
    for (int i = 0; i < 4; i++)
        all.emplace_back([i, &totals](numbers::pull_type &source) {
            sum sum = {source};
            CHECK(calls[i](add_100, &sum) == 0);
            totals[i] = sum.total;
        });
    for (int n = 1; n <= 100; n++)
        for (auto &sink : all)
            sink(n);
    for (int i = 0; i < 4; i++)
        CHECK(!all[i] && totals[i] == 5050);
}

/* ---- exceptions ---- */

struct throwing {
    numbers::push_type &sink;
    upcall::across_rust exception;
};

static int throws(void *argument) {
    auto &throwing = *static_cast<struct throwing *>(argument);
    return throwing.exception.below(-1, [&] {
        counted below;
        try {
            throwing.sink(1);
            throw std::runtime_error("caught below Rust");
        } catch (const std::runtime_error &) {
            throwing.sink(2);
        }
        throw std::runtime_error("on its way out");
        return 0;
    });
}

static auto thrower(entry call) {
    return [call](numbers::push_type &sink) {
        counted above;
        throwing throwing = {sink, {}};
        CHECK(call(throws, &throwing) == -1);
        throwing.exception.above();
    };
}

/* Exceptions caught under Rust, and exceptions carried past Rust to the resumer of the
 * coroutine. */
static void exceptions() {
    for (entry call : calls) {
        numbers::pull_type source(thrower(call));
        CHECK(source.get() == 1);
        source();
        CHECK(source.get() == 2 && alive == 2);
        try {
            source();
            CHECK(!"came here");
        } catch (const std::runtime_error &error) {
            CHECK(std::string(error.what()) == "on its way out");
        }
        CHECK(alive == 0 && guest_open_calls() == 0);
    }
}

/* ---- coroutines destroyed in the middle ---- */

static void destroyed_across_rust() {
    for (entry call : calls) {
        {
            numbers::pull_type source(thrower(call));
            CHECK(source.get() == 1 && alive == 2);
        }
        CHECK(alive == 0 && guest_open_calls() == 0 && guest_increment(1) == 2);
    }
}

static int pushes(void *sink) {
    (*static_cast<numbers::push_type *>(sink))(1);
    return 0;
}

template <entry call> static void destroyed() {
    numbers::pull_type source([](numbers::push_type &sink) { call(pushes, &sink); });
    CHECK(source.get() == 1);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"same_fringe", same_fringe},
        {"any_order", any_order},
        {"sinks", sinks},
        {"exceptions", exceptions},
        {"destroyed_across_rust", destroyed_across_rust},
        {"destroyed", destroyed<guest_unwinding>},
        {"destroyed_pooled", destroyed<guest_unwinding_pooled>},
        {"destroyed_in_upcall", destroyed<guest_unwinding_plain>},
        {"destroyed_not_declared", destroyed<guest_call>},
        {"destroyed_not_declared_pooled", destroyed<guest_call_pooled>},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
