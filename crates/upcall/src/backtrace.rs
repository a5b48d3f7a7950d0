//! The frames of the calling thread, found with the level I unwinding interface of the Itanium C++
//! ABI. On every Unix, Rust's standard library links an unwinder with this interface.

use std::ffi::{c_int, c_void};

unsafe extern "C-unwind" {
    fn _Unwind_Backtrace(
        step: extern "C-unwind" fn(*mut c_void, *mut c_void) -> i32,
        state: *mut c_void,
    ) -> i32;
    fn _Unwind_GetCFA(frame: *mut c_void) -> usize;
    fn _Unwind_GetRegionStart(frame: *mut c_void) -> usize;
    fn _Unwind_GetIPInfo(frame: *mut c_void, before_instruction: *mut c_int) -> usize;
    fn _Unwind_FindEnclosingFunction(address: *mut c_void) -> *mut c_void;
}

/// A frame of the calling thread.
pub(crate) struct Walked {
    /// The start of its function.
    pub function: usize,
    pub sp: usize,
    /// The frame calls a signal handler: the kernel made it. Known only if the C library has unwind
    /// information for such frames.
    pub calls_handler: bool,
}

/// Calls `step` for each frame, innermost first, until `step` returns false.
#[inline(never)]
pub(crate) fn walk(step: &mut dyn FnMut(Walked) -> bool) {
    type Step<'a> = &'a mut dyn FnMut(Walked) -> bool;
    extern "C-unwind" fn each(frame: *mut c_void, step: *mut c_void) -> i32 {
        /// `_URC_NO_REASON`: continue.
        const GO_ON: i32 = 0;
        /// `_URC_NORMAL_STOP`: end the walk.
        const STOP: i32 = 4;
        let mut before_instruction = 0;
        // SAFETY: the unwinder passes a frame that is valid during this call. `step` is the pointer
        // to a `Step` passed by `walk` below, whose frame outlives the walk.
        let goes_on = unsafe {
            _Unwind_GetIPInfo(frame, &mut before_instruction);
            (*step.cast::<Step<'_>>())(Walked {
                function: _Unwind_GetRegionStart(frame),
                sp: _Unwind_GetCFA(frame),
                calls_handler: before_instruction != 0,
            })
        };
        if goes_on { GO_ON } else { STOP }
    }
    let mut step: Step<'_> = step;
    // SAFETY: `each` has the signature of the interface's callback, and `step` outlives
    // the call.
    unsafe { _Unwind_Backtrace(each, (&raw mut step).cast()) };
}

/// The start of the function around the code at `address`; 0 if it is not known.
pub(crate) fn function_at(address: usize) -> usize {
    // SAFETY: the unwinder only looks the address up in its tables; it does not read the code
    // there.
    unsafe { _Unwind_FindEnclosingFunction(address as *mut c_void) as usize }
}
