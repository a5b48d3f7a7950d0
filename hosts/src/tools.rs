//! What tools see: backtraces, and errors made on purpose.

use std::backtrace::Backtrace;
use std::ffi::{c_char, c_int};
use std::hint::black_box;
use std::mem::MaybeUninit;

use upcall::{StackChoice, entry};

use crate::or_failed;

/// An upcall on a pooled stack that writes a backtrace, as much as there is room for.
///
/// # Safety
/// `buffer` is valid for writing `size` bytes, of which there is one at least.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_backtrace(buffer: *mut c_char, size: usize) -> c_int {
    or_failed(entry().stack(StackChoice::Pooled).enter(|| {
        let text = Backtrace::force_capture().to_string();
        let length = text.len().min(size - 1);
        // SAFETY: the caller's promise; one byte is left for the 0.
        unsafe {
            buffer.copy_from_nonoverlapping(text.as_ptr().cast(), length);
            buffer.add(length).write(0);
        }
        0
    }))
}

/// An upcall on a pooled stack that makes an error for tools to see: it looks at byte `index` of 64 that were never written.
#[unsafe(no_mangle)]
pub extern "C" fn guest_misread(index: usize) -> c_int {
    or_failed(entry().stack(StackChoice::Pooled).enter(|| {
        let bytes = MaybeUninit::<[u8; 64]>::uninit();
        // SAFETY: it is not: the error is on purpose.
        let byte = unsafe { black_box(&bytes).as_ptr().cast::<u8>().add(index).read_volatile() };
        assert_ne!(byte, 7);
        0
    }))
}
