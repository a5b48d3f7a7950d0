/* Carries a C++ exception past Rust frames, which no exception may unwind.
 *
 * An exception thrown in a callback under Rust is caught there, and thrown again where C++ called
 * Rust. Boost needs this when it destroys a coroutine suspended under Rust: it ends the coroutine
 * by an exception, thrown in the callback.
 */
#ifndef UPCALL_ACROSS_RUST_HPP
#define UPCALL_ACROSS_RUST_HPP

#include <exception>
#include <utility>

namespace upcall {

class across_rust {
    std::exception_ptr exception;

  public:
    /* For the callback: runs `body`. If it throws, returns `failed`, and Rust should then
     * return. */
    template <class Result, class Body> Result below(Result failed, Body body) noexcept {
        try {
            return body();
        } catch (...) {
            exception = std::current_exception();
            return failed;
        }
    }

    /* For the caller of Rust, after Rust has returned: throws the exception again, if there is
     * one. */
    void above() {
        if (exception)
            std::rethrow_exception(std::exchange(exception, nullptr));
    }
};

} // namespace upcall

#endif
