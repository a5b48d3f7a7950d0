//! What the executors need of the operating system.
//!
//! Contract: an `EventFd` is a descriptor that is readable from `signal` to `clear`, not inherited by programs that are executed, and after `renew`
//! not shared with the process that this one was forked from; `with_signals_blocked` runs its closure, in which threads are made, such that they
//! serve none of the host's signals but those of their own faults;
//! `is_blocked` says whether the thread with that number sleeps in the kernel, rather than computes or waits for a core; where that is not known,
//! it says so of all.

#[cfg(all(not(upcall_loom), target_os = "linux"))]
#[path = "eventfd.rs"]
mod event;

#[cfg(all(not(upcall_loom), not(target_os = "linux")))]
#[path = "pipe.rs"]
mod event;

#[cfg(upcall_loom)]
#[path = "loom.rs"]
mod event;

use std::mem::MaybeUninit;

pub(super) use event::EventFd;

pub(super) fn with_signals_blocked<R>(f: impl FnOnce() -> R) -> R {
    let mut before = MaybeUninit::uninit();
    // SAFETY: sigfillset writes the set, sigdelset changes it; pthread_sigmask reads one and writes the other.
    unsafe {
        let mut all = MaybeUninit::uninit();
        libc::sigfillset(all.as_mut_ptr());
        // A fault whose signal is blocked ends the process without asking anybody's handler.
        for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS] {
            libc::sigdelset(all.as_mut_ptr(), fault);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let result = f();
    // SAFETY: written above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    result
}

/// The calling thread's number.
#[cfg(target_os = "linux")]
pub(super) fn thread_number() -> i32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::gettid() }
}

#[cfg(target_os = "linux")]
pub(super) fn is_blocked(thread: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
    // The state follows the name, which is in parentheses and may contain some.
    stat.map_or(true, |stat| !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('R')))
}

/// Threads have no numbers here that tell anything.
#[cfg(not(target_os = "linux"))]
pub(super) fn thread_number() -> i32 {
    0
}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_blocked(_thread: i32) -> bool {
    true
}
