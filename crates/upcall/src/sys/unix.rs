//! POSIX, for systems without a file of their own.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

#[cfg(not(target_os = "freebsd"))]
const NO_RESERVE: c_int = libc::MAP_NORESERVE;
/// FreeBSD has no such flag.
#[cfg(target_os = "freebsd")]
const NO_RESERVE: c_int = 0;

pub const READ_WRITE: c_int = libc::PROT_READ | libc::PROT_WRITE;

/// How the process locks new memory: never, as far as is known here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Locks {
    Nothing,
}

/// Makes a new private mapping of `size` bytes.
pub fn map(size: usize, protection: c_int) -> Option<*mut c_void> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | NO_RESERVE;
    // SAFETY: a new mapping, at an address chosen by the kernel, does not affect existing memory.
    let at = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, -1, 0) };
    (at != libc::MAP_FAILED).then_some(at)
}

/// Makes a new private mapping of `size` bytes at a multiple of `align`, a power of two.
pub fn map_aligned(size: usize, align: usize, protection: c_int) -> Option<*mut c_void> {
    let at = map(size.checked_add(align)?, protection)?;
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
    Some(low)
}

/// Maps `size` bytes of untouched memory at a multiple of `align`, a power of two.
pub fn reserve(size: usize, align: usize) -> Option<(*mut u8, Locks)> {
    map_aligned(size, align, READ_WRITE).map(|low| (low.cast(), Locks::Nothing))
}

/// Does nothing: all of a mapping can be used.
pub fn commit(_low: *mut u8, _size: usize) -> bool {
    true
}

/// Does nothing: memory is there as soon as it is touched.
pub fn commit_stack(_low: *mut u8, _size: usize) -> bool {
    true
}

/// Does nothing: no memory is locked here.
pub fn lock(_how: Locks, _low: *mut u8, _size: usize) {}

/// Makes `low..low + size` fault when touched. Returns whether it succeeded.
///
/// # Safety
/// The range is whole pages of memory owned by the caller, and nothing is kept in it, now or later.
pub unsafe fn guard(low: *mut u8, size: usize) -> bool {
    // SAFETY: the caller owns the range, and nothing is kept in it.
    unsafe { libc::mprotect(low.cast(), size, libc::PROT_NONE) == 0 }
}

/// Always `false`: no such advice is known here.
///
/// # Safety
/// As for [`guard`].
pub unsafe fn guard_by_advice(_low: *mut u8, _size: usize) -> bool {
    false
}

