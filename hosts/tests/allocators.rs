//! Allocators making upcalls.

#![allow(dead_code, reason = "the other test files use the rest of the module")]

#[macro_use]
mod program;

use program::{Outcome, Program};

cases! {
    malloc_hook {
        before_main, threads, coroutines, nested, under_locks, fibers,
    }
}
