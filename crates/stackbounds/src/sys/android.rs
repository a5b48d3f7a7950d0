//! Android (bionic): `pthread_getattr_np`, which on the main thread answers from the stack limit and
//! `/proc/self/stat`, so its range is what the stack may grow to. Written, not run.

use super::ThreadStack;
pub(crate) use super::unix::on_alternate_stack;

pub(crate) fn thread_stack(_sp: usize) -> Option<ThreadStack> {
    let (low, high) = super::unix::range_from_attributes(|attributes| {
        // SAFETY: `attributes` is valid for writing and `pthread_self` names a live thread: us.
        unsafe { libc::pthread_getattr_np(libc::pthread_self(), attributes) }
    })?;
    Some(ThreadStack { low, high, may_grow_to: low })
}
