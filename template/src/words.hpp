/* The C++20 side of {{crate_name}}.h: objects that free themselves, errors as exceptions, and a
 * fetch that a coroutine awaits. */
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "{{crate_name}}.h"
#include "{{crate_name}}_upcall.hpp"

namespace {{crate_name}} {

/** A table of counted words. */
class words {
  public:
    words() : raw_({{crate_name}}_new()) {
        if (!raw_)
            throw error(UPCALL_ERROR);
    }

    /** Counts the words of a text. Returns their number. */
    std::size_t add(const std::string &text) {
        std::size_t added = 0;
        check({{crate_name}}_add(raw_.get(), text.c_str(), &added));
        return added;
    }

    /** Counts the words of a file. Returns their number. */
    std::size_t add_file(const std::string &path) {
        std::size_t added = 0;
        check({{crate_name}}_add_file(raw_.get(), path.c_str(), &added));
        return added;
    }

    /** Returns how often a word was counted. */
    std::uint64_t count(const std::string &word) const {
        std::uint64_t count = 0;
        check({{crate_name}}_count(raw_.get(), word.c_str(), &count));
        return count;
    }

    /** Returns the word counted most often. */
    std::string most_common() const {
        return take_string<{{crate_name}}_memory_free>({{crate_name}}_most_common(raw_.get()));
    }

    /** Returns all words with their counts. */
    std::map<std::string, std::uint64_t> all() const {
        const handle<{{crate_name}}_iterator, {{crate_name}}_iterator_free> iterator({{crate_name}}_iterate(raw_.get()));
        std::map<std::string, std::uint64_t> all;
        const char *word = nullptr;
        std::uint64_t count = 0;
        while (check({{crate_name}}_iterator_next(iterator.get(), &word, &count)) == 1)
            all[word] = count;
        return all;
    }

    /** Fetches a page and counts its words: `co_await words.fetch(server, path)`. A request to stop
     * cancels it. The table outlives the wait. */
    auto fetch(std::string server, std::string path, std::stop_token stop = {}) {
        return start<std::size_t>(
            [raw = raw_.get()]({{crate_name}}_task *task) {
                std::size_t added = 0;
                check({{crate_name}}_fetched(raw, task, &added));
                return added;
            },
            [server = std::move(server), path = std::move(path)](completion done, void *data) {
                return {{crate_name}}_fetch(server.c_str(), path.c_str(), 5000, done, data);
            },
            std::move(stop));
    }

  private:
    handle<{{crate_name}}_words, {{crate_name}}_free> raw_;
};

} // namespace {{crate_name}}
