//! Questions of the fault handler to the system.
//!
//! All of these functions are async-signal-safe.

mod isa;

pub(super) use isa::{code_pointer, stack_pointer};

/// Whether the signal was sent, by `kill` and the like. Otherwise it comes from an instruction,
/// which would fault again.
pub(super) fn was_sent(info: &libc::siginfo_t) -> bool {
    info.si_code <= 0
}

/// Whether the process sent the signal to itself, as `abort` does.
pub(super) fn was_sent_here(info: &libc::siginfo_t) -> bool {
    // SAFETY: a sent signal has a sender, so `si_pid` is valid. `getpid` has no preconditions.
    was_sent(info) && unsafe { info.si_pid() == libc::getpid() }
}

/// The address of the invalid access, if the system tells it.
pub(super) fn fault_address(info: &libc::siginfo_t) -> Option<usize> {
    /// `SI_KERNEL` of Linux: the kernel itself raised the signal, for example for non-canonical
    /// addresses on x86-64. It then gives no address.
    const BY_KERNEL: libc::c_int = 0x80;
    // SAFETY: the caller passes only faults that were not sent, and for these `si_addr` is valid.
    (info.si_code != BY_KERNEL).then(|| unsafe { info.si_addr() as usize })
}

/// Saves `errno`. Dropping it restores `errno` for the interrupted code.
pub(super) struct SavedErrno(i32);

impl SavedErrno {
    pub fn new() -> Self {
        Self(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }
}

impl Drop for SavedErrno {
    fn drop(&mut self) {
        // SAFETY: `errno()` is valid for the calling thread, and no other thread uses it.
        unsafe { *errno() = self.0 };
    }
}

#[cfg(any(target_os = "illumos", target_os = "solaris"))]
use libc::___errno as errno;
#[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
use libc::__errno as errno;
#[cfg(target_os = "linux")]
use libc::__errno_location as errno;
#[cfg(any(target_os = "freebsd", target_vendor = "apple"))]
use libc::__error as errno;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod selected {
    /// The calling thread's name, read into `buffer`.
    pub fn thread_name(buffer: &mut [u8; 16]) -> Option<&str> {
        // SAFETY: PR_GET_NAME writes at most 16 bytes, the size of `buffer`.
        let failed = unsafe { libc::prctl(libc::PR_GET_NAME, buffer.as_mut_ptr()) } != 0;
        let name = std::ffi::CStr::from_bytes_until_nul(buffer).ok()?;
        name.to_str().ok().filter(|_| !failed)
    }

    /// The lowest page of `low..high` in memory; `None` if there is none.
    ///
    /// The search goes downwards, and ends at the first unmapped page: a main thread's stack grows,
    /// and the pages below are not yet part of it.
    pub fn lowest_resident(low: usize, high: usize) -> Option<usize> {
        // SAFETY: `sysconf` has no preconditions.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        const PAGES: usize = 64;
        let mut lowest = None;
        let mut pages = PAGES;
        let mut to = high.next_multiple_of(page);
        let bottom = low.next_multiple_of(page);
        while to > bottom && pages > 0 {
            let from = to.saturating_sub(pages * page).max(bottom);
            let mut resident = [0_u8; PAGES];
            // SAFETY: `mincore` writes one byte per page; `from..to` has at most `PAGES` pages, the
            // size of the array.
            if unsafe { libc::mincore(from as *mut libc::c_void, to - from, resident.as_mut_ptr()) } != 0 {
                pages /= 2;
                continue;
            }
            let count = (to - from) / page;
            if let Some(first) = resident[..count].iter().position(|page| page & 1 != 0) {
                lowest = Some((from + first * page).max(low));
            }
            to = from;
        }
        lowest
    }

    /// The number of bytes below the calling thread's own stack with no other mapping, or probably
    /// none.
    ///
    /// An access there is an overflow of the own stack.
    pub fn reach_below_own_stack() -> usize {
        // SAFETY: `getpid` and `gettid` have no preconditions.
        let is_main = unsafe { libc::getpid() == libc::gettid() };
        // Below the main thread's stack, the kernel keeps 256 pages free.
        if is_main { 1 << 20 } else { super::REACH }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod selected {
    /// Not available on this system.
    pub fn lowest_resident(_low: usize, _high: usize) -> Option<usize> {
        None
    }

    /// Not available on this system.
    pub fn thread_name(_buffer: &mut [u8; 16]) -> Option<&str> {
        None
    }

    /// The number of bytes below the calling thread's own stack with probably no other mapping.
    ///
    /// An access there is an overflow of the own stack.
    pub fn reach_below_own_stack() -> usize {
        super::REACH
    }
}

pub(super) use selected::{lowest_resident, reach_below_own_stack, thread_name};

/// The number of bytes below a stack in which an access counts as an overflow.
///
/// It is more than a page, because frames of C code are not probed and may reach further.
pub(super) const REACH: usize = 64 << 10;