/// Returns the memory of `low..low + size` to the system. The range stays mapped.
///
/// # Safety
/// The range is part of a result of `reserve`, and its contents are not needed any more.
pub unsafe fn give_back(_locks: Locks, low: *mut u8, size: usize) {
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

/// Pins the shared object that contains `address`: `dlclose` has no effect on it from now on.
#[cfg(not(target_feature = "crt-static"))]
pub fn pin(address: *const c_void) {
    pin_unless(address, |_| false);
}

/// Pins the shared object that contains `address`, unless `is_program(its base)`.
///
/// For the main program, which cannot be closed, the loader may not find its name, or increments
/// its count. Neither does harm.
#[cfg(not(target_feature = "crt-static"))]
pub fn pin_unless(address: *const c_void, is_program: impl FnOnce(usize) -> bool) {
    #[cfg(not(target_os = "netbsd"))]
    use libc::RTLD_NODELETE;
    /// Of NetBSD's `dlfcn.h`; libc has no constant for it.
    #[cfg(target_os = "netbsd")]
    const RTLD_NODELETE: c_int = 0x1000;

    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: `info` is valid for writing, and is read only after `dladdr` has filled it. With
    // `RTLD_NOLOAD`, `dlopen` loads nothing.
    unsafe {
        if libc::dladdr(address, info.as_mut_ptr()) != 0 {
            let object = info.assume_init();
            if !is_program(object.dli_fbase as usize) {
                const HOW: c_int = libc::RTLD_LAZY | libc::RTLD_NOLOAD | RTLD_NODELETE;
                libc::dlopen(object.dli_fname, HOW);
            }
        }
    }
}

/// Does nothing: a static program loads nothing.
#[cfg(target_feature = "crt-static")]
pub fn pin(_address: *const c_void) {}

/// The calling thread's `pthread_t`, as debuggers show it.
pub fn os_thread_id() -> usize {
    // SAFETY: `pthread_self` has no arguments and cannot fail.
    unsafe { libc::pthread_self() as usize }
}

/// Always `None`: thread names are not looked up on this system.
pub fn thread_name(_id: usize) -> Option<String> {
    None
}

/// The pthread key of `call_at_exit`, plus one; 0 before it is created. Atomic, not under a lock
/// that a fork could leave locked.
static KEY: AtomicUsize = AtomicUsize::new(0);

fn key() -> Option<libc::pthread_key_t> {
    KEY.load(Acquire).checked_sub(1).map(|key| key as libc::pthread_key_t)
}

/// Has `f(value)` called when the calling thread exits. Returns whether this is possible: a process
/// has a limited number of keys.
pub fn call_at_exit(value: *const c_void, f: extern "C" fn(*mut c_void)) -> bool {
    if KEY.load(Acquire) == 0 {
        let mut key = 0;
        // SAFETY: `key` is valid for writing, and the destructor accepts the values that it gets.
        if unsafe { libc::pthread_key_create(&mut key, Some(f)) } != 0 {
            return false;
        }
        if KEY.compare_exchange(0, key as usize + 1, AcqRel, Acquire).is_err() {
            // SAFETY: another thread stored its key first, so nobody uses this one.
            unsafe { libc::pthread_key_delete(key) };
        }
    }
    let Some(key) = key() else { return false };
    // SAFETY: the key was created and is never deleted.
    unsafe { libc::pthread_setspecific(key, value) == 0 }
}

/// The value of the thread's last `call_at_exit`, or null.
///
/// Uses no thread-local storage: a thread older than this library may not have it yet.
pub fn exit_value() -> *const c_void {
    // SAFETY: the key was created and is never deleted.
    key().map_or(ptr::null(), |key| unsafe { libc::pthread_getspecific(key).cast_const() })
}

/// Whether the calling thread has no alternate stack.
pub fn lacks_alternate_stack() -> io::Result<bool> {
    Ok(alternate_stack()?.ss_flags & libc::SS_DISABLE != 0)
}

/// Gives the calling thread the alternate stack `low..low + size`, for its handlers alone.
pub fn set_alternate_stack(low: usize, size: usize) -> io::Result<()> {
    change_alternate_stack(&libc::stack_t { ss_sp: low as *mut _, ss_size: size, ss_flags: 0 })
}

/// Removes the calling thread's alternate stack if it is `low..low + size`. Returns whether it did.
/// It stays if handlers run on it.
pub fn remove_alternate_stack(low: usize, size: usize) -> bool {
    // Some systems check the size, though it has no effect here.
    let none = libc::stack_t { ss_sp: ptr::null_mut(), ss_size: size, ss_flags: libc::SS_DISABLE };
    alternate_stack().is_ok_and(|stack| stack.ss_sp as usize == low) && change_alternate_stack(&none).is_ok()
}

fn alternate_stack() -> io::Result<libc::stack_t> {
    // SAFETY: all-zero is a valid `stack_t`: a null pointer and integers.
    let mut stack: libc::stack_t = unsafe { zeroed() };
    // SAFETY: a null first argument changes nothing. The second is valid for writing one `stack_t`.
    match unsafe { libc::sigaltstack(ptr::null(), &mut stack) } {
        0 => Ok(stack),
        _ => Err(io::Error::last_os_error()),
    }
}

fn change_alternate_stack(stack: &libc::stack_t) -> io::Result<()> {
    // SAFETY: `stack` disables the alternate stack, or is memory for this thread's handlers alone.
    match unsafe { libc::sigaltstack(stack, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The signals that the kernel raises for the thread's own faults.
pub const FAULTS: [c_int; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];

pub type Mask = libc::sigset_t;

/// All signals but faults.
pub fn asynchronous() -> Mask {
    let mut all = MaybeUninit::uninit();
    // SAFETY: `sigfillset` initialises the set, and `sigdelset` changes it.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        for fault in FAULTS {
            libc::sigdelset(all.as_mut_ptr(), fault);
        }
        all.assume_init()
    }
}

/// Sets the thread's mask and returns the previous one.
pub fn set_mask(mask: &Mask) -> Mask {
    change_mask(mask)
}

/// The thread's mask.
pub fn mask() -> Mask {
    change_mask(ptr::null())
}

/// Sets the mask, unless `to` is null, and returns the previous one.
fn change_mask(to: *const Mask) -> Mask {
    let mut before = MaybeUninit::uninit();
    // SAFETY: the call reads one set, unless `to` is null, and writes the other. Both are valid. It
    // fails only for an unknown `how`, so `before` is initialised.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, to, before.as_mut_ptr());
        before.assume_init()
    }
}

/// The set of SIGPIPE alone.
pub fn sigpipe() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set, and `sigaddset` changes it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
        set.assume_init()
    }
}

