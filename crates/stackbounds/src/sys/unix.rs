//! The part common to Unix systems: signal stacks, thread attributes, and POSIX forks.

use core::ptr;

#[allow(unused_imports, reason = "Linux defines all of them anew")]
pub use super::portable::*;

/// Whether `sp` is on the thread's alternate signal stack.
///
/// Makes one system call; async-signal-safe.
pub fn on_alternate_stack(sp: usize) -> bool {
    // SAFETY: all-zero is a valid `stack_t`: a null pointer and integers.
    let mut alt: libc::stack_t = unsafe { core::mem::zeroed() };
    // SAFETY: with a null first argument, the call changes nothing. The second is valid for
    // writing one `stack_t`.
    if unsafe { libc::sigaltstack(ptr::null(), &mut alt) } != 0 {
        return false;
    }
    alt.ss_flags & libc::SS_DISABLE == 0 && sp.wrapping_sub(alt.ss_sp as usize) < alt.ss_size
}

/// The range described by a `pthread_attr_t` of the calling thread.
///
/// `fill` makes the attributes describe the thread and returns 0, or an error.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub fn range_from_attributes(
    fill: impl FnOnce(*mut libc::pthread_attr_t) -> libc::c_int,
) -> Option<(usize, usize)> {
    let mut attributes = core::mem::MaybeUninit::<libc::pthread_attr_t>::zeroed();
    if fill(attributes.as_mut_ptr()) != 0 {
        return None;
    }
    let (mut low, mut size) = (ptr::null_mut(), 0);
    // SAFETY: `fill` succeeded, so the attributes are initialised, for this call and for their
    // destruction. `low` and `size` are valid for writing.
    let failed = unsafe {
        let failed = libc::pthread_attr_getstack(attributes.as_ptr(), &mut low, &mut size);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        failed
    };
    let low = low as usize;
    if failed != 0 || size == 0 { None } else { Some((low, low.checked_add(size)?)) }
}

/// The number of the calling process.
pub fn process_number() -> i32 {
    // SAFETY: the call has no arguments and cannot fail.
    unsafe { libc::getpid() }
}

pub fn thread_handle() -> usize {
    // SAFETY: the call has no arguments and cannot fail.
    unsafe { libc::pthread_self() as usize }
}

/// Registers functions for the system to call: before each fork, and after it in the parent and in
/// the child.
///
/// To be called once. If there is no memory for the registration, forks stay untold.
pub fn watch(before: extern "C" fn(), in_parent: extern "C" fn(), in_child: extern "C" fn()) {
    // SAFETY: the functions exist as long as their object is loaded. On unloading, the C library
    // removes the object's handlers.
    unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
}
