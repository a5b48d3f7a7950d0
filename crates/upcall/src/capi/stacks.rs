//! The C side of registered stacks and of fault reports, with the conventions of `capi`.

use std::ffi::{CStr, c_char, c_int, c_void};

use stackbounds::stack_pointer;

use crate::capi::status;
use crate::crossing::run_c_api;
use crate::report::{self, users};
use crate::stack::{registered, service};
use crate::thread::ThreadState;

/// Describes a stack made by the program, such as a coroutine's.
///
/// ```text
///   low + size ─┬─────────────┐
///               │ the stack   │ grows downwards
///          low ─┼─────────────┤ lowest usable address
///               │ guard pages │ not included
///               └─────────────┘
/// ```
///
/// A Rust function called on the stack, by any thread, runs there if the stack has enough room.
/// Otherwise it runs on a stack of upcall's, as it does for every call from an undescribed stack.
/// `size` is in bytes. `name` is for reports; it may be null, and is copied.
///
/// Returns 0. Returns -1 and changes nothing in three cases: `low` is null or `size` is 0; the
/// stack would reach past the end of the address space; it overlaps a registered stack or the
/// calling thread's own. The registration lasts until `stack_unregister`.
///
/// # Safety
/// The `size` bytes from `low` on are one stack, readable and writable, until it is unregistered.
/// `name` is null or a C string.
pub unsafe fn stack_register(low: *mut c_void, size: usize, name: *const c_char) -> c_int {
    let registered = run_c_api(|| {
        // SAFETY: `name` is not null, so the caller guarantees that it is a C string.
        let name = (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_string_lossy().into());
        // SAFETY: the caller guarantees that the `size` bytes from `low` on are one readable and
        // writable stack until they are unregistered.
        let registered = unsafe { registered::register(low.cast(), size, name) };
        registered.map_err(|error| format!("stack_register: {error}"))
    });
    status(registered)
}

/// Ends the registration of a stack, before its memory gets another use.
///
/// `low` is the address given to `stack_register`. Any thread may call this, not only the one that
/// registered the stack.
///
/// Returns 0. Returns -1 and changes nothing if `stack_register` has registered no stack at `low`,
/// or if the stack is in use. It is in use if a call of any thread has not returned, and was made
/// on the stack, from it or to it. The message tells which call, where, and on which thread. Code
/// on the stack may unregister it as its last action there, if it has no other open call.
///
/// Two kinds of use are not detected: calls of threads that have begun to exit; and, on another
/// thread, a Rust function in the middle of a plain call of C, without `upcall::downcall`. In the
/// other direction, a call abandoned by `longjmp` may count as open.
pub fn stack_unregister(low: *mut c_void) -> c_int {
    let caller = users::Caller { sp: stack_pointer(), upcall_sp: ThreadState::current().upcall.sp() };
    let unregistered = run_c_api(|| {
        let unregistered = registered::unregister(low as usize, |stack| users::of_stack(stack, caller));
        unregistered.map_err(|error| format!("stack_unregister: {error}"))
    });
    status(unregistered)
}

/// Returns the bytes certainly remaining on the caller's stack, below the caller.
///
/// This works on the thread's own stack, on registered stacks, and on upcall's stacks. On an
/// undescribed stack, it returns -1.
///
/// On the thread's own stack, upcall asks the system at the thread's first call. When a later call
/// comes from deeper than any before, by 128 KiB or more, upcall asks again: it checks that the 256
/// KiB below the caller exist. The part further down may turn out not to exist, if the stack's
/// limit is lowered or guard pages are put there. So ask again every 128 KiB of depth.
pub fn stack_remaining() -> isize {
    let sp = stack_pointer();
    let stack = stackbounds::for_upcall::known(sp);
    // The lookup itself needs some stack.
    let stack = stack.unwrap_or_else(|| {
        stackbounds::for_upcall::ask_before_switch(sp);
        service::run(|| stackbounds::at(sp))
    });
    let remaining = stack.room_below(sp);
    remaining.map_or(-1, |remaining| isize::try_from(remaining).unwrap_or(isize::MAX))
}

/// Installs signal handlers that report faults and stack overflows on stderr.
///
/// The signals are SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGABRT. A report tells on which thread and
/// inside which calls the fault happened. Afterwards the previous handler is called. Call this
/// before the first call of a Rust function. If the host raises SIGSEGV on purpose, set the
/// variable `UPCALL_REPORTS=overflows`: then upcall reports only stack overflows, and leaves all
/// other faults to the host.
///
/// Returns 0. Returns -1 if the system refuses it.
pub fn report_install() -> c_int {
    let installed = run_c_api(|| report::install().map_err(|error| format!("report_install: {error}")));
    status(installed)
}
