//! The unwinding interface of 32-bit ARM: "Exception Handling ABI for the Arm Architecture".

use std::ffi::{c_int, c_void};
use std::slice;

use super::Frame;

/// An entry of the index of functions, sorted by address: the distance of the function from this
/// word, in 31 bits, and its unwind information.
#[repr(C)]
struct Entry {
    function: u32,
    _unwind: u32,
}

unsafe extern "C-unwind" {
    fn _Unwind_GetRegionStart(frame: *mut c_void) -> usize;
    fn _Unwind_VRS_Get(frame: *mut c_void, class: u32, register: u32, kind: u32, value: *mut c_void) -> i32;
}

unsafe extern "C" {
    /// The index with the code at `address`, and its length; null if there is none.
    fn __gnu_Unwind_Find_exidx(address: usize, length: *mut c_int) -> *const Entry;
}

/// The frame that the unwinder passes to the callback of a walk.
///
/// # Safety
/// `frame` was passed to the running callback.
pub(crate) unsafe fn frame(frame: *mut c_void) -> Frame {
    const CORE: u32 = 0;
    const SP: u32 = 13;
    const UINT32: u32 = 0;
    let mut sp = 0usize;
    // SAFETY: the caller guarantees a frame that is valid during its call. `sp` is a writable word.
    unsafe {
        _Unwind_VRS_Get(frame, CORE, SP, UINT32, (&raw mut sp).cast());
        Frame { function: _Unwind_GetRegionStart(frame), sp, calls_handler: false, is_made_up: false }
    }
}

/// The start of the function around the code at `address`; 0 if it is not known.
pub(crate) fn function_at(address: usize) -> usize {
    let mut length = 0;
    // SAFETY: the C library looks the address up among those of the loaded objects. An index is
    // never changed, and stays while its object is loaded: the caller's address is in it.
    let index = unsafe {
        match __gnu_Unwind_Find_exidx(address, &mut length) {
            index if index.is_null() => return 0,
            index => slice::from_raw_parts(index, length as usize),
        }
    };
    let start = |entry: &Entry| {
        let distance = (entry.function << 1) as i32 >> 1;
        (&raw const entry.function).addr().wrapping_add_signed(distance as isize)
    };
    match index.partition_point(|entry| start(entry) <= address) {
        0 => 0,
        after => start(&index[after - 1]),
    }
}
