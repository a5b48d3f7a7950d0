//! FreeBSD: `pthread_attr_get_np`, which wants its attributes initialised first. Written, not run.

use super::ThreadStack;
pub(crate) use super::unix::on_alternate_stack;

pub(crate) fn thread_stack(_sp: usize) -> Option<ThreadStack> {
    let (low, high) = super::unix::range_from_attributes(|attributes| {
        // SAFETY: `attributes` is valid for writing and is initialised before it is filled;
        // `pthread_self` names a live thread: us.
        unsafe {
            match libc::pthread_attr_init(attributes) {
                0 => libc::pthread_attr_get_np(libc::pthread_self(), attributes),
                failed => failed,
            }
        }
    })?;
    Some(ThreadStack { low, high, may_grow_to: low })
}
