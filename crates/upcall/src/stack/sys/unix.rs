use std::ptr;
#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::config::GuardPages;

/// Linux 6.13 and later: makes pages fault without splitting the mapping.
#[cfg(target_os = "linux")]
const MADV_GUARD_INSTALL: libc::c_int = 102;

/// `size` bytes of untouched memory that starts at a multiple of `align`, a power of two.
pub fn reserve(size: usize, align: usize) -> Option<*mut u8> {
    let whole = size.checked_add(align)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping, at an address of the kernel's choice, touches nothing that exists.
    let at = unsafe { libc::mmap(ptr::null_mut(), whole, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return None;
    }
    let before = (at as usize).wrapping_neg() & (align - 1);
    let low = at.wrapping_byte_add(before);
    // SAFETY: both ranges are parts of the mapping just made that nobody knows of: what is before the
    // aligned range and what is behind it.
    unsafe {
        if before != 0 {
            libc::munmap(at, before);
        }
        libc::munmap(low.wrapping_byte_add(size), align - before);
    }
    // SAFETY: the range is ours. A huge page would make each stack cost 2 MiB; failing is harmless.
    #[cfg(target_os = "linux")]
    unsafe {
        libc::madvise(low, size, libc::MADV_NOHUGEPAGE)
    };
    Some(low.cast())
}

/// Makes `low..low + size` fault when touched; says whether it did.
///
/// # Safety
/// The range is whole pages of memory that is ours to protect, and nothing is kept in it, now or later.
pub unsafe fn guard(low: *mut u8, size: usize, how: GuardPages) -> bool {
    #[cfg(target_os = "linux")]
    if how == GuardPages::Auto {
        // SAFETY: the caller gives us the range, which holds nothing. An older kernel, or an mlocked range, answers EINVAL and changes nothing.
        let failed = unsafe { libc::madvise(low.cast(), size, MADV_GUARD_INSTALL) };
        if failed == 0 && heeds_advice(low, size) {
            return true;
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = how;
    // SAFETY: as above.
    unsafe { libc::mprotect(low.cast(), size, libc::PROT_NONE) == 0 }
}

/// Whether advice is taken when the system says so. Emulators of user mode say so of any: qemu, in which containers of another architecture run.
#[cfg(target_os = "linux")]
fn heeds_advice(low: *mut u8, size: usize) -> bool {
    static HEEDS: AtomicU8 = AtomicU8::new(UNKNOWN);
    const UNKNOWN: u8 = 2;
    const NO_ADVICE: libc::c_int = 0x7fff;
    let mut heeds = HEEDS.load(Relaxed);
    if heeds == UNKNOWN {
        // SAFETY: says nothing about the range, which is the caller's.
        heeds = u8::from(unsafe { libc::madvise(low.cast(), size, NO_ADVICE) } != 0);
        HEEDS.store(heeds, Relaxed);
    }
    heeds == 1
}

/// Returns the memory of `low..low + size` to the system; the range stays mapped.
///
/// # Safety
/// The range is part of what `reserve` returned, and nothing in it is needed any more.
pub unsafe fn give_back(low: *mut u8, size: usize) {
    // SAFETY: the caller says that the contents are not needed; failing leaves them there, which is harmless.
    unsafe { libc::madvise(low.cast(), size, libc::MADV_DONTNEED) };
}

/// The size of a page in bytes.
pub fn page_size() -> usize {
    // SAFETY: asks for a constant that every system has.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// Lets other threads run, those of a lower priority too when it has taken some rounds. Needs next to no stack.
pub fn wait_a_little(round: u32) {
    // SAFETY: neither has a precondition.
    unsafe {
        if round < 100 {
            libc::sched_yield();
        } else {
            libc::usleep(100);
        }
    }
}
