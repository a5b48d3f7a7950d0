//! The calling thread's signal mask.

pub(crate) use selected::Mask;

/// Runs `f` with all asynchronous signals blocked on the calling thread.
///
/// Passes the previous mask to `f`. Signals that arrive meanwhile are delivered afterwards. Threads
/// created by `f` inherit the mask. Faults stay unblocked: if a fault's signal is blocked, the
/// kernel ends the process without calling its handler.
///
/// Needs about 200 bytes of stack on Linux.
#[inline(always)]
pub(crate) fn with_signals_blocked<R>(f: impl FnOnce(&Mask) -> R) -> R {
    let blocked = Changed(selected::set_mask(&selected::asynchronous()));
    f(&blocked.0)
}

/// Runs `f` with another signal mask.
#[cfg(feature = "runtime")]
pub(crate) fn with_signal_mask<R>(mask: &Mask, f: impl FnOnce() -> R) -> R {
    let _changed = Changed(selected::set_mask(mask));
    f()
}

/// A changed mask. Restores the previous one on drop, also during unwinding.
struct Changed(Mask);

impl Drop for Changed {
    fn drop(&mut self) {
        selected::set_mask(&self.0);
    }
}

/// Blocks all asynchronous signals, until the next change or the thread's end.
#[cfg(feature = "runtime")]
pub(crate) fn block_signals() {
    selected::set_mask(&selected::asynchronous());
}

/// The calling thread's signal mask.
#[cfg(feature = "runtime")]
pub(crate) fn signal_mask() -> Mask {
    selected::mask()
}

/// Sets the calling thread's signal mask.
#[cfg(feature = "runtime")]
pub(crate) fn set_signal_mask(mask: &Mask) {
    selected::set_mask(mask);
}

/// The signals that the kernel raises for the thread's own faults.
const FAULTS: [libc::c_int; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];

/// The system call itself.
///
/// libc's sets are 16 times as large. Filling one takes 7 calls, each of which the dynamic linker
/// may bind on the caller's stack.
#[cfg(target_os = "linux")]
mod selected {
    use std::ffi::{c_int, c_long, c_void};
    use std::ptr;
    use std::sync::atomic::AtomicPtr;
    use std::sync::atomic::Ordering::Relaxed;

    /// The kernel's set of 64 signals, 128 on MIPS.
    pub type Mask = [u64; WORDS];
    const WORDS: usize = if cfg!(any(target_arch = "mips", target_arch = "mips64")) { 2 } else { 1 };

    /// A pointer in data is bound when the library is loaded.
    static SYSCALL: AtomicPtr<c_void> = AtomicPtr::new(libc::syscall as *mut c_void);

    /// All signals but faults and those reserved by libc: 32 and 33, with musl also 34.
    pub const fn asynchronous() -> Mask {
        let mut mask = [u64::MAX; WORDS];
        let mut i = 0;
        while i < super::FAULTS.len() {
            mask[0] &= !(1 << (super::FAULTS[i] - 1));
            i += 1;
        }
        mask[0] &= !(if cfg!(target_env = "musl") { 0b111 } else { 0b11 } << 31);
        mask
    }

    /// Sets the thread's mask and returns the previous one.
    #[inline(always)]
    pub fn set_mask(mask: &Mask) -> Mask {
        change(mask)
    }

    /// The thread's mask.
    #[cfg(feature = "runtime")]
    pub fn mask() -> Mask {
        change(ptr::null())
    }

    /// Sets the mask, unless `to` is null, and returns the previous one.
    #[inline(always)]
    fn change(to: *const Mask) -> Mask {
        type Syscall = unsafe extern "C" fn(c_long, ...) -> c_long;
        let mut before = [0; WORDS];
        // SAFETY: the pointer is `libc::syscall`, cast in the initialiser of `SYSCALL`, and has
        // this type.
        let syscall: Syscall = unsafe { std::mem::transmute(SYSCALL.load(Relaxed)) };
        let how: c_int = libc::SIG_SETMASK;
        // SAFETY: the kernel reads one mask of the given size, unless `to` is null, and writes
        // another. Both are valid. With these arguments the call does not fail, so `errno` is
        // unchanged.
        unsafe { syscall(libc::SYS_rt_sigprocmask, how, to, ptr::from_mut(&mut before), size_of::<Mask>()) };
        before
    }
}

#[cfg(not(target_os = "linux"))]
mod selected {
    use std::mem::MaybeUninit;
    use std::ptr;

    pub type Mask = libc::sigset_t;

    /// All signals but faults.
    pub fn asynchronous() -> Mask {
        let mut all = MaybeUninit::uninit();
        // SAFETY: `sigfillset` initialises the set, and `sigdelset` changes it.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            for fault in super::FAULTS {
                libc::sigdelset(all.as_mut_ptr(), fault);
            }
            all.assume_init()
        }
    }

    /// Sets the thread's mask and returns the previous one.
    pub fn set_mask(mask: &Mask) -> Mask {
        change(mask)
    }

    /// The thread's mask.
    #[cfg(feature = "runtime")]
    pub fn mask() -> Mask {
        change(ptr::null())
    }

    /// Sets the mask, unless `to` is null, and returns the previous one.
    fn change(to: *const Mask) -> Mask {
        let mut before = MaybeUninit::uninit();
        // SAFETY: the call reads one set, unless `to` is null, and writes the other. Both are
        // valid. It fails only for an unknown `how`, so `before` is initialised.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, to, before.as_mut_ptr());
            before.assume_init()
        }
    }
}
