//! Windows 8 and later: `GetCurrentThreadStackLimits`, which reads the thread's TEB: no system call.
//! The range includes the pages that the system keeps as guard. A fiber switch changes the TEB's
//! answer, so a thread whose first question comes from a fiber keeps that fiber's stack as its
//! own: register fibers. Signal stacks do not exist. Written, not run.

use super::ThreadStack;

unsafe extern "system" {
    fn GetCurrentThreadStackLimits(low: *mut usize, high: *mut usize);
}

pub(crate) fn thread_stack(_sp: usize) -> Option<ThreadStack> {
    let (mut low, mut high) = (0, 0);
    // SAFETY: both pointers are valid for writing; the call cannot fail.
    unsafe { GetCurrentThreadStackLimits(&mut low, &mut high) };
    Some(ThreadStack { low, high, may_grow_to: low })
}

pub(crate) fn on_alternate_stack(_sp: usize) -> bool {
    false
}
