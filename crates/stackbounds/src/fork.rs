//! fork: the child has one thread, and every lock as it was.
//!
//! So the registry's lock is taken before a fork and given back after it, on both sides, from the first registration on: the child finds nothing half-changed.

use core::cell::UnsafeCell;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;
use std::sync::MutexGuard;

use crate::registry::{self, Registry};
use crate::sys;

/// Whether somebody sees to forks.
static SEEN_TO: AtomicBool = AtomicBool::new(false);

/// The lock, during a fork.
struct Held(UnsafeCell<Option<MutexGuard<'static, Registry>>>);

// SAFETY: used from `before` to `after` by the thread that forks, which has the lock all the while.
unsafe impl Sync for Held {}

static HELD: Held = Held(UnsafeCell::new(None));

/// Leaves it to the caller to take the lock, among others of its own. `false` if it is too late for that.
pub(crate) fn leave_to_caller() -> bool {
    !SEEN_TO.swap(true, Relaxed)
}

/// To be called when there is something to be kept whole.
pub(crate) fn watch() {
    if !SEEN_TO.load(Relaxed) && !SEEN_TO.swap(true, Relaxed) {
        sys::watch_forks(before, after);
    }
}

extern "C" fn before() {
    let lock = registry::lock();
    // SAFETY: see `Held`: the lock is this thread's.
    unsafe { *HELD.0.get() = Some(lock) };
}

extern "C" fn after() {
    // SAFETY: as in `before`. Taken out first, since the next fork may begin when it is given back.
    drop(unsafe { (*HELD.0.get()).take() });
}
