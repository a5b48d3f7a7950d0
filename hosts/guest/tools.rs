//! Code for tools to see: backtraces, and errors made on purpose.

use std::backtrace::Backtrace;
use std::ffi::{c_char, c_int};
use std::hint::black_box;
use std::mem::MaybeUninit;

use upcall::{StackChoice, entry};

use crate::or_failed;

/// Writes a backtrace from a pooled stack, cut to fit `buffer`.
///
/// # Safety
/// `buffer` must be valid for writes of `size` bytes, and `size` must not be 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_backtrace(buffer: *mut c_char, size: usize) -> c_int {
    or_failed(entry().stack(StackChoice::Pooled).enter(|| {
        let text = Backtrace::force_capture().to_string();
        let length = text.len().min(size - 1);
        // SAFETY: the caller guarantees that `buffer` is valid for writes of `size` bytes. At most
        // `size - 1` bytes are copied, so the final 0 fits.
        unsafe {
            buffer.copy_from_nonoverlapping(text.as_ptr().cast(), length);
            buffer.add(length).write(0);
        }
        0
    }))
}

/// Reads an uninitialised byte on a pooled stack, as an error for tools to report.
///
/// The byte is number `index` of 64.
#[unsafe(no_mangle)]
pub extern "C" fn guest_misread(index: usize) -> c_int {
    or_failed(entry().stack(StackChoice::Pooled).enter(|| {
        let bytes = MaybeUninit::<[u8; 64]>::uninit();
        // SAFETY: none. The undefined read is on purpose, for tools to report.
        let byte = unsafe { black_box(&bytes).as_ptr().cast::<u8>().add(index).read_volatile() };
        assert_ne!(byte, 7);
        0
    }))
}
