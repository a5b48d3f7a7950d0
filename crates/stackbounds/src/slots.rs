//! The two cached slots of a thread: its own stack, and the stack in use now.
//!
//! Rule: **the own stack's bounds are never overwritten by what another stack needs.** They are asked for once, and an
//! answer that does not contain SP (the thread's first question came from a coroutine) is kept
//! for the thread and not believed for the stack in use. So a host that alternates
//! between two stacks costs comparisons, never a query.
//!
//! Signal handlers may ask too, at any instruction. So the slots are counted when they change: a reader that was interrupted by a change
//! looks again, and a handler that interrupted a change leaves them alone.

use core::cell::Cell;
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::compiler_fence;

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

/// The thread's own stack. Empty until it is known.
#[derive(Clone, Copy)]
struct Own {
    low: usize,
    high: usize,
    /// Where it may be found to reach to later; `low`, or below.
    may_grow_to: usize,
}

/// What the slots, or the OS and the registry, know about a stack pointer.
enum Answer {
    Own(StackBounds),
    Around(Around),
    Nothing,
}

pub(crate) struct Slots {
    own: Cell<Own>,
    /// Whether the system's answer, or that it has none, is in `own`.
    asked: Cell<bool>,
    /// The stack in use when last looked up, if not the own one: a described stack, or a range in which none is.
    recent: Cell<Around>,
    /// Odd while the slots change.
    changes: Cell<usize>,
}

thread_local! {
    // const and without Drop: no lazy registration, and valid until the thread's very end.
    static SLOTS: Slots = const {
        Slots {
            own: Cell::new(Own { low: 0, high: 0, may_grow_to: 0 }),
            asked: Cell::new(false),
            recent: Cell::new(Around { low: 0, high: 0, kind: Kind::Gap, version: 0 }),
            changes: Cell::new(0),
        }
    };
}

/// The bounds of the stack that `sp`, a stack pointer of this thread, is on.
#[inline]
pub(crate) fn at(sp: usize) -> StackBounds {
    match SLOTS.with(|slots| slots.look(sp)) {
        Answer::Own(bounds) => bounds,
        Answer::Around(around) if around.kind != Kind::Gap => StackBounds::exact(around.low, around.high),
        Answer::Around(_) | Answer::Nothing => StackBounds::estimated(sp),
    }
}

/// What the registry says of the surroundings of `sp`, by way of the slots; `None` on the thread's own stack, and on the signal
/// stack of a thread that has not asked for its own.
pub(crate) fn around(sp: usize) -> Option<Around> {
    match SLOTS.with(|slots| slots.look(sp)) {
        Answer::Around(around) => Some(around),
        Answer::Own(_) | Answer::Nothing => None,
    }
}

/// The thread's own stack, asked for now if it was not before.
pub(crate) fn own(sp: usize) -> Option<StackBounds> {
    SLOTS.with(|slots| {
        if !slots.asked.get() {
            slots.change(|| slots.ask(sp));
        }
        slots.own.get().bounds()
    })
}

impl Own {
    #[inline]
    fn contains(&self, sp: usize) -> bool {
        sp.wrapping_sub(self.low) < self.high - self.low
    }

    #[inline]
    fn bounds(&self) -> Option<StackBounds> {
        (self.low != self.high).then(|| StackBounds::exact(self.low, self.high))
    }
}

impl Around {
    #[inline]
    fn contains(&self, sp: usize) -> bool {
        self.low <= sp && sp < self.high
    }
}

impl Slots {
    #[inline]
    fn look(&self, sp: usize) -> Answer {
        let before = self.changes.get();
        compiler_fence(SeqCst);
        let (own, recent) = (self.own.get(), self.recent.get());
        compiler_fence(SeqCst);
        if before % 2 == 0 && self.changes.get() == before {
            if own.contains(sp) {
                return Answer::Own(StackBounds::exact(own.low, own.high));
            }
            if recent.contains(sp) && recent.version == registry::version() {
                return Answer::Around(recent);
            }
        }
        self.update(sp)
    }

    /// Changes the slots, unless this runs in a handler that has interrupted a change.
    fn change<T>(&self, change: impl FnOnce() -> T) -> Option<T> {
        let before = self.changes.get();
        if before % 2 == 1 {
            return None;
        }
        self.changes.set(before + 1);
        compiler_fence(SeqCst);
        let result = change();
        compiler_fence(SeqCst);
        self.changes.set(before.wrapping_add(2));
        Some(result)
    }

    /// The one routine behind the first question of a thread and every later change of stacks.
    #[cold]
    #[inline(never)]
    fn update(&self, sp: usize) -> Answer {
        let (found, version) = registry::find(sp);
        let around = Around { low: found.low, high: found.high, kind: found.kind, version };
        let changed = self.change(|| {
            if around.kind == Kind::Gap && self.may_know_more(sp) {
                self.ask(sp);
            }
            let own = self.own.get();
            if own.contains(sp) {
                return Answer::Own(StackBounds::exact(own.low, own.high));
            }
            if around.kind == Kind::Gap && !self.asked.get() {
                // On the signal stack. What is a gap now may be the own stack once it has been asked for.
                return Answer::Nothing;
            }
            let recent = if around.kind == Kind::Gap { own.cut_out_of(around, sp) } else { around };
            self.recent.set(recent);
            Answer::Around(recent)
        });
        match changed {
            Some(answer) => answer,
            None if around.kind != Kind::Gap => Answer::Around(around),
            None => Answer::Nothing,
        }
    }

    /// Whether the system, asked now, may turn out to have `sp` on the thread's own stack.
    fn may_know_more(&self, sp: usize) -> bool {
        let own = self.own.get();
        !self.asked.get() || (own.may_grow_to..own.low).contains(&sp)
    }

    fn ask(&self, sp: usize) {
        if sys::on_alternate_stack(sp) {
            return;
        }
        let first = !self.asked.replace(true);
        let Some(stack) = sys::thread_stack(sp) else { return };
        let answer = Own { low: stack.low, high: stack.high, may_grow_to: stack.may_grow_to };
        // Asked again, it may be about an address that is not on this stack: then what was known stays.
        let known = self.own.get();
        self.own.set(if first || answer.contains(sp) {
            answer
        } else {
            Own { may_grow_to: known.low, ..known }
        });
    }
}

impl Own {
    /// The part of a gap around `sp` without the own stack and what that may grow into.
    fn cut_out_of(&self, gap: Around, sp: usize) -> Around {
        if sp >= self.high {
            Around { low: gap.low.max(self.high), ..gap }
        } else {
            Around { high: gap.high.min(self.may_grow_to), ..gap }
        }
    }
}