/// Whether SIGPIPE is in an initialised set.
pub fn has_sigpipe(set: &libc::sigset_t) -> bool {
    // SAFETY: the reference guarantees an initialised set.
    unsafe { libc::sigismember(set, libc::SIGPIPE) == 1 }
}

/// Whether a SIGPIPE is pending.
pub fn sigpipe_is_pending() -> bool {
    let mut pending = MaybeUninit::uninit();
    // SAFETY: `sigpending` writes the set. It is read only after success.
    unsafe { libc::sigpending(pending.as_mut_ptr()) == 0 && has_sigpipe(&pending.assume_init()) }
}

/// Blocks SIGPIPE; returns whether it was blocked before.
pub fn block_sigpipe() -> bool {
    let mut before = MaybeUninit::uninit();
    // SAFETY: the call reads one set and writes the other, both valid. It fails only for an unknown
    // `how`, so `before` is initialised.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, &sigpipe(), before.as_mut_ptr());
        has_sigpipe(&before.assume_init())
    }
}

/// Unblocks SIGPIPE.
pub fn unblock_sigpipe() {
    // SAFETY: the call only reads a valid set.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &sigpipe(), ptr::null_mut()) };
}

/// Consumes a pending SIGPIPE, if there is one. The signal is blocked.
///
/// `sigwait` would wait for a signal, so this checks first.
pub fn take_sigpipe() {
    let mut taken = 0;
    if sigpipe_is_pending() {
        // SAFETY: the call reads a valid set and writes a number.
        unsafe { libc::sigwait(&sigpipe(), &mut taken) };
    }
}

/// Threads have no numbers of use for [`is_blocked`] here.
pub fn thread_number() -> i32 {
    0
}

/// Always `true`: nothing is known.
pub fn is_blocked(_thread: i32) -> bool {
    true
}

/// The address of the invalid access.
pub fn fault_address(info: &libc::siginfo_t) -> Option<usize> {
    // SAFETY: the caller passes only faults that were not sent, and for these `si_addr` is valid.
    Some(unsafe { info.si_addr() as usize })
}

pub const STDERR: c_int = libc::STDERR_FILENO;

/// Writes all bytes to a descriptor.
///
/// # Safety
/// If the descriptor is open, the caller may write to it.
pub unsafe fn write_all(descriptor: c_int, mut remaining: &[u8]) -> io::Result<()> {
    while !remaining.is_empty() {
        // SAFETY: `remaining` is a slice, readable for its length. The caller may write there.
        let written = unsafe { libc::write(descriptor, remaining.as_ptr().cast(), remaining.len()) };
        match usize::try_from(written) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => remaining = &remaining[written..],
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
    Ok(())
}

/// Always `None`: not available on this system.
pub fn own_thread_name(_buffer: &mut [u8; 16]) -> Option<&str> {
    None
}

/// Always `None`: not available on this system.
pub fn lowest_resident(_low: usize, _high: usize) -> Option<usize> {
    None
}

/// The number of bytes below the calling thread's own stack with probably no other mapping.
pub fn reach_below_own_stack() -> usize {
    super::REACH
}
