//! The end of a thread whose fibers wait.
//!
//! A suspended fiber may hold a borrow of a thread-local, against the promise of
//! [`Fibers`](super::Fibers). So fibers are unwound before the thread-locals go, as far as
//! possible. The system runs the destructors of thread-locals in the reverse order of their first
//! uses. Therefore, whenever a fiber of the thread waits for the first time, upcall uses a new
//! hook, a thread-local of its own. This comes after the first uses of the thread-locals that the
//! fiber has used by then, so the hook's destructor runs before theirs. The first hook to run does
//! the work. A thread has [`HOOKS`] of them; further fibers rely on the promise alone.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::LocalKey;

use crate::messages::warn;
use crate::stack::pool;
use crate::stack::pool::Purpose;
use crate::thread::{CallName, ThreadState};

/// Runs [`thread_ends`] when the thread's thread-locals go.
struct Hook;

impl Drop for Hook {
    fn drop(&mut self) {
        thread_ends();
    }
}

macro_rules! hooks {
    ($($hook:ident)*) => {
        thread_local! { $(static $hook: Hook = const { Hook };)* }
        static HOOKS: &[&LocalKey<Hook>] = &[$(&$hook),*];
    };
}

hooks!(H0 H1 H2 H3 H4 H5 H6 H7 H8 H9 H10 H11 H12 H13 H14 H15);

/// Registers a hook. A fiber of the calling thread waits for the first time.
#[cold]
#[inline(never)]
pub(super) fn fiber_waits(thread: &ThreadState) {
    let used = thread.life.end_hooks.get();
    if let Some(hook) = HOOKS.get(used) {
        thread.life.end_hooks.set(used + 1);
        // If the thread's destructors run already, no hook can be registered, and none is needed
        // any more.
        let _ = hook.try_with(|_| ());
    }
}

/// Unwinds the fibers of this thread's executor. Fibers of other executors are never resumed again.
fn thread_ends() {
    let thread = ThreadState::current();
    if thread.life.ends.replace(true) {
        return;
    }
    if let Some(end) = thread.at_end() {
        end();
    }
    pool::for_each_taken(|stack| {
        let is_own = stack.owner.get().serial == thread.id().serial;
        if is_own && stack.purpose.get() == Purpose::Fiber && stack.fiber().is_some() {
            // Marked as running, so that nobody can resume it.
            stack.resumed_at.store(usize::MAX, Relaxed);
        }
    });
}

/// Reports, once, a fiber dropped too late to be unwound.
#[cold]
pub(super) fn fiber_is_leaked(fiber: CallName) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Relaxed) {
        warn(format_args!(
            "{fiber} was dropped after its thread had begun to destroy thread-locals, which the fiber may borrow: it is \
             leaked, with its stack, and its destructors do not run. Drop fibers, and end runtimes, before their thread ends"
        ));
    }
}
