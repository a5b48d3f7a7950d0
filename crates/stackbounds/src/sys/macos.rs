//! macOS and Apple's other systems: `pthread_get_stackaddr_np` (the high end) and
//! `pthread_get_stacksize_np`. Neither makes a system call. Written, not run.

use super::ThreadStack;
pub(crate) use super::unix::on_alternate_stack;

pub(crate) fn thread_stack(_sp: usize) -> Option<ThreadStack> {
    // SAFETY: both read fields of a live thread: us.
    let (high, size) = unsafe {
        let me = libc::pthread_self();
        (libc::pthread_get_stackaddr_np(me) as usize, libc::pthread_get_stacksize_np(me))
    };
    let low = high.checked_sub(size)?;
    Some(ThreadStack { low, high, may_grow_to: low })
}
