use std::ptr;
#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::config::GuardPages;

/// Advice of Linux 6.13 and later: makes pages fault without splitting the mapping.
#[cfg(target_os = "linux")]
const MADV_GUARD_INSTALL: libc::c_int = 102;

#[cfg(not(target_os = "freebsd"))]
const NO_RESERVE: libc::c_int = libc::MAP_NORESERVE;
/// FreeBSD has no such flag.
#[cfg(target_os = "freebsd")]
const NO_RESERVE: libc::c_int = 0;

const READ_WRITE: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;

/// How the process locks new memory (`mlockall(MCL_FUTURE)`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Locks {
    /// The process does not lock new memory.
    Nothing,
    /// Pages are resident and locked as soon as they are mapped.
    #[cfg(target_os = "linux")]
    AtOnce,
    /// Pages are locked when touched (`MCL_ONFAULT`).
    #[cfg(target_os = "linux")]
    WhenTouched,
}

/// Makes a new private mapping of `size` bytes.
fn map(size: usize, protection: libc::c_int) -> Option<*mut libc::c_void> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | NO_RESERVE;
    // SAFETY: a new mapping, at an address chosen by the kernel, does not affect existing memory.
    let at = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, -1, 0) };
    (at != libc::MAP_FAILED).then_some(at)
}

/// Maps `size` bytes of untouched memory at a multiple of `align`, a power of two.
pub fn reserve(size: usize, align: usize) -> Option<(*mut u8, Locks)> {
    let whole = size.checked_add(align)?;
    // If the memory may be locked, it is inaccessible at first, so the system fills in no pages.
    let at = map(whole, if cfg!(target_os = "linux") { libc::PROT_NONE } else { READ_WRITE })?;
    let before = (at as usize).wrapping_neg() & (align - 1);
    let low = at.wrapping_byte_add(before);
    // SAFETY: both ranges are parts of the new mapping, below and above the aligned range. Nobody
    // else knows of them.
    unsafe {
        if before != 0 {
            libc::munmap(at, before);
        }
        libc::munmap(low.wrapping_byte_add(size), align - before);
    }
    #[cfg(target_os = "linux")]
    let locks = {
        let locks = unlock(low, size);
        // SAFETY: the range is ours, and nobody else knows of it if `mprotect` fails. Huge pages
        // are refused because each stack would then take 2 MiB; it does no harm if that fails.
        unsafe {
            if libc::mprotect(low, size, READ_WRITE) != 0 {
                libc::munmap(low, size);
                return None;
            }
            libc::madvise(low, size, libc::MADV_NOHUGEPAGE);
        }
        locks
    };
    #[cfg(not(target_os = "linux"))]
    let locks = Locks::Nothing;
    Some((low.cast(), locks))
}

/// Unlocks new memory holding nothing. Returns how the process locks new memory.
#[cfg(target_os = "linux")]
fn unlock(low: *mut libc::c_void, size: usize) -> Locks {
    let page = page_size();
    // SAFETY: the caller owns the range, and it holds nothing. The kernel refuses this advice for
    // locked memory.
    unsafe {
        let refused = libc::madvise(low, page, libc::MADV_DONTNEED) != 0;
        if !refused || std::io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
            return Locks::Nothing;
        }
        libc::munlock(low, size);
    }
    let Some(probe) = map(page, READ_WRITE) else { return Locks::AtOnce };
    let mut resident = 0;
    // SAFETY: the page is ours, and `resident` has room for the one byte written for it.
    unsafe {
        libc::mincore(probe, page, &raw mut resident);
        libc::munmap(probe, page);
    }
    if resident & 1 == 0 { Locks::WhenTouched } else { Locks::AtOnce }
}

/// Locks `low..low + size`, part of a result of `reserve`, in the way `how`.
///
/// Memory beyond `RLIMIT_MEMLOCK` stays unlocked and is used all the same.
#[cfg(target_os = "linux")]
pub fn lock(how: Locks, low: *mut u8, size: usize) {
    const MLOCK_ONFAULT: libc::c_uint = 1;
    // SAFETY: the caller owns the range, and locking does not change its contents.
    unsafe {
        match how {
            Locks::Nothing => {}
            Locks::AtOnce => drop(libc::mlock(low.cast(), size)),
            Locks::WhenTouched => drop(libc::syscall(libc::SYS_mlock2, low, size, MLOCK_ONFAULT)),
        }
    }
}

/// Does nothing: this system locks no memory here.
#[cfg(not(target_os = "linux"))]
pub fn lock(_how: Locks, _low: *mut u8, _size: usize) {}

/// Makes `low..low + size` fault when touched. Returns whether it succeeded.
///
/// # Safety
/// The range is whole pages of memory owned by the caller, and nothing is kept in it, now or later.
pub unsafe fn guard(low: *mut u8, size: usize, how: GuardPages) -> bool {
    #[cfg(target_os = "linux")]
    if how == GuardPages::Auto {
        // SAFETY: the caller owns the range, and it holds nothing. For an mlocked range, or on an
        // older kernel, the call fails with EINVAL and changes nothing.
        let failed = unsafe { libc::madvise(low.cast(), size, MADV_GUARD_INSTALL) };
        if failed == 0 && heeds_advice(low, size) {
            return true;
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = how;
    // SAFETY: the caller owns the range, and nothing is kept in it.
    unsafe { libc::mprotect(low.cast(), size, libc::PROT_NONE) == 0 }
}

/// Whether the system takes the advice when it reports success.
///
/// Emulators of user mode report success for any advice. One is qemu, used to run containers of
/// other architectures.
#[cfg(target_os = "linux")]
fn heeds_advice(low: *mut u8, size: usize) -> bool {
    static HEEDS: AtomicU8 = AtomicU8::new(UNKNOWN);
    const UNKNOWN: u8 = 2;
    const NO_ADVICE: libc::c_int = 0x7fff;
    let mut heeds = HEEDS.load(Relaxed);
    if heeds == UNKNOWN {
        // SAFETY: no such advice exists, so the call does not affect the caller's range.
        heeds = u8::from(unsafe { libc::madvise(low.cast(), size, NO_ADVICE) } != 0);
        HEEDS.store(heeds, Relaxed);
    }
    heeds == 1
}

/// Unlocks `low..low + size` and returns its memory to the system. The range stays mapped.
///
/// # Safety
/// The range is part of a result of `reserve`, and its contents are not needed any more.
pub unsafe fn give_back(locks: Locks, low: *mut u8, size: usize) {
    if locks != Locks::Nothing {
        // SAFETY: the range is mapped, and unlocking does not change its contents.
        unsafe { libc::munlock(low.cast(), size) };
    }
    // SAFETY: the caller guarantees that the contents are not needed. If the call fails they stay,
    // harmlessly.
    unsafe { libc::madvise(low.cast(), size, libc::MADV_DONTNEED) };
}

/// The size of a page in bytes.
pub fn page_size() -> usize {
    // SAFETY: `sysconf` only returns a constant, known to every system.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// Lets other threads run. After 100 rounds, threads of lower priority run, too.
///
/// Needs next to no stack.
pub fn wait_a_little(round: u32) {
    // SAFETY: neither function has a precondition.
    unsafe {
        if round < 100 {
            libc::sched_yield();
        } else {
            libc::usleep(100);
        }
    }
}
