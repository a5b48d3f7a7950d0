//! fork: the child has one thread, a copy of all memory, and every lock as it was.
//!
//! So all our locks are taken before a fork, and given back after it on both sides: the child finds nothing half-changed. Then it forgets the threads that
//! it does not have, with their records, workers and queues. The thread that forked goes on as it was: attached, in the middle of its calls, with its own
//! fibers and `LocalRuntime`. What runs on other threads is the parent's: who waits for it in the child gets an error.
//!
//! Locks of others are theirs. A thread that reports a panic holds one of Rust's standard library: a child of a fork at that moment hangs at its own first
//! panic, unless the process has a panic hook that takes no lock.
//!
//! What others' threads held is not given back: their stacks, and fibers that had not ended, stay in memory. Rule: **whatever might still be live is never
//! freed.** A destructor that ran in parent and child would do twice what is to be done once.

use std::any::Any;
use std::cell::UnsafeCell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use crate::fiber;
use crate::handle::table;
use crate::report;
use crate::stack::{alternate, names, pool, registered, service};
use crate::thread::{Hot, parker, record};

/// How many forks lie between this process and the one that loaded the library.
static FORKS: AtomicUsize = AtomicUsize::new(0);

/// Tells a process from those that it was forked from.
#[inline]
pub(crate) fn epoch() -> usize {
    FORKS.load(Relaxed)
}

/// A lock that is held, whatever it guards.
pub(crate) type Held = Box<dyn Any>;

/// The locks that are held during a fork.
struct Locks(UnsafeCell<Vec<Held>>);

// SAFETY: used from `before` to `after` by the thread that forks, which holds the first of the locks all the while.
unsafe impl Sync for Locks {}

static LOCKS: Locks = Locks(UnsafeCell::new(Vec::new()));

/// Whether the registry of stacks is among them; it sees to itself where a stack was registered before this library was loaded.
static REGISTRY_TOO: AtomicBool = AtomicBool::new(false);

/// Asks the system to tell of forks. To be called once.
pub(super) fn watch() {
    REGISTRY_TOO.store(stackbounds::leave_forks_to_caller(), Relaxed);
    // SAFETY: the functions are there for as long as the library, which stays loaded. If there is no memory for it, forks go untold.
    unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) };
}

/// Takes all locks, in the order in which they are taken inside each other.
extern "C" fn before() {
    let mut locks: Vec<Held> = Vec::new();
    #[cfg(feature = "runtime")]
    crate::runtime::hold_locks(&mut locks);
    let others: [Held; 8] = [
        Box::new(table::hold_lock()),
        Box::new(report::hold_lock()),
        Box::new(alternate::hold_lock()),
        Box::new(parker::hold_lock()),
        Box::new(registered::hold_lock()),
        Box::new(record::hold_lock()),
        Box::new(names::hold_lock()),
        Box::new(pool::hold_lock()),
    ];
    locks.extend(others);
    if REGISTRY_TOO.load(Relaxed) {
        locks.push(Box::new(stackbounds::hold_lock()));
    }
    // SAFETY: see `Locks`: the locks are this thread's.
    unsafe { *LOCKS.0.get() = locks };
}

extern "C" fn after_in_parent() {
    // SAFETY: as in `before`. Taken out first, since the next fork may begin when they are given back.
    drop(unsafe { std::mem::take(&mut *LOCKS.0.get()) });
}

extern "C" fn after_in_child() {
    FORKS.fetch_add(1, Relaxed);
    after_in_parent();
    let hot = Hot::here();
    service::forget_users();
    record::forget_other_threads(hot);
    #[cfg(feature = "runtime")]
    crate::runtime::forget_other_threads();
    // What the thread waits for may be the parent's now.
    fiber::wait::look_again(hot);
}
