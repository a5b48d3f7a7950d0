//! The process as a whole: loading of the library, and forks.
//!
//! A constructor runs when the library is loaded, before any other thread can be in it. It pins the
//! library, so `dlclose` cannot remove code to which threads will return. It also registers the
//! fork handlers.

pub(crate) mod fork;
mod signals;

use std::ffi::c_void;

pub(crate) use signals::with_signals_blocked;
#[cfg(feature = "runtime")]
pub(crate) use signals::{Mask, block_signals, with_signal_mask};

use crate::sys;

sys::constructor!(LOADED, loaded);

/// Keeps the constructor in the program. Called by code that every user of the library contains.
///
/// From a static library, a linker takes only the parts to which something else refers.
#[inline(never)]
pub(crate) fn keep_constructor() {
    std::hint::black_box(&LOADED);
}

/// Registers for forks, and pins the library.
///
/// The loader's thread holds the loader's lock already. If an attaching thread pinned the library,
/// a constructor could wait for the thread, and the thread for the loader's lock: a deadlock.
extern "C" fn loaded() {
    crate::forks::watch();
    sys::pin(loaded as *const c_void);
}
