//! How many idle stacks of the pool keep their pages.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use super::pool::slot_size_for;
use crate::config::settings;

/// Whether as many idle stacks keep their pages as were in use at one time of late.
static KEEPS_FOR_NEXT: AtomicBool = AtomicBool::new(false);

/// Sets whether idle stacks beyond the configured number keep their pages: as many as were in use
/// at one time of late.
///
/// It is for hosts with coroutines that wait. A thousand of them wait again and again, and to give
/// their pages back in between costs more than the waits.
pub(crate) fn keep_for_next(keeps: bool) {
    KEEPS_FOR_NEXT.store(keeps, Relaxed);
}

/// The number of returns after which `Kept::most_in_use` falls by 1.
const FORGETS_AFTER: usize = 64;

/// What the pool remembers of its use.
pub(super) struct Kept {
    /// The greatest number of stacks in use of late: it falls by 1 each [`FORGETS_AFTER`] returns.
    most_in_use: usize,
    returns: usize,
}

impl Kept {
    pub const fn new() -> Self {
        Self { most_in_use: 0, returns: 0 }
    }

    /// Notes that a stack was taken; now, `in_use` are.
    pub fn taken(&mut self, in_use: usize) {
        self.most_in_use = self.most_in_use.max(in_use);
    }

    /// The greatest number of bytes of idle stacks with pages. To be called once a return, while
    /// the stack is one of `in_use`.
    pub fn bytes(&mut self, in_use: usize) -> usize {
        self.returns = self.returns.wrapping_add(1);
        if self.returns % FORGETS_AFTER == 0 {
            self.most_in_use = in_use.max(self.most_in_use.saturating_sub(1));
        }
        let settings = settings();
        let for_next = if KEEPS_FOR_NEXT.load(Relaxed) { self.most_in_use } else { 0 };
        let stacks = settings.idle_stacks.max(for_next);
        slot_size_for(settings.spare_stack()).map_or(0, |slot| stacks.saturating_mul(slot))
    }
}
