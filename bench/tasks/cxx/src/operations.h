/* The type of the futures, for the bridge.
 *
 * This is what cxx-async's CXXASYNC_DEFINE_FUTURE(std::int64_t, RustFutureI64) declares, without
 * its specialisation of std::coroutine_traits: GCC refuses that. It serves C++ coroutines that
 * become Rust futures, and there is none here. */
#pragma once

#include <cstdint>

#include "rust/cxx.h"
#include "rust/cxx_async.h"

struct RustFutureI64;
extern "C" const rust::async::Vtable<RustFutureI64> *cxxasync_RustFutureI64_vtable();

struct RustFutureI64 : public rust::async::RustFuture<RustFutureI64> {
    typedef std::int64_t YieldResult;
    typedef std::int64_t FinalResult;
    static const auto vtable() { return cxxasync_RustFutureI64_vtable(); }
    RustFutureI64() = delete;
    RustFutureI64(RustFutureI64 &) = delete;
    void operator=(const RustFutureI64 &) = delete;
    RustFutureI64(RustFutureI64 &&other) noexcept
        : rust::async::RustFuture<RustFutureI64>(std::move(other)) {}
};
