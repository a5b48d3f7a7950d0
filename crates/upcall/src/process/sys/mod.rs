//! The constructor, which pins the library, and the signal masks of threads.

mod signals;
mod sigpipe;

pub(crate) use signals::with_signals_blocked;
#[cfg(feature = "runtime")]
pub(crate) use signals::{Mask, block_signals, set_signal_mask, signal_mask, with_signal_mask};
pub(crate) use sigpipe::{block_sigpipe, sigpipe_is_pending, take_sigpipe, unblock_sigpipe};

/// The constructor, called by the loader: before `main`, or in `dlopen`.
#[used]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
#[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
static LOADED: extern "C" fn() = loaded;

/// Keeps the constructor in the program. Called by code that every user of the library contains.
///
/// From a static library, a linker takes only the parts to which something else refers.
#[inline(never)]
pub(crate) fn keep_constructor() {
    std::hint::black_box(&LOADED);
}

extern "C" fn loaded() {
    crate::forks::watch();
    pin();
}

/// Pins the shared object that contains this code, if any: `dlclose` has no effect on it from now
/// on.
///
/// Done in the constructor, since this thread holds the loader's lock already. If an attaching
/// thread did it, a constructor could wait for the thread, and the thread for the loader's lock: a
/// deadlock.
#[cfg(not(target_feature = "crt-static"))]
fn pin() {
    use std::ffi::{c_int, c_void};

    #[cfg(not(target_os = "netbsd"))]
    use libc::RTLD_NODELETE;
    /// Of NetBSD's `dlfcn.h`; libc has no constant for it.
    #[cfg(target_os = "netbsd")]
    const RTLD_NODELETE: c_int = 0x1000;

    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    let here = loaded as *const c_void;
    // SAFETY: `info` is valid for writing, and is read only after `dladdr` has filled it. With
    // `RTLD_NOLOAD`, `dlopen` loads nothing.
    unsafe {
        if libc::dladdr(here, info.as_mut_ptr()) != 0 {
            let object = info.assume_init();
            if !is_program(object.dli_fbase as usize) {
                const HOW: c_int = libc::RTLD_LAZY | libc::RTLD_NOLOAD | RTLD_NODELETE;
                libc::dlopen(object.dli_fname, HOW);
            }
        }
    }
}

/// Whether the object at `base` is the main program, which cannot be closed.
///
/// The program headers of an object are on its first page.
#[cfg(all(not(target_feature = "crt-static"), any(target_os = "linux", target_os = "android")))]
fn is_program(base: usize) -> bool {
    // SAFETY: `getauxval` only reads a value from the kernel.
    let headers = unsafe { libc::getauxval(libc::AT_PHDR) } as usize;
    headers.wrapping_sub(base) < 4096
}

/// Always `false`: unknown on this system.
///
/// The loader may not find the main program by its name, or increments its count. Neither does
/// harm.
#[cfg(all(not(target_feature = "crt-static"), not(any(target_os = "linux", target_os = "android"))))]
fn is_program(_base: usize) -> bool {
    false
}

/// Does nothing: a static program loads nothing.
#[cfg(target_feature = "crt-static")]
fn pin() {}
