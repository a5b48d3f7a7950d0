//! Identities of threads: for the machine, and for people reading messages and snapshots.

mod isa;

#[cfg(target_os = "linux")]
use std::ffi::CStr;

pub(crate) use isa::{add_at, is_beside_token, swap_if_at, thread_token};

// `cfg(target_thread_local)` would say so, but is not stable.
#[cfg(any(
    target_os = "android",
    target_os = "openbsd",
    target_os = "illumos",
    target_os = "solaris",
    target_os = "haiku",
    target_os = "nto",
    target_env = "ohos"
))]
compile_error!(
    "upcall needs native thread-locals, and Rust has none on this system: it would free the state of an exiting \
     thread before the last call"
);

/// The calling thread's `pthread_t`, as debuggers show it.
pub(crate) fn os_thread_id() -> usize {
    // SAFETY: `pthread_self` has no arguments and cannot fail.
    unsafe { libc::pthread_self() as usize }
}

/// The name of the live thread with the `pthread_t` `id`.
#[cfg(target_os = "linux")]
pub(crate) fn thread_name(id: usize) -> Option<String> {
    let mut name = [0u8; 16];
    // SAFETY: the caller guarantees that the thread is alive. The buffer has the length given, and
    // 16 bytes hold any name.
    let failed =
        unsafe { libc::pthread_getname_np(id as libc::pthread_t, name.as_mut_ptr().cast(), name.len()) };
    let name = CStr::from_bytes_until_nul(&name).ok()?;
    (failed == 0).then(|| name.to_string_lossy().into_owned())
}

/// Always `None`: thread names are not looked up on this system.
#[cfg(not(target_os = "linux"))]
pub(crate) fn thread_name(_id: usize) -> Option<String> {
    None
}
