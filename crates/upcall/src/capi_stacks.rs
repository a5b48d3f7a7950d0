//! The C side of registered stacks and of the report of stack overflows; its conventions are those of `capi`.

use std::ffi::{CStr, c_char, c_int, c_void};

use stackbounds::stack_pointer;

use crate::capi::{checked, status};
use crate::report::{self, users};
use crate::stack::registered;
use crate::thread::Hot;

/// Describes a stack of the host's own making, a coroutine's: upcalls from it find exact bounds, on every thread, and run in place where
/// there is room. `low` is its lowest usable address, guard pages left out, `size` its size in bytes. `name` is for reports, may be
/// null, and is copied.
///
/// Returns 0; -1 if `low` is null or `size` is 0, if the stack would reach past the end of the address space, or if it overlaps a registered one or
/// the calling thread's own. Nothing is changed then.
///
/// # Safety
/// `low..low + size` is one stack, readable and writable, until it is unregistered. `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcall_stack_register(low: *mut c_void, size: usize, name: *const c_char) -> c_int {
    let registered = checked(|| {
        // SAFETY: the caller's promise.
        let name = (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_string_lossy().into());
        // SAFETY: the caller's promise.
        let registered = unsafe { registered::register(low.cast(), size, name) };
        registered.map_err(|error| format!("upcall_stack_register: {error}"))
    });
    status(registered)
}

/// Ends that, before the memory becomes something else. `low` is what the stack was registered with.
///
/// Returns 0; -1 if no stack is registered there by `upcall_stack_register`, or if the stack is in use: a call that has not returned, of any
/// thread, was made on it, from it or to it. The message says which call, where and on which thread. Nothing is changed then. Code on the stack
/// may unregister it, as the last thing before it leaves, if no other call of its is open.
///
/// What cannot be seen: calls of threads that have begun to exit; and, on another thread, an upcall whose Rust code called C as a plain function
/// instead of by `downcall`. What can be seen too long: a call that the host left by `longjmp`.
#[unsafe(no_mangle)]
pub extern "C" fn upcall_stack_unregister(low: *mut c_void) -> c_int {
    let caller = users::Caller { sp: stack_pointer(), upcall_sp: Hot::here().upcall.sp() };
    let unregistered = checked(|| {
        let unregistered = registered::unregister(low as usize, |stack| users::of_stack(stack, caller));
        unregistered.map_err(|error| format!("upcall_stack_unregister: {error}"))
    });
    status(unregistered)
}

/// Has stack overflows reported on stderr; to be called before the first upcall. See `upcall::report::install`.
///
/// Returns 0, or -1 if the system refuses it.
#[unsafe(no_mangle)]
pub extern "C" fn upcall_report_install() -> c_int {
    let installed = checked(|| report::install().map_err(|error| format!("upcall_report_install: {error}")));
    status(installed)
}
