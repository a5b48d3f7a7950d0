use std::ffi::c_void;

/// # Safety
/// `context` is what a handler was given.
pub(in crate::report) unsafe fn stack_pointer(context: *const c_void) -> Option<usize> {
    // SAFETY: the caller's promise.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    Some(context.uc_mcontext.gregs[libc::REG_RSP as usize] as usize)
}
