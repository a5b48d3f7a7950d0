//! The calling thread's signal mask.

use crate::sys;
pub(crate) use crate::sys::Mask;

/// Runs `f` with all asynchronous signals blocked on the calling thread.
///
/// Passes the previous mask to `f`. Signals that arrive meanwhile are delivered afterwards. Threads
/// created by `f` inherit the mask. Faults stay unblocked: if a fault's signal is blocked, the
/// kernel ends the process without calling its handler.
///
/// Needs about 200 bytes of stack on Linux.
#[inline(always)]
pub(crate) fn with_signals_blocked<R>(f: impl FnOnce(&Mask) -> R) -> R {
    let blocked = Changed(sys::set_mask(&sys::asynchronous()));
    f(&blocked.0)
}

/// Runs `f` with another signal mask.
#[cfg(feature = "runtime")]
pub(crate) fn with_signal_mask<R>(mask: &Mask, f: impl FnOnce() -> R) -> R {
    let _changed = Changed(sys::set_mask(mask));
    f()
}

/// A changed mask. Restores the previous one on drop, also during unwinding.
struct Changed(Mask);

impl Drop for Changed {
    fn drop(&mut self) {
        sys::set_mask(&self.0);
    }
}

/// Blocks all asynchronous signals, until the next change or the thread's end.
#[cfg(feature = "runtime")]
pub(crate) fn block_signals() {
    sys::set_mask(&sys::asynchronous());
}
