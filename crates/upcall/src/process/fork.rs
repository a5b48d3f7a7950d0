//! The identity of this process: the child of a fork notices the fork, and ends waits for threads
//! of the parent.
//!
//! `forks.rs` has the rest of the child's work.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use stackbounds::for_upcall::settle_child;
pub(crate) use stackbounds::for_upcall::{is_untold, notice_child, resume_in_child};

use crate::messages::warn;

/// The number of forks between this process and the one that loaded the library.
static FORKS: AtomicUsize = AtomicUsize::new(0);

/// Counts a fork. Called in the child.
pub(crate) fn count() {
    FORKS.fetch_add(1, Relaxed);
}

/// A number that distinguishes a process from its ancestors.
#[inline]
pub(crate) fn epoch() -> usize {
    settle_child();
    FORKS.load(Relaxed)
}

const UNTOLD: &str = "this process was made by _Fork, clone or a system call that calls no fork handlers, while other threads used upcall: what this thread \
     waits for is only in the process that it was copied from. Make such a process by fork(), or call nothing but exec and _exit in it";

/// Repairs an untold child (see `stackbounds/src/fork/`) before its first thread is started. To be
/// called without locks.
///
/// Other threads will wait for the new thread. If the parent had no thread of ours at the copy,
/// this is the time to repair the state: the child has none yet either. A child beyond repair is
/// reported by its first wait.
#[cold]
#[cfg(feature = "runtime")]
pub(crate) fn before_first_thread() {
    let _waits_will_say_so = is_untold();
}

/// Panics, to end a wait [for a thread of the parent](is_untold).
#[cold]
#[track_caller]
pub(crate) fn panic_untold() {
    panic!("{UNTOLD}");
}

/// Aborts the process in a wait [for a thread of the parent](is_untold), where unwinding is not
/// allowed.
#[cold]
pub(crate) fn abort_untold() {
    warn(format_args!("{UNTOLD}"));
    std::process::abort();
}
