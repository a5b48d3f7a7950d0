//! The level I unwinding interface of the Itanium C++ ABI. On every Unix but on 32-bit ARM, Rust's
//! standard library links an unwinder with this interface.

use std::ffi::{c_int, c_void};

use super::Frame;

unsafe extern "C-unwind" {
    fn _Unwind_GetCFA(frame: *mut c_void) -> usize;
    fn _Unwind_GetRegionStart(frame: *mut c_void) -> usize;
    fn _Unwind_GetIPInfo(frame: *mut c_void, before_instruction: *mut c_int) -> usize;
    fn _Unwind_FindEnclosingFunction(address: *mut c_void) -> *mut c_void;
}

/// The frame that the unwinder passes to the callback of a walk.
///
/// # Safety
/// `frame` was passed to the running callback.
pub(crate) unsafe fn frame(frame: *mut c_void) -> Frame {
    let mut before_instruction = 0;
    // SAFETY: the caller guarantees a frame that is valid during its call.
    unsafe {
        let goes_on_at = _Unwind_GetIPInfo(frame, &mut before_instruction);
        Frame {
            function: _Unwind_GetRegionStart(frame),
            sp: _Unwind_GetCFA(frame),
            calls_handler: before_instruction != 0,
            // The lookup is meant for return addresses, and looks at the byte before.
            is_made_up: before_instruction == 0 && function_at(goes_on_at + 1) == goes_on_at,
        }
    }
}

/// The start of the function around the code at `address`; 0 if it is not known.
pub(crate) fn function_at(address: usize) -> usize {
    // SAFETY: the unwinder only looks the address up in its tables; it does not read the code
    // there.
    unsafe { _Unwind_FindEnclosingFunction(address as *mut c_void) as usize }
}
