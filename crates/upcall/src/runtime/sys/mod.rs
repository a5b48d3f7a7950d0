//! The executors' needs from the operating system.
//!
//! Contract:
//! - An `EventFd` is a descriptor, readable from `signal` to `clear`. Executed programs do not
//!   inherit it. After `renew`, it is not shared with the process from which this one was forked.
//! - `is_blocked` returns whether the thread with that number sleeps in the kernel, and neither
//!   computes nor waits for a core. If nothing is known, it returns `true`.

#[cfg(all(not(upcall_loom), target_os = "linux"))]
#[path = "eventfd.rs"]
mod event;

#[cfg(all(not(upcall_loom), not(target_os = "linux")))]
#[path = "pipe.rs"]
mod event;

#[cfg(upcall_loom)]
#[path = "loom.rs"]
mod event;

pub(super) use event::EventFd;

/// The calling thread's number, for `is_blocked`.
#[cfg(target_os = "linux")]
pub(super) fn thread_number() -> i32 {
    // SAFETY: the call takes no arguments and cannot fail.
    unsafe { libc::gettid() }
}

#[cfg(target_os = "linux")]
pub(super) fn is_blocked(thread: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
    // The state follows the name. The name is in parentheses, and may contain some.
    stat.map_or(true, |stat| !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('R')))
}

/// Here, threads have no numbers of use.
#[cfg(not(target_os = "linux"))]
pub(super) fn thread_number() -> i32 {
    0
}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_blocked(_thread: i32) -> bool {
    true
}
