//! SIGPIPE in the calling thread's signal mask, and among its pending signals.

use std::mem::MaybeUninit;
use std::ptr;

/// The set of SIGPIPE alone.
fn sigpipe() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set, and `sigaddset` changes it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
        set.assume_init()
    }
}

fn is_in(set: &libc::sigset_t) -> bool {
    // SAFETY: the reference guarantees an initialised set.
    unsafe { libc::sigismember(set, libc::SIGPIPE) == 1 }
}

/// Blocks SIGPIPE; returns whether it was blocked before.
pub(crate) fn block_sigpipe() -> bool {
    let mut before = MaybeUninit::uninit();
    // SAFETY: the call reads one set and writes the other, both valid. It fails only for an unknown
    // `how`, so `before` is initialised.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, &sigpipe(), before.as_mut_ptr());
        is_in(&before.assume_init())
    }
}

/// Unblocks SIGPIPE.
pub(crate) fn unblock_sigpipe() {
    // SAFETY: the call only reads a valid set.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &sigpipe(), ptr::null_mut()) };
}

/// Whether a SIGPIPE is pending.
pub(crate) fn sigpipe_is_pending() -> bool {
    let mut pending = MaybeUninit::uninit();
    // SAFETY: `sigpending` writes the set. It is read only after success.
    unsafe { libc::sigpending(pending.as_mut_ptr()) == 0 && is_in(&pending.assume_init()) }
}

/// Consumes a pending SIGPIPE, if there is one. The signal is blocked.
#[cfg(target_os = "linux")]
pub(crate) fn take_sigpipe() {
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        // SAFETY: the call only reads a valid set and a valid time.
        let taken = unsafe { libc::sigtimedwait(&sigpipe(), ptr::null_mut(), &now) };
        let interrupted = || std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted;
        if taken != -1 || !interrupted() {
            break;
        }
    }
}

/// Consumes a pending SIGPIPE, if there is one. The signal is blocked.
///
/// `sigwait` would wait for a signal, so this checks first.
#[cfg(not(target_os = "linux"))]
pub(crate) fn take_sigpipe() {
    let mut taken = 0;
    if sigpipe_is_pending() {
        // SAFETY: the call reads a valid set and writes a number.
        unsafe { libc::sigwait(&sigpipe(), &mut taken) };
    }
}
