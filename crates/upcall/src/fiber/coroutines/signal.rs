//! The state of one wait that suspends a coroutine of the host, checked by loom in `model`.
//!
//! | bit | meaning |
//! |---|---|
//! | `WOKEN` | the waker was called since the last poll began |
//! | `SUSPENDED` | the coroutine is suspended, or about to be |
//! | `LISTED` | the wait is in its thread's list of ready ones, or about to be |
//! | `SOUGHT` | the child of a fork looks for it: `LISTED` by the parent, and maybe in no list |
//!
//! The call of the waker that finds `SUSPENDED` without `WOKEN` adds the wait to the list. If the
//! poll was woken before its end, the suspension adds the wait. So a future that wakes itself lets
//! other coroutines run.

use std::ptr;

use crate::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use crate::sync::atomic::{AtomicPtr, AtomicU32};

const WOKEN: u32 = 1;
const SUSPENDED: u32 = 2;
const LISTED: u32 = 4;
const SOUGHT: u32 = 8;

/// The state of one wait, and its link in the list of ready waits.
pub(super) struct Signal {
    state: AtomicU32,
    pub link: AtomicPtr<()>,
}

impl Signal {
    pub fn new() -> Self {
        Self { state: AtomicU32::new(0), link: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Begins a poll: only wakes from now on count. Also ends a suspension.
    pub fn begin_poll(&self) {
        self.state.fetch_and(!(WOKEN | SUSPENDED), AcqRel);
    }

    /// Suspends the wait. Returns whether the caller is to add it to the list, because it was woken
    /// since its poll began.
    pub fn suspend(&self) -> bool {
        self.set_and_list(SUSPENDED, |state| state & (WOKEN | LISTED) == WOKEN)
    }

    /// Notes a wake. Returns whether the caller is to add the wait to the list.
    pub fn wake(&self) -> bool {
        self.set_and_list(WOKEN, |state| state & (SUSPENDED | WOKEN | LISTED) == SUSPENDED)
    }

    /// Notes that the wait was taken from the list. Returns whether its coroutine is to be resumed.
    pub fn unlist(&self) -> bool {
        self.state.fetch_and(!(LISTED | SOUGHT), AcqRel) & (SUSPENDED | WOKEN) == SUSPENDED | WOKEN
    }

    /// In the child of a fork: begins the search. The thread that was to add the wait to the list
    /// may be missing.
    pub fn begin_search(&self) {
        let seek = |state| (state & LISTED != 0).then_some(state | SOUGHT);
        let _ = self.state.fetch_update(AcqRel, Acquire, seek);
    }

    /// Notes that the wait is in the list.
    pub fn note_found(&self) {
        self.state.fetch_and(!SOUGHT, AcqRel);
    }

    /// Ends the search, and notes a wake. Returns whether the caller is to add the wait to the
    /// list.
    pub fn end_search(&self) -> bool {
        let is_lost = self.state.fetch_and(!SOUGHT, AcqRel) & SOUGHT != 0;
        self.wake() || is_lost
    }

    /// Undoes `unlist`, unless the coroutine was resumed. Returns whether the caller is to add the
    /// wait to the list.
    pub fn put_back(&self) -> bool {
        self.set_and_list(0, |state| state & (SUSPENDED | WOKEN | LISTED) == SUSPENDED | WOKEN)
    }

    pub fn is_suspended(&self) -> bool {
        self.state.load(Relaxed) & SUSPENDED != 0
    }

    pub fn is_ready(&self) -> bool {
        self.state.load(Relaxed) & (SUSPENDED | WOKEN) == SUSPENDED | WOKEN
    }

    /// Sets `bits`, and `LISTED` too if the state before `is_due`. Returns whether it was.
    fn set_and_list(&self, bits: u32, is_due: impl Fn(u32) -> bool) -> bool {
        let set = |state| Some(state | bits | if is_due(state) { LISTED } else { 0 });
        let (Ok(before) | Err(before)) = self.state.fetch_update(AcqRel, Acquire, set);
        is_due(before)
    }
}
