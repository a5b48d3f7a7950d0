//! Failing system calls in C programs, one after the other.

#[macro_use]
#[allow(dead_code)] // shared by all tests of C programs
mod program;

use program::{Outcome, Program};

cases! {
    faults {
        first_upcall, pooled, deep, on_coroutine, registered, fibers, spawned, stuck, blocking_calls, sleeping, local_runtime, callbacks, attaching, reporting,
        on_new_thread, everything,
    }
}
