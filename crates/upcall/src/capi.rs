//! The C side. Its conventions: every symbol begins with `upcall_`, and nothing is written on failure.

use std::ffi::{c_char, c_int};
use std::ptr;

use crate::thread::Hot;

/// Copies the message of the calling thread's last panic, which an upcall caught and answered with its declared value, or of
/// its last refused upcall, into `buffer`, cut to `size` bytes with a terminating 0 as `snprintf` does.
///
/// Returns the message's length in bytes without the 0, whatever fitted; -1 if there was none on this thread. A
/// message stays until the next panic. `buffer` may be null if `size` is 0.
///
/// # Safety
/// `buffer` is valid for writing `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcall_last_panic(buffer: *mut c_char, size: usize) -> c_int {
    let Some(record) = Hot::here().record() else { return -1 };
    let message = record.last_panic.borrow();
    let Some(message) = message.as_deref() else { return -1 };
    if let (Some(fits), false) = (size.checked_sub(1), buffer.is_null()) {
        let len = message.len().min(fits);
        // SAFETY: `len + 1 <= size` bytes of `buffer` are the caller's to give, and a message of ours is not in it.
        unsafe {
            ptr::copy_nonoverlapping(message.as_ptr().cast(), buffer, len);
            buffer.add(len).write(0);
        }
    }
    c_int::try_from(message.len()).unwrap_or(c_int::MAX)
}

/// The version of upcall, as `"0.1.0"`. The string is static.
#[unsafe(no_mangle)]
pub extern "C" fn upcall_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
