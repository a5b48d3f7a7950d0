//! How people name threads: in messages and snapshots, never for identity.

#[cfg(target_os = "linux")]
mod selected {
    /// The kernel's number of the calling thread: what `ps -T` and gdb show.
    pub fn thread_id() -> u64 {
        // SAFETY: no arguments, cannot fail.
        unsafe { libc::gettid() as u64 }
    }

    /// The thread's name, if it is alive and has one.
    pub fn thread_name(id: u64) -> Option<String> {
        let name = std::fs::read_to_string(format!("/proc/self/task/{id}/comm")).ok()?;
        Some(name.trim_end().to_owned())
    }
}

#[cfg(not(target_os = "linux"))]
mod selected {
    /// The thread's `pthread_t`.
    pub fn thread_id() -> u64 {
        // SAFETY: no arguments, cannot fail.
        unsafe { libc::pthread_self() as u64 }
    }

    /// Not looked up here.
    pub fn thread_name(_id: u64) -> Option<String> {
        None
    }
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

pub(crate) use selected::{thread_id, thread_name};
