//! The two cached slots of a thread: its own stack, and the stack in use now.
//!
//! Rule: **the own stack's bounds are never overwritten by what another stack needs.** They are asked for once, and an
//! answer that does not contain SP (the thread's first question came from a coroutine) is kept
//! for the thread and not believed for the stack in use. So a host that alternates
//! between two stacks costs comparisons, never a query.

use core::cell::Cell;

use crate::bounds::StackBounds;
use crate::registry::{self, Kind};
use crate::sys;

/// A range of addresses of which one thing is true while the registry has this version. Not public API.
#[derive(Clone, Copy, Debug)]
pub struct Around {
    /// The lowest address.
    pub low: usize,
    /// One past the highest.
    pub high: usize,
    /// What the range is.
    pub kind: Kind,
    /// See [`version`](crate::version).
    pub version: usize,
}

/// A range kept for reuse; `size` 0 until it is known.
struct Slot {
    low: Cell<usize>,
    size: Cell<usize>,
}

impl Slot {
    const fn new() -> Self {
        Self { low: Cell::new(0), size: Cell::new(0) }
    }

    #[inline]
    fn contains(&self, sp: usize) -> bool {
        sp.wrapping_sub(self.low.get()) < self.size.get()
    }

    #[inline]
    fn bounds(&self) -> StackBounds {
        StackBounds::exact(self.low.get(), self.low.get() + self.size.get())
    }

    fn set(&self, low: usize, high: usize) {
        self.low.set(low);
        self.size.set(high.saturating_sub(low));
    }
}

pub(crate) struct Slots {
    own: Slot,
    /// Whether the system's answer, or that it has none, is in `own`.
    asked: Cell<bool>,
    /// Where `own` may be found to reach to later; its low end, or below.
    own_may_grow_to: Cell<usize>,
    /// The stack in use when last looked up, if not the own one: a described stack, or a range in which none is.
    recent: Slot,
    recent_kind: Cell<Kind>,
    /// The registry's version that `recent` holds for.
    recent_version: Cell<usize>,
}

thread_local! {
    // const and without Drop: no lazy registration, and valid until the thread's very end.
    static SLOTS: Slots = const {
        Slots {
            own: Slot::new(),
            asked: Cell::new(false),
            own_may_grow_to: Cell::new(0),
            recent: Slot::new(),
            recent_kind: Cell::new(Kind::Gap),
            recent_version: Cell::new(0),
        }
    };
}

/// The bounds of the stack that `sp`, a stack pointer of this thread, is on.
#[inline]
pub(crate) fn at(sp: usize) -> StackBounds {
    SLOTS.with(|slots| {
        if slots.own.contains(sp) {
            return slots.own.bounds();
        }
        if slots.recent.contains(sp) && slots.recent_version.get() == registry::version() {
            return slots.recent_bounds(sp);
        }
        slots.update(sp)
    })
}

/// What the registry says of the surroundings of `sp`, by way of the slots; `None` on the thread's own stack, and on the signal
/// stack of a thread that has not asked for its own.
pub(crate) fn around(sp: usize) -> Option<Around> {
    at(sp);
    SLOTS.with(|slots| {
        let (low, size) = (slots.recent.low.get(), slots.recent.size.get());
        let (kind, version) = (slots.recent_kind.get(), slots.recent_version.get());
        slots.recent.contains(sp).then(|| Around { low, high: low + size, kind, version })
    })
}

/// The thread's own stack, asked for now if it was not before.
pub(crate) fn own(sp: usize) -> Option<StackBounds> {
    SLOTS.with(|slots| {
        if !slots.asked.get() {
            slots.ask(sp);
        }
        (slots.own.size.get() != 0).then(|| slots.own.bounds())
    })
}

impl Slots {
    #[inline]
    fn recent_bounds(&self, sp: usize) -> StackBounds {
        if self.recent_kind.get() == Kind::Gap { StackBounds::estimated(sp) } else { self.recent.bounds() }
    }

    /// The one routine behind the first question of a thread and every later change of stacks.
    #[cold]
    #[inline(never)]
    fn update(&self, sp: usize) -> StackBounds {
        let (found, version) = registry::find(sp);
        let described = found.kind != Kind::Gap;
        if !described && self.may_know_more(sp) {
            self.ask(sp);
            if self.own.contains(sp) {
                return self.own.bounds();
            }
        }
        if described {
            self.recent.set(found.low, found.high);
        } else if !self.asked.get() {
            // On the signal stack. What is a gap now may be the own stack once it has been asked for.
            return StackBounds::estimated(sp);
        } else {
            // The gap, without the own stack and what that may grow into.
            let own_high = self.own.low.get() + self.own.size.get();
            if sp >= own_high {
                self.recent.set(found.low.max(own_high), found.high);
            } else {
                self.recent.set(found.low, found.high.min(self.own_may_grow_to.get()));
            }
        }
        self.recent_kind.set(found.kind);
        self.recent_version.set(version);
        self.recent_bounds(sp)
    }

    /// Whether the system, asked now, may turn out to have `sp` on the thread's own stack.
    fn may_know_more(&self, sp: usize) -> bool {
        !self.asked.get() || (self.own_may_grow_to.get()..self.own.low.get()).contains(&sp)
    }

    fn ask(&self, sp: usize) {
        if sys::on_alternate_stack(sp) {
            return;
        }
        let first = !self.asked.replace(true);
        let Some(stack) = sys::thread_stack(sp) else { return };
        // Asked again, it may be about an address that is not on this stack: then what was known stays.
        if first || (stack.low..stack.high).contains(&sp) {
            self.own.set(stack.low, stack.high);
            self.own_may_grow_to.set(stack.may_grow_to);
        } else {
            self.own_may_grow_to.set(self.own.low.get());
        }
    }
}
