//! Memory that C owns.

use std::ffi::{c_char, c_long};
use std::ptr::null_mut;

use upcall::{arg, export, into_c_slice, into_c_str};

/// A copy of `text`, to be freed by `upcall_memory_free`.
///
/// # Safety
/// `text` must be a C string.
#[export(on_error = null_mut())]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_memory_text(text: *const c_char) -> *mut c_char {
    // SAFETY: the caller guarantees that `text` is a C string.
    Ok(into_c_str(unsafe { arg::str(text) }?)?)
}

/// The numbers from 0 to `count`, to be freed by `upcall_memory_free`.
///
/// # Safety
/// `length` must be null, or valid for writes.
#[export(on_error = null_mut())]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_memory_numbers(count: c_long, length: *mut usize) -> *mut c_long {
    // SAFETY: the caller guarantees that `length` is null or valid for writes.
    Ok(into_c_slice((0..count).collect(), unsafe { arg::out(length) }?))
}
