//! What a signal handler does in the middle of anything.

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use upcall::{StackChoice, downcall, entry};

/// An upcall that panics, with a message for the thread; says whether a downcall has the payload and is to raise it.
#[unsafe(no_mangle)]
pub extern "C" fn guest_panic_is_taken(pooled: bool) -> c_int {
    let choice = if pooled { StackChoice::Pooled } else { StackChoice::Auto };
    let error =
        entry().stack(choice).enter(|| resume_unwind(Box::new("in a handler"))).expect_err("it panics");
    assert!(error.refusal().is_none(), "{error}");
    c_int::from(error.into_payload().is_none())
}

/// An upcall that makes a downcall of `callback` and says whether something was raised there.
#[unsafe(no_mangle)]
pub extern "C" fn guest_is_raised(pooled: bool, callback: extern "C" fn()) -> c_int {
    let choice = if pooled { StackChoice::Pooled } else { StackChoice::Auto };
    let raised = || catch_unwind(AssertUnwindSafe(|| downcall(|| callback()))).is_err();
    entry().stack(choice).enter(raised).map_or(-1, c_int::from)
}
