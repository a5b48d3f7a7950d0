//! The sleep of a thread: its parker, and the work it does instead of sleeping.

use std::cell::Cell;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::compiler_fence;

use super::{Parker, ThreadState};
use crate::stack::StackHeader;

/// The state of a thread's blocking waits.
pub(crate) struct Sleep {
    /// The thread's place to sleep, from its first wait until it detaches.
    parker: Cell<Option<&'static Parker>>,
    /// Whether the thread sleeps or is about to. Set before its last look at the queue.
    sleeps: Cell<bool>,
    /// Runs other work of the thread while one of its frames waits.
    nested_executor: Cell<Option<fn() -> bool>>,
    /// Whether a blocking wait is polling its future. See `deferred_wake`.
    pub in_poll: Cell<bool>,
    /// Whether a poll of the fiber on a stack is in progress. Set by the code that makes fibers.
    pub fiber_in_poll: Cell<fn(&StackHeader) -> bool>,
}

impl Sleep {
    pub const fn new() -> Self {
        Self {
            parker: Cell::new(None),
            sleeps: Cell::new(false),
            nested_executor: Cell::new(None),
            in_poll: Cell::new(false),
            fiber_in_poll: Cell::new(|_| false),
        }
    }
}

impl ThreadState {
    /// Sets the function to run other work of this thread while one of its frames waits. Its answer
    /// tells whether it ran something.
    #[cfg(feature = "runtime")]
    pub fn set_nested_executor(&self, run_one: Option<fn() -> bool>) {
        self.sleep.nested_executor.set(run_one);
    }

    /// The function set by `set_nested_executor`.
    pub fn nested_executor(&self) -> Option<fn() -> bool> {
        self.sleep.nested_executor.get()
    }

    /// Sets whether the thread sleeps, or has taken its last look before sleeping. In this state, a
    /// signal handler that adds to the thread's queue must wake the thread.
    #[inline]
    pub fn set_sleeps(&self, sleeps: bool) {
        self.sleep.sleeps.set(sleeps);
        compiler_fence(SeqCst);
    }

    #[cfg(feature = "runtime")]
    #[inline]
    pub fn sleeps(&self) -> bool {
        self.sleep.sleeps.get()
    }

    /// The parker of this thread, which is attached. Takes one at the first call.
    pub fn parker(&self) -> &'static Parker {
        self.sleep.parker.get().unwrap_or_else(|| {
            let parker = Parker::take();
            self.sleep.parker.set(Some(parker));
            parker
        })
    }

    /// Gives the parker back, if the thread has one.
    pub fn forget_parker(&self) {
        if let Some(parker) = self.sleep.parker.take() {
            parker.give_back();
        }
    }

    /// Wakes the thread's blocking wait, if there is one, so that it looks again. This may be a
    /// spurious wake-up.
    pub fn look_again(&self) {
        if let (Some(parker), true) = (self.sleep.parker.get(), self.life.pins.get() != 0) {
            parker.unpark();
        }
    }
}
