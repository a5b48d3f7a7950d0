//! The state of an operation: one word, changed by single atomic steps.
//!
//! ```text
//! references │ CANCELLED │ RUNNING │ SCHEDULED
//! ```
//!
//! | `SCHEDULED` | `RUNNING` | the operation |
//! |---|---|---|
//! | – | – | waits for a wake |
//! | ✓ | – | is ready: one [`Ready`](super::operation_memory::Ready) of it exists |
//! | – | ✓ | is polled, or has ended |
//! | ✓ | ✓ | was woken during its poll, after which the poller makes it ready |
//!
//! - Whoever sets `SCHEDULED` while both bits are clear makes the operation ready. So there is one
//!   `Ready` at most, and its holder alone sets `RUNNING`.
//! - The future belongs to whoever set `RUNNING`, until the same thread clears the bit. An ended
//!   operation stays `RUNNING`: no wake makes it ready again, and its future is gone.
//! - The handle, each waker, a `Ready` and a poll hold one reference each. The memory belongs to
//!   whoever gives back the last one. If the operation has not ended by then, nobody can wake it
//!   any more. So it becomes ready once more, cancelled, and its home drops the future.
//!
//! loom checks every order of these steps (`operation_model.rs`).

use std::process::abort;

use crate::sync::atomic::AtomicUsize;
use crate::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

const SCHEDULED: usize = 1;
const RUNNING: usize = 1 << 1;
const CANCELLED: usize = 1 << 2;
const REFERENCE: usize = 1 << 3;

pub(super) struct OperationState(AtomicUsize);

/// What remains to be done after a reference was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Release {
    Nothing,
    /// The caller frees the memory.
    Free,
    /// The caller makes the operation ready, with a reference.
    Ready,
}

impl OperationState {
    /// The state before and during the first poll, with one reference.
    pub fn new() -> Self {
        Self(AtomicUsize::new(RUNNING | REFERENCE))
    }

    /// Makes an operation ready for its first poll, with a second reference. Only before that poll.
    pub fn begins_later(&self) {
        self.0.store(SCHEDULED + 2 * REFERENCE, Relaxed);
    }

    /// Takes back `begins_later`. Only if nobody else has had a reference.
    pub fn begins_now(&self) {
        self.0.store(RUNNING | REFERENCE, Relaxed);
    }

    /// Begins a poll, for the holder of a `Ready`. Returns whether the operation is to end instead.
    pub fn run(&self) -> bool {
        self.0.fetch_xor(SCHEDULED | RUNNING, AcqRel) & CANCELLED != 0
    }

    /// Whether the operation was woken during its poll. Only for the poller.
    pub fn is_woken(&self) -> bool {
        self.0.load(Acquire) & SCHEDULED != 0
    }

    /// Ends a poll after which the operation waits. Returns whether the caller is to make it ready.
    pub fn wait(&self) -> bool {
        self.0.fetch_and(!RUNNING, AcqRel) & SCHEDULED != 0
    }

    /// Wakes the operation. Returns whether the caller is to make it ready.
    pub fn wake(&self) -> bool {
        self.0.fetch_or(SCHEDULED, AcqRel) & (SCHEDULED | RUNNING) == 0
    }

    /// Asks for the operation's end. Returns whether the caller is to make it ready.
    pub fn cancel(&self) -> bool {
        self.0.fetch_or(CANCELLED | SCHEDULED, AcqRel) & (SCHEDULED | RUNNING) == 0
    }

    /// Takes one more reference, for the holder of one.
    pub fn acquire(&self) {
        // As in the standard library's `Arc`: only leaked references can be so many.
        if self.0.fetch_add(REFERENCE, Relaxed) > isize::MAX as usize {
            abort();
        }
    }

    /// Gives a reference back.
    pub fn release(&self) -> Release {
        // Nobody but the holder of the only reference can change the state.
        let is_only = |state| state < 2 * REFERENCE;
        let mut before = self.0.load(Acquire);
        if !is_only(before) {
            before = self.0.fetch_sub(REFERENCE, AcqRel);
        }
        match before {
            before if !is_only(before) => Release::Nothing,
            before if before & RUNNING != 0 => Release::Free,
            _ => {
                self.0.store(CANCELLED | SCHEDULED | REFERENCE, Relaxed);
                Release::Ready
            }
        }
    }
}
