// Counts the words of a text, of files, and of a page: main [--fetch SERVER PATH] FILES
#include <coroutine>
#include <exception>
#include <iomanip>
#include <iostream>

#include "{{crate_name}}.hpp"

// A coroutine that begins at once, and whose end `wait` waits for.
class job {
  public:
    struct promise_type {
        std::promise<void> ended;

        job get_return_object() { return job(ended.get_future()); }
        std::suspend_never initial_suspend() noexcept { return {}; }
        std::suspend_never final_suspend() noexcept { return {}; }
        void return_void() { ended.set_value(); }
        void unhandled_exception() { ended.set_exception(std::current_exception()); }
    };

    void wait() { ended_.get(); }

  private:
    explicit job(std::future<void> ended) : ended_(std::move(ended)) {}

    std::future<void> ended_;
};

static job fetch({{crate_name}}::words &words, std::string server, std::string path) {
    co_await words.fetch(std::move(server), std::move(path));
}

int main(int argc, char **argv) try {
    {{crate_name}}::words words;
    words.add("the cat and the dog");
    int first = 1;
    if (argc > 3 && std::string(argv[1]) == "--fetch") {
        fetch(words, argv[2], argv[3]).wait();
        first = 4;
    }
    for (int i = first; i < argc; i++)
        words.add_file(argv[i]);
    std::uint64_t all = 0;
    for (const auto &[word, count] : words.all()) {
        std::cout << std::setw(4) << count << ' ' << word << '\n';
        all += count;
    }
    std::cout << std::setw(4) << all << " words in all\n";
    const std::string most_common = words.most_common();
    std::cout << '"' << most_common << "\" most often, " << words.count(most_common) << " times of " << all << '\n';
} catch (const std::exception &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
