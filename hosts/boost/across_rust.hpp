/* Takes a C++ exception past Rust, through which none may unwind: what is thrown in a callback under Rust is thrown again where C++ called Rust.
 *
 * Boost needs this for a coroutine that is destroyed while it is suspended under Rust: it ends the coroutine by an exception, thrown in the callback.
 */
#ifndef UPCALL_ACROSS_RUST_HPP
#define UPCALL_ACROSS_RUST_HPP

#include <exception>
#include <utility>

namespace upcall {

class across_rust {
    std::exception_ptr exception;

  public:
    /* In the callback: runs `body`. If that throws, Rust gets `failed`, and should return. */
    template <class Result, class Body> Result below(Result failed, Body body) noexcept {
        try {
            return body();
        } catch (...) {
            exception = std::current_exception();
            return failed;
        }
    }

    /* Where C++ called Rust, when Rust has returned. */
    void above() {
        if (exception)
            std::rethrow_exception(std::exchange(exception, nullptr));
    }
};

} // namespace upcall

#endif
