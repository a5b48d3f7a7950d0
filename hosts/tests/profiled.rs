//! Profilers: a signal at every instruction of each kind of crossing.

#[macro_use]
#[allow(dead_code, reason = "each test file uses a part")]
mod program;

use program::{Outcome, Program};

#[cfg(target_arch = "x86_64")]
cases! {
    profiled {
        upcall_in_place, upcall_pooled, upcall_nested, further_stack, panic, fiber_of_local_runtime, fiber_waited_for,
        fiber_cancelled, fiber_polled, coroutine, new_thread,
    }
}
