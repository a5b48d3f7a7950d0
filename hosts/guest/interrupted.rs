//! Calls made by a signal handler, whatever it has interrupted.

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use upcall::{StackChoice, downcall, entry};

/// Panics in an upcall, with a message for the interrupted thread. Returns 1 if an enclosing
/// downcall has taken the payload and is to raise it, otherwise 0.
#[unsafe(no_mangle)]
pub extern "C" fn guest_panic_is_taken(pooled: bool) -> c_int {
    let choice = if pooled { StackChoice::Pooled } else { StackChoice::Auto };
    let error =
        entry().stack(choice).enter(|| resume_unwind(Box::new("in a handler"))).expect_err("it panics");
    assert!(error.refusal().is_none(), "{error}");
    c_int::from(error.goes_on())
}

/// Makes a downcall to `callback` in an upcall. Returns 1 if a panic was raised there, otherwise 0.
///
/// Returns -1 if the upcall panics or is refused.
#[unsafe(no_mangle)]
pub extern "C" fn guest_is_raised(pooled: bool, callback: extern "C" fn()) -> c_int {
    let choice = if pooled { StackChoice::Pooled } else { StackChoice::Auto };
    let raised = || catch_unwind(AssertUnwindSafe(|| downcall(|| callback()))).is_err();
    entry().stack(choice).enter(raised).map_or(-1, c_int::from)
}
