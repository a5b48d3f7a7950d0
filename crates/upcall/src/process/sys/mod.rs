//! Code that runs when the library is loaded, and keeps it loaded.

use std::ffi::{c_int, c_void};

/// Called by the loader: before `main`, or in `dlopen`.
#[used]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
#[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
static LOADED: extern "C" fn() = loaded;

/// Called by what is in every program that uses the library: of a static library, linkers take the parts that something else refers to.
#[inline(never)]
pub(crate) fn keep_constructor() {
    std::hint::black_box(&LOADED);
}

extern "C" fn loaded() {
    super::fork::watch();
    pin();
}

/// Keeps the shared object loaded that this code is in, if it is in one: `dlclose` of it has no effect from now on.
///
/// Done here, where the loader's lock is this thread's already: a thread that attached could wait for it for ever, if a constructor waits for
/// the thread.
#[cfg(not(target_feature = "crt-static"))]
fn pin() {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    let here = loaded as *const c_void;
    // SAFETY: `info` is valid for writing; the rest looks at what it was filled with. An object that is loaded is not loaded again, and the main program,
    // whose name the loader may not know, is not found, or counted once more, which does no harm.
    unsafe {
        if libc::dladdr(here, info.as_mut_ptr()) != 0 {
            let name = info.assume_init().dli_fname;
            const HOW: c_int = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
            libc::dlopen(name, HOW);
        }
    }
}

/// A static program loads nothing.
#[cfg(target_feature = "crt-static")]
fn pin() {}
