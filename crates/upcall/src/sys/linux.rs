//! Linux, with glibc or musl.

use std::ffi::{CStr, c_int, c_long, c_void};
use std::ptr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicPtr, AtomicU8};

pub use super::unix::*;

/// Advice of Linux 6.13 and later: makes pages fault without splitting the mapping.
const MADV_GUARD_INSTALL: c_int = 102;

/// How the process locks new memory (`mlockall(MCL_FUTURE)`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Locks {
    /// The process does not lock new memory.
    Nothing,
    /// Pages are resident and locked as soon as they are mapped.
    AtOnce,
    /// Pages are locked when touched (`MCL_ONFAULT`).
    WhenTouched,
}

/// Maps `size` bytes of untouched memory at a multiple of `align`, a power of two.
///
/// If new memory is locked, it is inaccessible at first, so the system fills in no pages.
pub fn reserve(size: usize, align: usize) -> Option<(*mut u8, Locks)> {
    let low = map_aligned(size, align, libc::PROT_NONE)?;
    let locks = unlock(low, size);
    // SAFETY: the range is ours, and nobody else knows of it if `mprotect` fails. Huge pages are
    // refused because each stack would then take 2 MiB; it does no harm if that fails.
    unsafe {
        if libc::mprotect(low, size, READ_WRITE) != 0 {
            libc::munmap(low, size);
            return None;
        }
        libc::madvise(low, size, libc::MADV_NOHUGEPAGE);
    }
    Some((low.cast(), locks))
}

