//! The C side of registered stacks and of the report of stack overflows; its conventions are those of `capi`.

use std::ffi::{CStr, c_char, c_int, c_void};

use stackbounds::stack_pointer;

use crate::capi::status;
use crate::crossing::checked;
use crate::report::{self, users};
use crate::stack::{registered, service};
use crate::thread::Hot;

/// Describes a stack of the program's own making, a coroutine's: Rust functions that are called there,
/// on any thread, run on that stack if it has room enough for them. Otherwise they run on a stack of
/// upcall's, as they do when they are called on stacks that nobody described. `low` is the lowest usable
/// address, guard pages left out, `size` the size in bytes. `name` is for reports, may be null, and is
/// copied.
///
/// Returns 0; -1 if `low` is null or `size` is 0, if the stack would reach past the end of the address
/// space, or if it overlaps a registered one or the calling thread's own. Nothing is changed then. It
/// ends with `upcall_stack_unregister`.
///
/// # Safety
/// The `size` bytes from `low` on are one stack, readable and writable, until it is unregistered. `name`
/// is null or a C string.
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

/// Ends what `upcall_stack_register` began, before the memory becomes something else. `low` is what the
/// stack was registered with. Any thread may do that, not only the one that registered it.
///
/// Returns 0; -1 if no stack is registered there by `upcall_stack_register`, or if the stack is in use:
/// a call that has not returned, of any thread, was made on it, from it or to it. The message says which
/// call, where and on which thread. Nothing is changed then. Code on the stack may unregister it, as the
/// last thing before it leaves, if no other call of its is open.
///
/// What cannot be seen: calls of threads that have begun to exit; and, on another thread, a Rust function
/// that called C as a plain function instead of by `upcall::downcall`. What can be seen too long: a call
/// that was left by `longjmp`.
#[unsafe(no_mangle)]
pub extern "C" fn upcall_stack_unregister(low: *mut c_void) -> c_int {
    let caller = users::Caller { sp: stack_pointer(), upcall_sp: Hot::here().upcall.sp() };
    let unregistered = checked(|| {
        let unregistered = registered::unregister(low as usize, |stack| users::of_stack(stack, caller));
        unregistered.map_err(|error| format!("upcall_stack_unregister: {error}"))
    });
    status(unregistered)
}

/// How many bytes the caller's stack certainly has left below the caller: on its thread's own stack, a
/// registered one, or one of upcall's.
///
/// Returns -1 on a stack that nobody described. The first call of a thread may ask the system; later ones
/// make no system call.
#[unsafe(no_mangle)]
pub extern "C" fn upcall_stack_remaining() -> isize {
    let (sp, hot) = (stack_pointer(), Hot::here());
    let left = match hot.own_stack() {
        Some((low, _)) if hot.owns(sp) => Some(sp - low),
        // Looking it up needs some stack itself.
        _ => service::run(|| stackbounds::at(sp).room_below(sp)),
    };
    left.map_or(-1, |left| isize::try_from(left).unwrap_or(isize::MAX))
}

/// Has stack overflows reported on stderr: which thread's, on which stack, inside which calls. The
/// handlers of SIGSEGV and SIGBUS that were there before get their turn after that. To be called before
/// the first call of a Rust function.
///
/// Returns 0, or -1 if the system refuses it.
#[unsafe(no_mangle)]
pub extern "C" fn upcall_report_install() -> c_int {
    let installed = checked(|| report::install().map_err(|error| format!("upcall_report_install: {error}")));
    status(installed)
}
