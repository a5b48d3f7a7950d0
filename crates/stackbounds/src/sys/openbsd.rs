//! OpenBSD: `pthread_stackseg_np`. Its `ss_sp` is the high end. Written, not run.

use super::ThreadStack;
pub use super::unix::*;

pub fn thread_stack(_sp: usize) -> Option<ThreadStack> {
    // SAFETY: all-zero is a valid `stack_t`: a null pointer and integers.
    let mut segment: libc::stack_t = unsafe { core::mem::zeroed() };
    // SAFETY: `segment` is valid for writing. `pthread_self` names a live thread, the calling one.
    if unsafe { libc::pthread_stackseg_np(libc::pthread_self(), &mut segment) } != 0 {
        return None;
    }
    let high = segment.ss_sp as usize;
    let low = high.checked_sub(segment.ss_size)?;
    Some(ThreadStack { low, high, may_grow_to: low, limit: None })
}
