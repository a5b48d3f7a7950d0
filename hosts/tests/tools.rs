//! Tools: backtraces.
//!
//! The lanes `ci/gdb.sh`, `ci/valgrind.sh`, `ci/asan.sh` and `ci/tsan.sh` cover the other tools.

#[macro_use]
#[allow(dead_code, reason = "each test file uses a part")]
mod program;

use program::{Outcome, Program};

cases! {
    backtrace { pooled, on_fiber, below_fiber, }
}
