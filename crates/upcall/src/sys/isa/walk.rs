//! The walk over frames by the unwinder of Rust's standard library, on every Unix.

use std::ffi::c_void;

use super::{Frame, frame};

unsafe extern "C-unwind" {
    fn _Unwind_Backtrace(
        step: extern "C-unwind" fn(*mut c_void, *mut c_void) -> i32,
        state: *mut c_void,
    ) -> i32;
}

/// Calls `step` for each frame, innermost first, until `step` returns false.
///
/// The walk ends at a made-up frame. The first one of Perl's Coro is such: it "returns" to `abort`.
/// The unwinder would use the tables of the code before `abort`, and read anywhere.
#[inline(never)]
pub(crate) fn walk(step: &mut dyn FnMut(Frame) -> bool) {
    type Step<'a> = &'a mut dyn FnMut(Frame) -> bool;
    extern "C-unwind" fn each(context: *mut c_void, step: *mut c_void) -> i32 {
        /// `_URC_NO_REASON`: continue.
        const GO_ON: i32 = 0;
        /// `_URC_NORMAL_STOP`: end the walk.
        const STOP: i32 = 4;
        // SAFETY: the unwinder passes a frame that is valid during this call. `step` is the pointer
        // to a `Step` passed by `walk` below, whose frame outlives the walk.
        let (frame, step) = unsafe { (frame(context), &mut *step.cast::<Step<'_>>()) };
        if !frame.is_made_up && step(frame) { GO_ON } else { STOP }
    }
    let mut step: Step<'_> = step;
    // SAFETY: `each` has the signature of the interface's callback, and `step` outlives
    // the call.
    unsafe { _Unwind_Backtrace(each, (&raw mut step).cast()) };
}
