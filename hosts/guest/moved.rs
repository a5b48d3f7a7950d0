//! Functions interrupted by a host that moves their coroutine to another thread.
//!
//! Should their Rust code continue there, it ends the process with status 4.

use std::ffi::{c_int, c_void};

use upcall::{StackChoice, config, downcall, downcall_on_fiber, enter, entry, wait, with_stack};

use crate::FIBERS;
use crate::{Callback, FAILED, or_failed};

unsafe extern "C" {
    fn _exit(status: c_int) -> !;
}

/// Ends the process in its destructor: Rust code has continued after the call, by return or
/// unwinding.
struct GoesOn;

impl Drop for GoesOn {
    fn drop(&mut self) {
        eprintln!("Rust went on, on the wrong thread");
        // SAFETY: `_exit` has no precondition.
        unsafe { _exit(4) }
    }
}

fn without_return(call: impl FnOnce() -> c_int) -> c_int {
    let _goes_on = GoesOn;
    call()
}

/// Makes a downcall in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_moving(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| without_return(|| downcall(|| callback(argument)))))
}

/// Makes a downcall in an upcall on a pooled stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_moving_pooled(callback: Callback, argument: *mut c_void) -> c_int {
    let upcall = entry().stack(StackChoice::Pooled);
    or_failed(upcall.enter(|| without_return(|| downcall(|| callback(argument)))))
}

/// Makes a downcall in an upcall on the caller's stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_moving_caller(callback: Callback, argument: *mut c_void) -> c_int {
    let upcall = entry().stack(StackChoice::Caller);
    or_failed(upcall.enter(|| without_return(|| downcall(|| callback(argument)))))
}

/// Makes a plain call of C inside `with_stack`.
#[unsafe(no_mangle)]
pub extern "C" fn guest_moving_with_stack(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| without_return(|| with_stack(1 << 20, || callback(argument)))))
}

/// Makes a downcall in a fiber.
#[unsafe(no_mangle)]
pub extern "C" fn guest_moving_in_fiber(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| wait(FIBERS.fiber(move || without_return(|| downcall(|| callback(argument)))))))
}

/// Makes a downcall on a fiber's stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_moving_on_fiber(callback: Callback, argument: *mut c_void) -> c_int {
    let run = move || without_return(|| downcall_on_fiber(|| callback(argument)));
    or_failed(enter(|| wait(FIBERS.builder().name("moved").build(run).expect("there is memory"))))
}

/// Makes a plain call of C in a fiber.
#[unsafe(no_mangle)]
pub extern "C" fn guest_moving_plain_in_fiber(callback: Callback, argument: *mut c_void) -> c_int {
    let fiber = || FIBERS.builder().name("moved").build(move || callback(argument)).expect("there is memory");
    or_failed(enter(|| without_return(|| wait(fiber()))))
}

/// Makes upcall end the process with status 3 in place of an abort. Returns 0.
///
/// Call it before all other functions.
#[unsafe(no_mangle)]
pub extern "C" fn guest_end_when_stopped() -> c_int {
    let ends = |message: &str| {
        eprintln!("the host's log: {message}");
        // SAFETY: `_exit` has no precondition.
        unsafe { _exit(3) }
    };
    config().fatal_handler(ends).install().map_or(FAILED, |()| 0)
}
