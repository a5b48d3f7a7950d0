//! The resumption of a coroutine on x86-64: the same on all systems.

use std::arch::asm;

use super::{Link, switch_resume};

impl Link {
    /// Resumes the coroutine. Returns the pointer passed to [`suspend`](Self::suspend) or
    /// [`finish`](Self::finish).
    ///
    /// # Safety
    /// The coroutine is new or suspended, and its code accepts the argument.
    #[inline(always)]
    pub unsafe fn resume(link: *mut Link, argument: *mut ()) -> *mut () {
        let passed;
        // SAFETY: this is a call. It returns with SP, RBX and RBP unchanged, and all other
        // registers are declared as clobbered.
        unsafe {
            asm!(
                "call {resume}",
                resume = sym switch_resume,
                inlateout("rdi") argument => passed,
                in("rsi") link,
                lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
                clobber_abi("sysv64"),
            );
        }
        passed
    }
}
