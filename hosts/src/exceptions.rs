//! Functions that call C which may throw a C++ exception: declared `C-unwind`, as Rust has it.

use std::ffi::{c_int, c_void};

use upcall::{Fiber, StackChoice, downcall, downcall_on_fiber, enter, entry, wait};

use crate::or_failed;

/// A function that may unwind, and its argument.
type Throws = extern "C-unwind" fn(*mut c_void) -> c_int;

/// Something to be dropped on the way, so that the calls below have more to do than to pass an exception on.
struct Dropped;

impl Drop for Dropped {
    fn drop(&mut self) {
        std::hint::black_box(self);
    }
}

fn call(callback: Throws, argument: *mut c_void) -> c_int {
    let _dropped = Dropped;
    callback(argument)
}

/// A downcall in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_unwinding(callback: Throws, argument: *mut c_void) -> c_int {
    or_failed(enter(|| downcall(|| call(callback, argument))))
}

/// The same on a pooled stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_unwinding_pooled(callback: Throws, argument: *mut c_void) -> c_int {
    or_failed(entry().stack(StackChoice::Pooled).enter(|| downcall(|| call(callback, argument))))
}

/// A plain call in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_unwinding_plain(callback: Throws, argument: *mut c_void) -> c_int {
    or_failed(enter(|| call(callback, argument)))
}

/// A plain call in an upcall on a pooled stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_unwinding_plain_pooled(callback: Throws, argument: *mut c_void) -> c_int {
    or_failed(entry().stack(StackChoice::Pooled).enter(|| call(callback, argument)))
}

/// A downcall in a fiber.
#[unsafe(no_mangle)]
pub extern "C" fn guest_unwinding_in_fiber(callback: Throws, argument: *mut c_void) -> c_int {
    or_failed(enter(|| wait(Fiber::new(move || downcall(|| call(callback, argument))))))
}

/// A downcall on a fiber.
#[unsafe(no_mangle)]
pub extern "C" fn guest_unwinding_on_fiber(callback: Throws, argument: *mut c_void) -> c_int {
    or_failed(enter(|| wait(Fiber::new(move || downcall_on_fiber(|| call(callback, argument))))))
}

/// A downcall on a fiber that says of its callback that it does not unwind.
#[unsafe(no_mangle)]
pub extern "C" fn guest_call_in_fiber(callback: crate::Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| wait(Fiber::new(move || downcall(|| callback(argument))))))
}
