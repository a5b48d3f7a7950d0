//! Deferred wakes: on one core, a wake made by a poll waits until the poll has returned.
//!
//! Many channels call wakers under their own lock. On one core, the kernel runs a thread as soon as
//! it is woken. The thread blocks on that lock, sleeps again, and is woken once more. A round trip
//! took six thread switches instead of two.
//!
//! Rule: **a deferred wake is made**: at the end of a poll, before its thread sleeps, or by the
//! guard. A poll may block, even on the thread that it is about to wake. So a wake is deferred only
//! if there is a guard: another thread, which makes the wake within a millisecond.

use std::ptr;

use super::{Parker, ThreadState};
use crate::sync::atomic::AtomicPtr;
use crate::sync::atomic::Ordering::{Relaxed, SeqCst};
use crate::sync::sequential;

/// The deferred wake of the process, or of a loom model.
pub(crate) struct DeferredWake {
    /// The parker of the thread to wake; null if no wake is deferred.
    sleeper: AtomicPtr<Parker>,
    /// A function of type `fn()` that makes the guard look; null without a guard.
    guard: AtomicPtr<()>,
}

impl DeferredWake {
    #[cfg(not(upcall_loom))]
    const fn new() -> Self {
        Self { sleeper: AtomicPtr::new(ptr::null_mut()), guard: AtomicPtr::new(ptr::null_mut()) }
    }

    #[cfg(all(test, upcall_loom))]
    pub fn for_model() -> Self {
        Self { sleeper: AtomicPtr::new(ptr::null_mut()), guard: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Sets the function to call after a wake was deferred. After removing it, the caller must
    /// [flush](Self::flush) the wake deferred before.
    #[cfg(any(feature = "runtime", upcall_loom))]
    pub fn set_guard(&self, guard: Option<fn()>) {
        self.guard.store(guard.map_or(ptr::null_mut(), |guard| guard as *mut ()), SeqCst);
        sequential();
    }

    fn guard(&self) -> Option<fn()> {
        let guard = self.guard.load(SeqCst);
        // SAFETY: not null, so `set_guard` stored it, from a `fn()`.
        (!guard.is_null()).then(|| unsafe { std::mem::transmute::<*mut (), fn()>(guard) })
    }

    /// Defers the wake of the thread that sleeps at `parker`. Returns whether it did. Only one wake
    /// is deferred at a time; an earlier one is made now.
    pub fn defer(&self, parker: &'static Parker) -> bool {
        let Some(call_guard) = self.guard() else { return false };
        let before = self.sleeper.swap(ptr::from_ref(parker).cast_mut(), SeqCst);
        wake(before);
        call_guard();
        sequential();
        if self.guard().is_none() {
            // The guard may have taken its last look before.
            self.flush();
        }
        true
    }

    /// Makes the deferred wake, if there is one.
    #[inline]
    pub fn flush(&self) {
        if !self.sleeper.load(Relaxed).is_null() {
            wake(self.sleeper.swap(ptr::null_mut(), SeqCst));
        }
    }

    /// Whether a wake is deferred.
    ///
    /// Sequentially consistent with `defer`: if a deferring thread found the guard awake, the guard
    /// sees its wake here.
    #[cfg(feature = "runtime")]
    pub fn is_any(&self) -> bool {
        !self.sleeper.load(SeqCst).is_null()
    }
}

fn wake(sleeper: *mut Parker) {
    // SAFETY: null or a parker, and parkers are never freed.
    if let Some(sleeper) = unsafe { sleeper.as_ref() } {
        sleeper.wake();
    }
}

/// A poll made by a blocking wait, from `begin` to drop.
pub(crate) struct BlockingPoll(&'static ThreadState);

impl BlockingPoll {
    pub fn begin(thread: &'static ThreadState) -> Self {
        thread.sleep.in_poll.set(true);
        Self(thread)
    }
}

impl Drop for BlockingPoll {
    fn drop(&mut self) {
        // This ends an outer poll's deferring too: its wakes are made at once from now on. So if C
        // abandons a poll by `longjmp`, the flag does not stay set for ever.
        self.0.sleep.in_poll.set(false);
        flush();
    }
}

/// Whether the calling code is inside a poll made by a wait.
#[cfg(not(upcall_loom))]
fn is_in_poll() -> bool {
    let thread = ThreadState::current();
    thread.sleep.in_poll.get()
        || thread.fiber_stack().is_some_and(|stack| (thread.sleep.fiber_in_poll.get())(stack))
}

#[cfg(not(upcall_loom))]
mod process {
    use super::*;

    static DEFERRED: DeferredWake = DeferredWake::new();

    /// The deferred wake of the process.
    #[cfg(feature = "runtime")]
    pub fn process() -> &'static DeferredWake {
        &DEFERRED
    }

    /// Defers the wake of the thread that sleeps at `parker`, if this is possible and useful: with
    /// a guard, and inside a poll.
    #[cold]
    pub fn defer(parker: &'static Parker) -> bool {
        DEFERRED.guard().is_some() && is_in_poll() && DEFERRED.defer(parker)
    }

    /// Makes the deferred wake, if there is one.
    #[inline(always)]
    pub fn flush() {
        DEFERRED.flush();
    }
}

/// Stand-ins for loom: each model makes its own `DeferredWake`.
#[cfg(upcall_loom)]
mod process {
    use super::*;

    pub fn process() -> &'static DeferredWake {
        unreachable!("loom's models have no watcher")
    }

    pub fn defer(_parker: &'static Parker) -> bool {
        false
    }

    pub fn flush() {}
}

#[cfg(feature = "runtime")]
pub(crate) use process::process;
pub(crate) use process::{defer, flush};
