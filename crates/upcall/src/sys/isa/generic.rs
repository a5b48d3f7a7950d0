#[path = "words.rs"]
mod words;

use std::ffi::c_void;

pub(crate) use words::{add_at, is_beside_token, swap_if_at};

/// The thread's `pthread_t`.
#[inline(never)]
pub(crate) fn thread_token() -> usize {
    crate::sys::os_thread_id()
}

/// Always `None`: the layout of the context is not known here.
///
/// # Safety
/// No requirements.
pub(crate) unsafe fn interrupted_at(_context: *const c_void) -> Option<(usize, usize)> {
    None
}
