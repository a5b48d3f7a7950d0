//! macOS and Apple's other systems: `pthread_get_stackaddr_np` and `pthread_get_stacksize_np`.
//!
//! The first gives the high end. Neither makes a system call. Written, not run.

use super::ThreadStack;
pub use super::unix::*;

pub fn thread_stack(_sp: usize) -> Option<ThreadStack> {
    // SAFETY: both calls read fields of a live thread, the calling one.
    let (high, size) = unsafe {
        let me = libc::pthread_self();
        (libc::pthread_get_stackaddr_np(me) as usize, libc::pthread_get_stacksize_np(me))
    };
    let low = high.checked_sub(size)?;
    Some(ThreadStack { low, high, may_grow_to: low, limit: None })
}
