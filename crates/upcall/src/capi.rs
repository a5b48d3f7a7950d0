//! The C side. Its conventions: every symbol begins with `upcall_`, and nothing is written on failure. Where there is something to say about a
//! failure, functions return -1 and leave a message for `upcall_last_panic`.
//!
//! `include/upcall.h` is written from the files `capi*.rs` by `cargo xtask header`: what the doc comments of their functions say, they
//! say to C programmers.

use std::ffi::{c_char, c_int};
use std::ptr;

use crate::crossing::{InUse, attach, checked, detach};
use crate::stack::service;
use crate::thread::{Hot, record};

/// What a function returns that has no other result than whether it did what it is to do.
pub(crate) fn status<T>(done: Option<T>) -> c_int {
    if done.is_some() { 0 } else { -1 }
}

/// Copies the calling thread's last message into `buffer`, cut to `size` bytes with a terminating 0
/// as `snprintf` does: that of the last panic in a function that C called, which it answered with the
/// value that it declares for that, or why a function of this header returned -1.
///
/// Returns the message's length in bytes without the 0, whatever fitted; -1 if there was none on this
/// thread. It stays until the next one, and at most as long as the thread is attached. `buffer` may be
/// null if `size` is 0.
///
/// # Safety
/// `buffer` is valid for writing `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcall_last_panic(buffer: *mut c_char, size: usize) -> c_int {
    let Some(record) = Hot::here().record() else { return -1 };
    // Nothing is told to a signal handler that has interrupted the change of the message.
    let Ok(message) = record.last_panic.try_borrow() else { return -1 };
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

/// Attaches the calling thread now rather than at its first call of a Rust function, and keeps a stack
/// in reserve, with which calls from its signal handlers can be served: on an alternate stack, where
/// nothing can be allocated, they fail otherwise. Threads that handle no signals need not call this.
///
/// Returns 0, also if the thread is attached already; -1 if there is no memory for that. It ends with
/// `upcall_thread_detach`, or with the thread.
#[unsafe(no_mangle)]
pub extern "C" fn upcall_thread_attach() -> c_int {
    let attached = checked(|| attach().map_err(|refusal| refusal.to_string()));
    status(attached)
}

/// Detaches the calling thread now rather than at its exit: frees what was kept for it since its first
/// call of a Rust function, or `upcall_thread_attach`, last message included. A later call of a Rust
/// function attaches it again.
///
/// Returns 0, also if the thread is not attached. Returns -1 and changes nothing if something of the
/// thread is in use: a call between C and Rust that has not returned, in either direction and on
/// whatever coroutine; a fiber, or the runtime of `upcall_local_begin`. The message says what. A call
/// that was left by `longjmp` may count as one that has not returned. Signal handlers, and upcall's own
/// threads, cannot be detached: -1 there.
#[unsafe(no_mangle)]
pub extern "C" fn upcall_thread_detach() -> c_int {
    let detached = detach();
    match detached {
        // Nothing can be allocated there.
        Ok(()) | Err(InUse::SignalHandler) => {}
        Err(user) => service::run(|| {
            let message = format!("upcall_thread_detach: {user}");
            record::set_last_panic(Hot::here(), &message);
        }),
    }
    status(detached.ok())
}

/// The version of the library that was linked, as `"0.1.0"`; `UPCALL_VERSION` is that of this header.
///
/// The string is static. May be called from anywhere, signal handlers included.
#[unsafe(no_mangle)]
pub extern "C" fn upcall_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
