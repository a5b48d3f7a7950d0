/* A coroutine that awaits a Rust future, and then calls the completion. */
#include "benchtasks-cxx/src/lib.rs.h"
#include "detached.hpp"
#include "operations.h"

namespace {

detached run(RustFutureI64 future, struct done *done) {
    std::int64_t value = co_await std::move(future);
    done_call(done, 1, value);
}

} // namespace

void cxx_start(int kind, struct done *done) { run(kind == 1 ? yields() : kind == 3 ? waits() : ready(), done); }
