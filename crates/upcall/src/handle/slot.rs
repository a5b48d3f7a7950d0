//! One place of the table: a value, who is inside, and for which number.
//!
//! All is decided by one word, which a number must agree with:
//!
//! ```text
//! generation │ LIVE │ count       how many are inside; COUNT: one has the value to itself
//! ```
//!
//! - Nobody gets inside unless the slot is LIVE with the number's generation. A generation begins when a value is published, and none comes twice.
//! - Who clears LIVE while nobody is inside has the value; otherwise the last to leave has it. There is one such, and no one gets inside any more.
//! - Who has the value empties the slot; then, and not before, it is published for another.

use std::ptr;

use super::HandleError;
use super::kind::Kind;
use super::number::{GENERATIONS, Number};
use crate::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicPtr, AtomicUsize, fence};

/// A line of the cache each, so that threads that use different values do not disturb each other.
#[repr(align(64))]
pub(super) struct Slot {
    state: AtomicUsize,
    kind: AtomicPtr<Kind>,
    /// The value, for those who are inside or have it.
    value: AtomicPtr<()>,
    /// The next vacant slot; under the table's lock.
    pub next: AtomicUsize,
}

const LIVE: usize = 1 << (usize::BITS - GENERATIONS.ilog2() - 1);
const COUNT: usize = LIVE - 1;
const GENERATION: usize = !(LIVE | COUNT);
const SHIFT: u32 = LIVE.ilog2() + 1;

/// What somebody inside counts.
#[derive(Clone, Copy)]
pub(super) struct Share {
    counts: usize,
    /// With how much of the count inside already.
    beside: usize,
}

impl Share {
    /// One of many, who never get to `COUNT`.
    pub const ONE: Self = Self { counts: 1, beside: COUNT - 2 };
    /// The only one.
    pub const ALL: Self = Self { counts: COUNT, beside: 0 };
}

impl Slot {
    pub fn new() -> Self {
        Self {
            state: AtomicUsize::new(0),
            kind: AtomicPtr::new(ptr::null_mut()),
            value: AtomicPtr::new(ptr::null_mut()),
            next: AtomicUsize::new(0),
        }
    }

    /// Puts a value into a vacant slot, which is the caller's until then; returns its generation.
    pub fn publish(&self, kind: &'static Kind, value: *mut ()) -> usize {
        let generation = (self.state.load(Relaxed) >> SHIFT) + 1;
        self.value.store(value, Relaxed);
        // Who reads it knows what was done to the state before.
        self.kind.store(ptr::from_ref(kind).cast_mut(), Release);
        self.state.store(generation << SHIFT | LIVE, Release);
        generation
    }

    /// Whether all generations have been.
    pub fn is_used_up(&self) -> bool {
        self.state.load(Relaxed) >> SHIFT == GENERATIONS - 1
    }

    /// Gets inside. Until `leave`, the value is there.
    #[inline(always)]
    pub fn enter(&self, number: Number, kind: &'static Kind, share: Share) -> Result<(), HandleError> {
        self.change(number, kind, |state| (state & COUNT <= share.beside).then_some(state + share.counts))?;
        Ok(())
    }

    /// Leaves. Says whether the value is the caller's now: it was removed, and this was the last inside.
    #[inline(always)]
    #[must_use]
    pub fn leave(&self, share: Share) -> bool {
        let before = self.state.fetch_sub(share.counts, Release);
        let is_last = before & (LIVE | COUNT) == share.counts;
        if is_last {
            fence(Acquire);
        }
        is_last
    }

    /// Lets nobody in any more. Says whether the value is the caller's now; else it is the last one's that leaves.
    #[must_use = "the value is the caller's, if nobody is inside"]
    pub fn remove(&self, number: Number, kind: &'static Kind) -> Result<bool, HandleError> {
        let before = self.change(number, kind, |state| Some(state & !LIVE))?;
        Ok(before & COUNT == 0)
    }

    /// Removes the value, which is the caller's then, unless somebody is inside.
    pub fn take(&self, number: Number, kind: &'static Kind) -> Result<(), HandleError> {
        self.change(number, kind, |state| (state & COUNT == 0).then_some(state & !LIVE))?;
        Ok(())
    }

    /// The value of those who are inside or have it.
    #[inline(always)]
    pub fn value(&self) -> *mut () {
        self.value.load(Relaxed)
    }

    /// Changes the state, if the slot is live for that number and has a value of that kind. `next` says what to, or that it is in use.
    #[inline(always)]
    fn change(
        &self,
        number: Number,
        kind: &'static Kind,
        next: impl Fn(usize) -> Option<usize>,
    ) -> Result<usize, HandleError> {
        let mut state = self.state.load(Acquire);
        loop {
            if state & (GENERATION | LIVE) != number.generation << SHIFT | LIVE {
                let never_was = number.generation == 0 || number.generation > state >> SHIFT;
                let value = number.value;
                return Err(if never_was { HandleError::Foreign { value } } else { HandleError::Freed });
            }
            // SAFETY: kinds are static, and a slot that was live has one.
            let its = unsafe { &*self.kind.load(Acquire) };
            // If this is the kind of a later value, the state says so now: it was changed before the kind was.
            let now = if !its.is(kind) {
                match self.state.load(Relaxed) {
                    now if now & (GENERATION | LIVE) == state & (GENERATION | LIVE) => {
                        return Err(HandleError::WrongType { found: its.name(), expected: kind.name() });
                    }
                    now => now,
                }
            } else {
                let Some(next) = next(state) else { return Err(HandleError::InUse) };
                match self.state.compare_exchange_weak(state, next, AcqRel, Acquire) {
                    Ok(before) => return Ok(before),
                    Err(now) => now,
                }
            };
            state = now;
        }
    }
}
