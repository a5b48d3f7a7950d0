//! Functions that call C++ code able to throw, declared `C-unwind` as Rust requires.

use std::ffi::{c_int, c_void};

use upcall::{StackChoice, downcall, downcall_on_fiber, enter, entry, wait};

use crate::FIBERS;
use crate::or_failed;

/// A C function that may unwind.
type Throws = extern "C-unwind" fn(*mut c_void) -> c_int;

/// A local with a destructor: an exception passing through the calls below has to run it.
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

/// Makes a downcall in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_unwinding(callback: Throws, argument: *mut c_void) -> c_int {
    or_failed(enter(|| downcall(|| call(callback, argument))))
}

/// Makes a downcall in an upcall on a pooled stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_unwinding_pooled(callback: Throws, argument: *mut c_void) -> c_int {
    or_failed(entry().stack(StackChoice::Pooled).enter(|| downcall(|| call(callback, argument))))
}

/// Makes a plain call in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_unwinding_plain(callback: Throws, argument: *mut c_void) -> c_int {
    or_failed(enter(|| call(callback, argument)))
}

/// Makes a plain call in an upcall on a pooled stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_unwinding_plain_pooled(callback: Throws, argument: *mut c_void) -> c_int {
    or_failed(entry().stack(StackChoice::Pooled).enter(|| call(callback, argument)))
}

/// Makes a downcall in a fiber.
#[unsafe(no_mangle)]
pub extern "C" fn guest_unwinding_in_fiber(callback: Throws, argument: *mut c_void) -> c_int {
    or_failed(enter(|| wait(FIBERS.fiber(move || downcall(|| call(callback, argument))))))
}

/// Makes a downcall on a fiber's stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_unwinding_on_fiber(callback: Throws, argument: *mut c_void) -> c_int {
    or_failed(enter(|| wait(FIBERS.fiber(move || downcall_on_fiber(|| call(callback, argument))))))
}

/// Makes a downcall in a fiber, to a callback declared as not unwinding.
#[unsafe(no_mangle)]
pub extern "C" fn guest_call_in_fiber(callback: crate::Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| wait(FIBERS.fiber(move || downcall(|| callback(argument))))))
}
