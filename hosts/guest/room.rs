//! Rust code using the stack promised to it.

use std::ffi::c_int;

use crate::{or_failed, use_stack};

/// Uses most of `min_stack` bytes, in an upcall on the caller's stack. Returns -1 if it is refused.
#[unsafe(no_mangle)]
pub extern "C" fn guest_use_callers_stack(min_stack: usize) -> c_int {
    let entry = upcall::entry().stack(upcall::StackChoice::Caller).min_stack(min_stack);
    or_failed(entry.enter(|| c_int::from(use_stack(min_stack * 3 / 4) == 0)))
}

/// Uses most of `bytes` of stack inside `with_stack`, outside any upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_use_more_stack(bytes: usize) -> c_int {
    upcall::with_stack(bytes, || c_int::from(use_stack(bytes * 3 / 4) == 0))
}

/// Returns the bytes of stack remaining according to stackbounds, or -1 if unknown.
#[unsafe(no_mangle)]
pub extern "C" fn guest_remaining() -> isize {
    stackbounds::remaining().map_or(-1, |left| left as isize)
}
