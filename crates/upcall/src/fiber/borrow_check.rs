//! Debug builds only: reports a fiber about to be suspended inside `LocalKey::with`.
//!
//! The variable `UPCALL_CHECK_THREAD_LOCALS` in the environment turns the check on. Such a
//! suspension breaks the promise of [`Fibers`](super::Fibers), and only the names of the functions
//! on the fiber's stack show it. Finding the first names takes 0.1 s, under a lock of the standard
//! library. This is why the check must be asked for, and why only the first [`CHECKS`] places of a
//! process are checked. An optimised program inlines `with`, and shows nothing.

use std::backtrace::Backtrace;
use std::panic::Location;
use std::sync::LazyLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use crate::coroutine::FiberContext;
use crate::messages::warn;
use crate::process::fork;

/// The number of places checked in a process.
const CHECKS: usize = 256;
/// An upper bound of the stack needed to find names, in bytes. With less remaining, nothing is
/// checked.
const ROOM: usize = 64 << 10;

/// Checks the frames of `fiber`, about to be suspended by a wait at `at`.
#[cold]
#[inline(never)]
pub(super) fn look(fiber: &FiberContext, at: &'static Location<'static>) {
    static WANTED: LazyLock<bool> =
        LazyLock::new(|| std::env::var_os("UPCALL_CHECK_THREAD_LOCALS").is_some());
    static LEFT: AtomicUsize = AtomicUsize::new(CHECKS);
    let one_less = |remaining: usize| remaining.checked_sub(1);
    // In the child of a fork, the standard library's lock may be held for ever.
    if !*WANTED
        || fork::epoch() != 0
        || fiber.room() < ROOM
        || LEFT.fetch_update(Relaxed, Relaxed, one_less).is_err()
    {
        return;
    }
    let trace = Backtrace::force_capture().to_string();
    // The resumer's frames do not count: executors run in thread-locals of theirs. The frame of the
    // switch separates them from the fiber's frames. It has one of these names, depending on the
    // symbols in the program.
    let switches = ["begin_coroutine", "__morestack", "upcall_switch_"];
    let end = switches.iter().filter_map(|name| trace.find(name)).min();
    let own = &trace[..end.unwrap_or(0)];
    // By name; or by file, if the debug information has lines but no paths.
    let with = ["std::thread::local::LocalKey<", "std/src/thread/local.rs", r"std\src\thread\local.rs"];
    if with.iter().any(|with| own.contains(with)) {
        warn(format_args!(
            "the wait at {at} suspends its fiber inside LocalKey::with: other fibers of the thread run while the thread-local \
             is borrowed, and the thread may end. This breaks the promise of upcall::Fibers. Copy the value out before the \
             wait, or use upcall::FiberLocal."
        ));
    }
}
