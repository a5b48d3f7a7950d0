//! What the handler of a fault asks the system: all of it safe in a handler of any signal.

mod isa;

pub(super) use isa::stack_pointer;

/// Whether a signal was sent, by `kill` and the like, and does not come from an instruction that would fault again.
pub(super) fn was_sent(info: &libc::siginfo_t) -> bool {
    info.si_code <= 0
}

/// The address that was touched.
pub(super) fn fault_address(info: &libc::siginfo_t) -> usize {
    // SAFETY: called for signals that have one: SIGSEGV and SIGBUS that were not sent.
    unsafe { info.si_addr() as usize }
}

/// Keeps `errno` as the interrupted code has it.
pub(super) struct KeptErrno(i32);

impl KeptErrno {
    pub fn new() -> Self {
        Self(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod selected {
    use super::KeptErrno;

    impl Drop for KeptErrno {
        fn drop(&mut self) {
            // SAFETY: the calling thread's own.
            unsafe { *errno() = self.0 };
        }
    }

    #[cfg(target_os = "android")]
    use libc::__errno as errno;
    #[cfg(target_os = "linux")]
    use libc::__errno_location as errno;

    /// The calling thread's name, in `buffer`.
    pub fn thread_name(buffer: &mut [u8; 16]) -> Option<&str> {
        // SAFETY: writes 16 bytes at most.
        let failed = unsafe { libc::prctl(libc::PR_GET_NAME, buffer.as_mut_ptr()) } != 0;
        let name = std::ffi::CStr::from_bytes_until_nul(buffer).ok()?;
        name.to_str().ok().filter(|_| !failed)
    }

    /// The lowest page of `low..high` that is in memory. What is below a page that is not mapped is not looked at: a main thread's stack grows.
    pub fn lowest_resident(low: usize, high: usize) -> Option<usize> {
        // SAFETY: no preconditions.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        const PAGES: usize = 64;
        let mut lowest = None;
        let mut pages = PAGES;
        let mut to = high.next_multiple_of(page);
        let bottom = low.next_multiple_of(page);
        while to > bottom && pages > 0 {
            let from = to.saturating_sub(pages * page).max(bottom);
            let mut resident = [0_u8; PAGES];
            // SAFETY: one byte is written for each page, of which there are `PAGES` at most.
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

    /// How far below the low end of the calling thread's own stack nothing else can be mapped, or is likely to be.
    pub fn reach_below_own_stack() -> usize {
        // SAFETY: no preconditions.
        let is_main = unsafe { libc::getpid() == libc::gettid() };
        // The kernel keeps 256 pages below the stack that the process began on free.
        if is_main { 1 << 20 } else { super::REACH }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod selected {
    /// Not looked up here.
    pub fn lowest_resident(_low: usize, _high: usize) -> Option<usize> {
        None
    }

    /// Not looked up here.
    pub fn thread_name(_buffer: &mut [u8; 16]) -> Option<&str> {
        None
    }

    /// How far below the low end of the calling thread's own stack nothing else is likely to be.
    pub fn reach_below_own_stack() -> usize {
        super::REACH
    }
}

pub(super) use selected::{lowest_resident, reach_below_own_stack, thread_name};

/// How far below the low end of a stack an overflow of it is looked for: frames of C code are not probed, and may reach past a page.
pub(super) const REACH: usize = 64 << 10;
