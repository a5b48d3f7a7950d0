//! The parts common to our own switches on all architectures.

use super::super::{Begin, OsBounds};

unsafe extern "C" {
    #[link_name = symbol!("call")]
    fn switch_call(argument: *mut u8, base: usize, f: unsafe extern "C" fn(*mut u8));
    #[link_name = symbol!("resume")]
    pub(crate) fn switch_resume();
    /// On 32-bit x86, `switch_resume` suspends, too.
    #[cfg(not(target_arch = "x86"))]
    #[link_name = symbol!("suspend")]
    pub(crate) fn switch_suspend();
    /// The address of the first instruction executed by a coroutine.
    #[link_name = symbol!("root")]
    pub(crate) static ROOT: usize;
}

/// Calls `f(argument)` on the stack ending at `base`.
///
/// # Safety
/// `base` is a multiple of the stack alignment. Below it is enough memory for `f`, in use by
/// nothing else. `f` may be called with the argument, and does not unwind.
#[inline(always)]
pub unsafe fn call(
    argument: *mut u8,
    base: usize,
    f: unsafe extern "C" fn(*mut u8),
    _here: &OsBounds,
    _there: &OsBounds,
) {
    // SAFETY: the caller guarantees an aligned and unused stack below `base`, and that `f` may be
    // called. To the caller's frame this is an ordinary call.
    unsafe { switch_call(argument, base, f) }
}

/// Joins a coroutine to its resumer.
///
/// The frame pointer of the coroutine's outermost frame is the address of its link. So walkers of
/// frame pointers read `record` as the saved frame pointer there, and `begin` as the return
/// address.
#[repr(C, align(16))]
pub struct Link {
    /// The record of the coroutine while it is suspended; the record of its resumer while it runs.
    pub(crate) record: usize,
    /// The coroutine's first function.
    pub(crate) begin: Begin,
}
