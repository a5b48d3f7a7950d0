//! How threads are told apart, and how people name them in messages and snapshots.

#[cfg(target_os = "linux")]
use std::ffi::CStr;

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

/// A number that two threads alive at one time do not share, read anew at each call: the address
/// of thread-locals, which a compiler may remember across a switch of stacks, will not do. The ABI keeps
/// the thread control block's own address at its beginning.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[inline(always)]
pub(crate) fn thread_token() -> usize {
    let token;
    // SAFETY: reads the word at the thread pointer, which every thread of the platform has.
    unsafe { std::arch::asm!("mov {}, fs:0", out(reg) token, options(nostack, preserves_flags, readonly)) };
    token
}

/// As on other platforms.
#[cfg(all(target_arch = "aarch64", target_os = "linux"))]
#[inline(always)]
pub(crate) fn thread_token() -> usize {
    let token;
    // SAFETY: reads a register that every thread of the platform has its own value in.
    unsafe { std::arch::asm!("mrs {}, tpidr_el0", out(reg) token, options(nostack, nomem, preserves_flags)) };
    token
}

/// As on other platforms.
#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), target_os = "linux")))]
#[inline(never)]
pub(crate) fn thread_token() -> usize {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::pthread_self() as usize }
}
