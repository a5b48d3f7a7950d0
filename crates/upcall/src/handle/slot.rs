//! A slot of the table: one value, its users, and the generation that a number must have.
//!
//! One word decides everything:
//!
//! ```text
//! generation │ LIVE │ count       users inside; COUNT: one exclusive user
//! ```
//!
//! - A number gets inside only if the slot is LIVE with the number's generation. A generation
//!   begins with the publication of a value, and none comes twice.
//! - Clearing LIVE removes the value. If nobody is inside, the value belongs to the remover;
//!   otherwise to the last user to leave. So there is exactly one new owner, and nobody gets inside
//!   any more.
//! - The owner empties the slot. Only then may the slot be published for another value.

use std::ptr;

use super::HandleError;
use super::number::{GENERATIONS, Number};
use super::type_tag::TypeTag;
use crate::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicPtr, AtomicUsize, fence};

/// One slot of the table: half a cache line, for which see `table::apart`.
#[repr(align(32))]
pub(super) struct Slot {
    state: AtomicUsize,
    kind: AtomicPtr<TypeTag>,
    /// The value, for its users and its owner.
    value: AtomicPtr<()>,
    /// The next vacant slot, guarded by the table's lock.
    pub next: AtomicUsize,
}

const LIVE: usize = 1 << (usize::BITS - GENERATIONS.ilog2() - 1);
const COUNT: usize = LIVE - 1;
const GENERATION: usize = !(LIVE | COUNT);
const SHIFT: u32 = LIVE.ilog2() + 1;

/// The kind of access, shared or exclusive, and its effect on the count.
#[derive(Clone, Copy)]
pub(super) struct Share {
    counts: usize,
    /// The largest count of users inside that still admits this access.
    beside: usize,
}

impl Share {
    /// Shared access. The users of this kind never reach `COUNT` together.
    pub const ONE: Self = Self { counts: 1, beside: COUNT - 2 };
    /// Exclusive access.
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

    /// The generation of the next value, for the owner of a vacant slot.
    pub fn next_generation(&self) -> usize {
        (self.state.load(Relaxed) >> SHIFT) + 1
    }

    /// Puts a value into a vacant slot owned by the caller, and returns its generation. The slot is
    /// the caller's no longer.
    pub fn publish(&self, kind: &'static TypeTag, value: *mut ()) -> usize {
        let generation = self.next_generation();
        self.value.store(value, Relaxed);
        // Release: a reader of this kind also sees the earlier changes of the state.
        self.kind.store(ptr::from_ref(kind).cast_mut(), Release);
        self.state.store(generation << SHIFT | LIVE, Release);
        generation
    }

    /// Whether the slot has no generation to give any more.
    pub fn is_used_up(&self) -> bool {
        self.state.load(Relaxed) >> SHIFT == GENERATIONS - 1
    }

    /// Gets inside. If this succeeds, the value stays until `leave`.
    #[inline(always)]
    pub fn enter(&self, number: Number, kind: &'static TypeTag, share: Share) -> Result<(), HandleError> {
        self.change(number, kind, |state| (state & COUNT <= share.beside).then_some(state + share.counts))?;
        Ok(())
    }

    /// Leaves the slot. Returns whether the value belongs to the caller now: it was removed, and
    /// the caller was the last user inside.
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

    /// Removes the value: nobody gets inside any more. Returns whether the value belongs to the
    /// caller now; otherwise it belongs to the last user to leave.
    #[must_use = "the value is the caller's, if nobody is inside"]
    pub fn remove(&self, number: Number, kind: &'static TypeTag) -> Result<bool, HandleError> {
        let before = self.change(number, kind, |state| Some(state & !LIVE))?;
        Ok(before & COUNT == 0)
    }

    /// Removes the value and gives it to the caller, unless somebody is inside.
    pub fn take(&self, number: Number, kind: &'static TypeTag) -> Result<(), HandleError> {
        self.change(number, kind, |state| (state & COUNT == 0).then_some(state & !LIVE))?;
        Ok(())
    }

    /// The value, for its users and its owner.
    #[inline(always)]
    pub fn value(&self) -> *mut () {
        self.value.load(Relaxed)
    }

    /// Changes the state if the slot is live for `number` and its value is of `kind`.
    ///
    /// `next` maps the current state to the new one. If it returns `None`, the result is
    /// [`HandleError::InUse`]. Returns the state before the change.
    #[inline(always)]
    fn change(
        &self,
        number: Number,
        kind: &'static TypeTag,
        next: impl Fn(usize) -> Option<usize>,
    ) -> Result<usize, HandleError> {
        let mut state = self.state.load(Acquire);
        loop {
            if state & (GENERATION | LIVE) != number.generation << SHIFT | LIVE {
                let never_was = number.generation == 0 || number.generation > state >> SHIFT;
                let value = number.value;
                return Err(if never_was { HandleError::Foreign { value } } else { HandleError::Freed });
            }
            // SAFETY: kinds are `&'static`, and `publish` stores one before it makes a slot live.
            // This slot was live, so the pointer is not null.
            let its = unsafe { &*self.kind.load(Acquire) };
            // This kind may be of a later value. If so, the state shows it now: the state changed
            // before the kind did.
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
