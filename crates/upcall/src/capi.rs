//! The C side. Its conventions: every symbol begins with `upcall_`, and nothing is written on failure. Where there is something to say about a
//! failure, functions return -1 and leave a message for `upcall_last_panic`.

use std::ffi::{c_char, c_int};
use std::ptr;

use stackbounds::stack_pointer;

use crate::crossing::{attach, enter};
use crate::thread::{Hot, record};

/// Runs `f` as an upcall; its error is the thread's last message. The upcall that the caller belongs to is what it was, afterwards.
pub(crate) fn checked<T>(f: impl FnOnce() -> Result<T, String>) -> Option<T> {
    let hot = Hot::here();
    let upcall = hot.upcall.get();
    let result = enter(f);
    hot.upcall.set(upcall);
    let message = match result.ok()? {
        Ok(value) => return Some(value),
        Err(message) => message,
    };
    record::attach_if_new(hot, stack_pointer());
    record::set_last_panic(hot, &message);
    record::detach_if_exiting(hot);
    None
}

/// What a function returns that has no other result than whether it did what it is to do.
pub(crate) fn status<T>(done: Option<T>) -> c_int {
    if done.is_some() { 0 } else { -1 }
}

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

/// Attaches the calling thread now rather than at its first call of a Rust function, with what upcalls from its signal handlers need; see
/// `upcall::attach`.
///
/// Returns 0, or -1 if there is no memory for that.
#[unsafe(no_mangle)]
pub extern "C" fn upcall_thread_attach() -> c_int {
    let attached = checked(|| attach().map_err(|refusal| refusal.to_string()));
    status(attached)
}

/// The version of upcall, as `"0.1.0"`. The string is static.
#[unsafe(no_mangle)]
pub extern "C" fn upcall_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
