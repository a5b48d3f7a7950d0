//! FreeBSD: `pthread_attr_get_np`. It expects initialised attributes. Written, not run.

use super::ThreadStack;
pub use super::unix::*;

pub fn thread_stack(_sp: usize) -> Option<ThreadStack> {
    let (low, high) = range_from_attributes(|attributes| {
        // SAFETY: `attributes` is valid for writing, and is initialised before it is filled.
        // `pthread_self` names a live thread, the calling one.
        unsafe {
            match libc::pthread_attr_init(attributes) {
                0 => libc::pthread_attr_get_np(libc::pthread_self(), attributes),
                failed => failed,
            }
        }
    })?;
    Some(ThreadStack { low, high, may_grow_to: low, limit: None })
}