/// Unlocks new memory holding nothing. Returns how the process locks new memory.
fn unlock(low: *mut c_void, size: usize) -> Locks {
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

/// Makes `low..low + size` fault when touched, without splitting the mapping. Returns whether it
/// succeeded.
///
/// # Safety
/// The range is whole pages of memory owned by the caller, and nothing is kept in it, now or later.
pub unsafe fn guard_by_advice(low: *mut u8, size: usize) -> bool {
    // SAFETY: the caller owns the range, and it holds nothing. For an mlocked range, or on an older
    // kernel, the call fails with EINVAL and changes nothing.
    let failed = unsafe { libc::madvise(low.cast(), size, MADV_GUARD_INSTALL) };
    failed == 0 && heeds_advice(low, size)
}

/// Whether the system takes the advice when it reports success.
///
/// Emulators of user mode report success for any advice. One is qemu, used to run containers of
/// other architectures.
fn heeds_advice(low: *mut u8, size: usize) -> bool {
    static HEEDS: AtomicU8 = AtomicU8::new(UNKNOWN);
    const UNKNOWN: u8 = 2;
    const NO_ADVICE: c_int = 0x7fff;
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

/// Pins the shared object that contains `address`, unless it is the main program: `dlclose` has no
/// effect on it from now on.
#[cfg(not(target_feature = "crt-static"))]
pub fn pin(address: *const c_void) {
    pin_unless(address, |base| {
        // SAFETY: `getauxval` only reads a value from the kernel.
        let headers = unsafe { libc::getauxval(libc::AT_PHDR) } as usize;
        // The program headers of an object are on its first page.
        headers.wrapping_sub(base) < 4096
    });
}

/// The name of the live thread with the `pthread_t` `id`.
pub fn thread_name(id: usize) -> Option<String> {
    let mut name = [0u8; 16];
    // SAFETY: the caller guarantees that the thread is alive. The buffer has the length given, and
    // 16 bytes hold any name.
    let failed =
        unsafe { libc::pthread_getname_np(id as libc::pthread_t, name.as_mut_ptr().cast(), name.len()) };
    let name = CStr::from_bytes_until_nul(&name).ok()?;
    (failed == 0).then(|| name.to_string_lossy().into_owned())
}

/// The kernel's set of 64 signals, 128 on MIPS.
pub type Mask = [u64; WORDS];
const WORDS: usize = if cfg!(any(target_arch = "mips", target_arch = "mips64")) { 2 } else { 1 };

/// All signals but faults and those reserved by libc: 32 and 33, with musl also 34.
pub const fn asynchronous() -> Mask {
    let mut mask = [u64::MAX; WORDS];
    let mut i = 0;
    while i < FAULTS.len() {
        mask[0] &= !(1 << (FAULTS[i] - 1));
        i += 1;
    }
    mask[0] &= !(if cfg!(target_env = "musl") { 0b111 } else { 0b11 } << 31);
    mask
}

/// Sets the thread's mask and returns the previous one.
#[inline(always)]
pub fn set_mask(mask: &Mask) -> Mask {
    change_mask(mask)
}

/// The thread's mask.
#[cfg(feature = "runtime")]
pub fn mask() -> Mask {
    change_mask(ptr::null())
}

/// Sets the mask, unless `to` is null, and returns the previous one, by the system call itself.
///
/// libc's sets are 16 times as large. Filling one takes 7 calls, each of which the dynamic linker
/// may bind on the caller's stack.
#[inline(always)]
fn change_mask(to: *const Mask) -> Mask {
    /// A pointer in data is bound when the library is loaded.
    static SYSCALL: AtomicPtr<c_void> = AtomicPtr::new(libc::syscall as *mut c_void);
    type Syscall = unsafe extern "C" fn(c_long, ...) -> c_long;
    let mut before = [0; WORDS];
    // SAFETY: the pointer is `libc::syscall`, cast in the initialiser of `SYSCALL`, and has this
    // type.
    let syscall: Syscall = unsafe { std::mem::transmute(SYSCALL.load(Relaxed)) };
    let how: c_int = libc::SIG_SETMASK;
    // SAFETY: the kernel reads one mask of the given size, unless `to` is null, and writes another.
    // Both are valid. With these arguments the call does not fail, so `errno` is unchanged.
    unsafe { syscall(libc::SYS_rt_sigprocmask, how, to, ptr::from_mut(&mut before), size_of::<Mask>()) };
    before
}

/// Consumes a pending SIGPIPE, if there is one. The signal is blocked.
pub fn take_sigpipe() {
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

/// The calling thread's number, for [`is_blocked`].
#[cfg(feature = "runtime")]
pub fn thread_number() -> i32 {
    // SAFETY: the call takes no arguments and cannot fail.
    unsafe { libc::gettid() }
}

/// Whether the thread sleeps in the kernel.
#[cfg(feature = "runtime")]
pub fn is_blocked(thread: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
    // The state follows the name. The name is in parentheses, and may contain some.
    stat.map_or(true, |stat| !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('R')))
}

/// The address of the invalid access, if the kernel tells it.
pub fn fault_address(info: &libc::siginfo_t) -> Option<usize> {
    /// The kernel itself raised the signal, for example for non-canonical addresses on x86-64. It
    /// then gives no address.
    const SI_KERNEL: c_int = 0x80;
    // SAFETY: the caller passes only faults that were not sent, and for these `si_addr` is valid.
    (info.si_code != SI_KERNEL).then(|| unsafe { info.si_addr() as usize })
}

/// The calling thread's name, read into `buffer`.
pub fn own_thread_name(buffer: &mut [u8; 16]) -> Option<&str> {
    // SAFETY: PR_GET_NAME writes at most 16 bytes, the size of `buffer`.
    let failed = unsafe { libc::prctl(libc::PR_GET_NAME, buffer.as_mut_ptr()) } != 0;
    let name = CStr::from_bytes_until_nul(buffer).ok()?;
    name.to_str().ok().filter(|_| !failed)
}

/// The lowest page of `low..high` in memory; `None` if there is none.
///
/// The search goes downwards, and ends at the first unmapped page: a main thread's stack grows, and
/// the pages below are not yet part of it.
pub fn lowest_resident(low: usize, high: usize) -> Option<usize> {
    const PAGES: usize = 64;
    let page = page_size();
    let mut lowest = None;
    let mut pages = PAGES;
    let mut to = high.next_multiple_of(page);
    let bottom = low.next_multiple_of(page);
    while to > bottom && pages > 0 {
        let from = to.saturating_sub(pages * page).max(bottom);
        let mut resident = [0_u8; PAGES];
        // SAFETY: `mincore` writes one byte per page; `from..to` has at most `PAGES` pages, the
        // size of the array.
        if unsafe { libc::mincore(from as *mut c_void, to - from, resident.as_mut_ptr()) } != 0 {
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
pub fn reach_below_own_stack() -> usize {
    // SAFETY: `getpid` and `gettid` have no preconditions.
    let is_main = unsafe { libc::getpid() == libc::gettid() };
    // Below the main thread's stack, the kernel keeps 256 pages free.
    if is_main { 1 << 20 } else { super::REACH }
}
