use std::ffi::c_void;

/// SP of the code interrupted by the signal.
///
/// # Safety
/// `context` is the third argument of a running signal handler.
pub(in crate::report) unsafe fn stack_pointer(context: *const c_void) -> Option<usize> {
    // SAFETY: as the caller guarantees, `context` is the valid `ucontext_t` of a signal handler.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    Some(context.uc_mcontext.gregs[libc::REG_RSP as usize] as usize)
}

/// The address of the interrupted instruction.
///
/// # Safety
/// `context` is the third argument of a running signal handler.
pub(in crate::report) unsafe fn code_pointer(context: *const c_void) -> Option<usize> {
    // SAFETY: as the caller guarantees, `context` is the valid `ucontext_t` of a signal handler.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    Some(context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize)
}
