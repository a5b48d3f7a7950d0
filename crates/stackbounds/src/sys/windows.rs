//! Windows 8 and later: `GetCurrentThreadStackLimits`. Written, not run.
//!
//! The call reads the thread's TEB and makes no system call. The range includes the system's guard
//! pages. A fiber switch changes the TEB's answer, so a thread takes a fiber's stack for its own if
//! it first asks from there: register fibers. Signal stacks do not exist.

use super::ThreadStack;
pub use super::portable::*;

unsafe extern "system" {
    fn GetCurrentThreadStackLimits(low: *mut usize, high: *mut usize);
}

pub const TELLS_OF_STACK_IN_USE: bool = true;

pub fn thread_stack(_sp: usize) -> Option<ThreadStack> {
    let (mut low, mut high) = (0, 0);
    // SAFETY: both pointers are valid for writing; the call cannot fail.
    unsafe { GetCurrentThreadStackLimits(&mut low, &mut high) };
    Some(ThreadStack { low, high, may_grow_to: low, limit: None })
}
