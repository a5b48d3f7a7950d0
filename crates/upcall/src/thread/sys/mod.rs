//! How threads are told apart, and how people name them in messages and snapshots.

mod isa;

#[cfg(target_os = "linux")]
use std::ffi::CStr;

pub(crate) use isa::{is_beside_token, thread_token};

/// The calling thread's `pthread_t`, as debuggers show it.
pub(crate) fn thread_id() -> usize {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::pthread_self() as usize }
}

/// The name of the thread whose `pthread_t` is `id`, which is alive.
#[cfg(target_os = "linux")]
pub(crate) fn thread_name(id: usize) -> Option<String> {
    let mut name = [0u8; 16];
    // SAFETY: the caller says that the thread is alive; the buffer has the size that is given, which is that of any name.
    let failed =
        unsafe { libc::pthread_getname_np(id as libc::pthread_t, name.as_mut_ptr().cast(), name.len()) };
    let name = CStr::from_bytes_until_nul(&name).ok()?;
    (failed == 0).then(|| name.to_string_lossy().into_owned())
}

/// Not looked up here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn thread_name(_id: usize) -> Option<String> {
    None
}
