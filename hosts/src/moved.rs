//! Functions in the middle of which a host moves a coroutine to another thread. Should their code go on there, it ends the process.

use std::ffi::{c_int, c_void};

use upcall::{Fiber, StackChoice, config, downcall, downcall_on_fiber, enter, entry, wait, with_stack};

use crate::{Callback, FAILED, or_failed};

unsafe extern "C" {
    fn _exit(status: c_int) -> !;
}

/// What Rust does after the call, however that ends.
struct GoesOn;

impl Drop for GoesOn {
    fn drop(&mut self) {
        eprintln!("Rust went on, on the wrong thread");
        // SAFETY: no precondition.
        unsafe { _exit(4) }
    }
}

fn without_return(call: impl FnOnce() -> c_int) -> c_int {
    let _goes_on = GoesOn;
    call()
}

/// A downcall in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_moving(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| without_return(|| downcall(|| callback(argument)))))
}

/// The same in an upcall on a pooled stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_moving_pooled(callback: Callback, argument: *mut c_void) -> c_int {
    let upcall = entry().stack(StackChoice::Pooled);
    or_failed(upcall.enter(|| without_return(|| downcall(|| callback(argument)))))
}

/// The same in an upcall on the caller's stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_moving_caller(callback: Callback, argument: *mut c_void) -> c_int {
    let upcall = entry().stack(StackChoice::Caller);
    or_failed(upcall.enter(|| without_return(|| downcall(|| callback(argument)))))
}

/// A plain call of C with a stack of its own.
#[unsafe(no_mangle)]
pub extern "C" fn guest_moving_with_stack(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| without_return(|| with_stack(1 << 20, || callback(argument)))))
}

/// A downcall in a fiber.
#[unsafe(no_mangle)]
pub extern "C" fn guest_moving_in_fiber(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| wait(Fiber::new(move || without_return(|| downcall(|| callback(argument)))))))
}

/// A downcall on the stack of a fiber.
#[unsafe(no_mangle)]
pub extern "C" fn guest_moving_on_fiber(callback: Callback, argument: *mut c_void) -> c_int {
    let run = move || without_return(|| downcall_on_fiber(|| callback(argument)));
    or_failed(enter(|| wait(Fiber::builder().name("moved").build(run).expect("there is memory"))))
}

/// A plain call of C in a fiber.
#[unsafe(no_mangle)]
pub extern "C" fn guest_moving_plain_in_fiber(callback: Callback, argument: *mut c_void) -> c_int {
    let fiber = || Fiber::builder().name("moved").build(move || callback(argument)).expect("there is memory");
    or_failed(enter(|| without_return(|| wait(fiber()))))
}

/// Has the process end with status 3 where upcall stops it; to be called first. Returns 0.
#[unsafe(no_mangle)]
pub extern "C" fn guest_end_when_stopped() -> c_int {
    let ends = |message: &str| {
        eprintln!("the host's log: {message}");
        // SAFETY: no precondition.
        unsafe { _exit(3) }
    };
    config().fatal_handler(ends).install().map_or(FAILED, |()| 0)
}
