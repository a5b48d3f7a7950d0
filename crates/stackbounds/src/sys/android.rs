//! Android (bionic): `pthread_getattr_np`.
//!
//! On the main thread it answers from the stack limit and `/proc/self/stat`, so its range includes
//! the space for growth. Written, not run.

use super::ThreadStack;
pub use super::unix::*;

pub fn thread_stack(_sp: usize) -> Option<ThreadStack> {
    let (low, high) = range_from_attributes(|attributes| {
        // SAFETY: `attributes` is valid for writing. `pthread_self` names a live thread, the
        // calling one.
        unsafe { libc::pthread_getattr_np(libc::pthread_self(), attributes) }
    })?;
    Some(ThreadStack { low, high, may_grow_to: low, limit: None })
}
