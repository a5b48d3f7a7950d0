//! The two cached ranges of a thread: its own stack, and the stack in use now.
//!
//! Rule: **the bounds of the thread's own stack are never overwritten by a lookup for another
//! stack.** They are queried once per depth. An answer that does not contain SP is kept for the
//! thread, but not believed for the stack in use. The thread has then asked first from a coroutine.
//! So a host that alternates between two stacks costs comparisons, never a query.
//!
//! Signal handlers may ask too, at any instruction. So a counter marks each change of the cache. A
//! reader that was interrupted by a change looks again. A handler that interrupted a change leaves
//! the cache alone.

use core::cell::Cell;
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::compiler_fence;

use crate::bounds::StackBounds;
use crate::registry::{self, Around, RangeKind};
use crate::sys::{self, ThreadStack};

/// The depth between two looks, in bytes. Each look verifies twice as much.
///
/// So a caller that asks again after each `STEP` of depth never runs on [unverified](Own) stack.
const STEP: usize = 128 * 1024;

/// The thread's own stack. Empty until it is known.
///
/// ```text
///         high ─┬─ the stack's high end
///               │    answered from the cache
///   asks_below ─┤  one STEP above `verified`; `low` if the whole stack is verified
///               │    verified, but SP here causes a look further down
///     verified ─┤  lowest verified address
///               │    stack according to the system, not verified
///          low ─┤  low end according to the system; the end of a guard, if a look found one
///               │    not stack yet; SP here causes a look
///  may_grow_to ─┴─ below this, SP is on another stack
/// ```
#[derive(Clone, Copy)]
struct Own {
    low: usize,
    high: usize,
    verified: usize,
    asks_below: usize,
    /// The system's last answer.
    said: ThreadStack,
}

/// The answer for a stack pointer, from the cache or from the OS and the registry.
enum Answer {
    Own(StackBounds),
    Around(Around),
    Nothing,
}

pub(crate) struct Cache {
    own: Cell<Own>,
    /// Whether the system was asked. `own` holds its answer then, or stays empty if it has none.
    asked: Cell<bool>,
    /// The range found by the last lookup for another stack: a described stack, or a gap.
    recent: Cell<Around>,
    /// Odd while the cache changes.
    changes: Cell<usize>,
}

thread_local! {
    // const and without Drop: no lazy registration, and valid until the very end of the thread.
    static CACHE: Cache = const {
        Cache {
            own: Cell::new(Own::unknown()),
            asked: Cell::new(false),
            recent: Cell::new(Around { low: 0, high: 0, kind: RangeKind::Gap, version: 0 }),
            changes: Cell::new(0),
        }
    };
}

/// The bounds of the stack around `sp`, a stack pointer of this thread.
#[inline]
pub(crate) fn at(sp: usize) -> StackBounds {
    CACHE.with(|cache| cache.look(sp)).bounds(sp)
}

/// The bounds of the stack around `sp`, from the cache alone; `None` if that needs a lookup.
///
/// Needs next to no stack.
pub fn known(sp: usize) -> Option<StackBounds> {
    CACHE.with(|cache| cache.known(sp)).map(|answer| answer.bounds(sp))
}

/// The registry's answer for the range around `sp`, through the cache. For callers with caches of
/// their own.
///
/// `None` on the thread's own stack, and on the signal stack of a thread that has not asked for its
/// own.
pub fn around(sp: usize) -> Option<Around> {
    match CACHE.with(|cache| cache.look(sp)) {
        Answer::Around(around) => Some(around),
        Answer::Own(_) | Answer::Nothing => None,
    }
}

/// The thread's own stack, queried now if it was not before.
pub fn own(sp: usize) -> Option<StackBounds> {
    CACHE.with(|cache| {
        if !cache.asked.get() {
            cache.change(|| cache.ask_first(sp));
        }
        cache.own.get().bounds()
    })
}

/// The thread's own stack and its lowest verified address, if `sp` is on it.
///
/// Verifies down to `sp - bytes`, or to the end of the stack if that comes first. The address
/// returned may be lower, from an earlier look.
pub fn verify(sp: usize, bytes: usize) -> Option<(StackBounds, usize)> {
    CACHE.with(|cache| {
        // If this is the thread's first look, it verifies enough at once.
        let _ = cache.known(sp).unwrap_or_else(|| cache.update(sp, bytes.max(2 * STEP)));
        let own = cache.own.get();
        if own.contains(sp) && own.verified > own.low && sp.saturating_sub(bytes) < own.verified {
            cache.change(|| cache.verify(sp, bytes));
        }
        let own = cache.own.get();
        own.contains(sp).then_some((StackBounds::exact(own.low, own.high), own.verified))
    })
}

impl Answer {
    #[inline]
    fn bounds(self, sp: usize) -> StackBounds {
        match self {
            Self::Own(bounds) => bounds,
            Self::Around(around) if around.kind != RangeKind::Gap => {
                StackBounds::exact(around.low, around.high)
            }
            Self::Around(_) | Self::Nothing => StackBounds::estimated(sp),
        }
    }
}

impl Own {
    const fn unknown() -> Self {
        Self::unverified(ThreadStack { low: 0, high: 0, may_grow_to: 0, limit: None })
    }

    /// The stack as the system describes it, nothing verified.
    const fn unverified(said: ThreadStack) -> Self {
        let ThreadStack { low, high, .. } = said;
        Self { low, high, verified: high, asks_below: high, said }
    }

    #[inline]
    fn contains(&self, sp: usize) -> bool {
        sp.wrapping_sub(self.low) < self.high - self.low
    }

    /// Whether the cache answers for `sp`.
    #[inline]
    fn answers(&self, sp: usize) -> bool {
        sp.wrapping_sub(self.asks_below) < self.high - self.asks_below
    }

    fn verified_to(self, low: usize, verified: usize) -> Self {
        let asks_below = if verified > low { verified.saturating_add(STEP).min(self.high) } else { low };
        Self { low, verified, asks_below, ..self }
    }

    #[inline]
    fn bounds(&self) -> Option<StackBounds> {
        (self.low != self.high).then(|| StackBounds::exact(self.low, self.high))
    }
}

impl Cache {
    #[inline]
    fn look(&self, sp: usize) -> Answer {
        self.known(sp).unwrap_or_else(|| self.update(sp, 2 * STEP))
    }

    #[inline]
    fn known(&self, sp: usize) -> Option<Answer> {
        let before = self.changes.get();
        compiler_fence(SeqCst);
        let (own, recent) = (self.own.get(), self.recent.get());
        compiler_fence(SeqCst);
        if before % 2 == 0 && self.changes.get() == before {
            if own.answers(sp) {
                return Some(Answer::Own(StackBounds::exact(own.low, own.high)));
            }
            if recent.contains(sp) && recent.version == registry::version() {
                return Some(Answer::Around(recent));
            }
        }
        None
    }

    /// Changes the cache by calling `change`; `None` in a handler that interrupted another change.
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

    /// Looks `sp` up and updates the cache: for a thread's first question, and for every later
    /// change of stacks. On the own stack, verifies `bytes` below `sp`.
    #[cold]
    #[inline(never)]
    fn update(&self, sp: usize, bytes: usize) -> Answer {
        let around = registry::described(sp);
        let changed = self.change(|| {
            if around.kind == RangeKind::Gap && self.may_know_more(sp) {
                self.ask(sp, bytes);
            }
            let own = self.own.get();
            if own.answers(sp) {
                return Answer::Own(StackBounds::exact(own.low, own.high));
            }
            if around.kind == RangeKind::Gap && !self.asked.get() {
                // `sp` is on the signal stack. This gap may contain the thread's own stack, not
                // queried yet.
                return Answer::Nothing;
            }
            let recent = if around.kind == RangeKind::Gap { own.cut_out_of(around, sp) } else { around };
            self.recent.set(recent);
            Answer::Around(recent)
        });
        match changed {
            Some(answer) => answer,
            None if around.kind != RangeKind::Gap => Answer::Around(around),
            None => Answer::Nothing,
        }
    }

    /// Whether a query now may find `sp` on the thread's own stack, or give a changed answer.
    fn may_know_more(&self, sp: usize) -> bool {
        let own = self.own.get();
        !self.asked.get() || (own.said.may_grow_to..own.asks_below).contains(&sp)
    }

    /// Queries the own stack if needed, and verifies it for `bytes` below `sp`.
    fn ask(&self, sp: usize, bytes: usize) {
        if !self.asked.get() {
            self.ask_first(sp);
        }
        if !self.own.get().answers(sp) {
            self.verify(sp, bytes);
        }
    }

    fn ask_first(&self, sp: usize) {
        // On a described stack, some systems would answer for that stack.
        let is_described = || registry::described(sp).kind != RangeKind::Gap;
        if sys::on_alternate_stack(sp) || sys::TELLS_OF_STACK_IN_USE && is_described() {
            return;
        }
        self.asked.set(true);
        self.own.set(sys::thread_stack(sp).map_or(Own::unknown(), Own::unverified));
    }

    /// Asks the system again, and verifies the stack for `bytes` below `sp`.
    ///
    /// Async-signal-safe.
    fn verify(&self, sp: usize, bytes: usize) {
        let own = self.own.get();
        let is_known = own.contains(sp);
        if !(own.said.may_grow_to..own.high).contains(&sp) || sys::on_alternate_stack(sp) {
            return;
        }
        let said = sys::ask_again(own.said, sp);
        let is_on_it = is_known || said.low <= sp && sys::is_one_mapping(sp, own.low);
        if !is_on_it {
            // `sp` is not on this stack. The bounds stay, and the stack is no longer expected to
            // grow below `low`.
            self.own.set(Own { said: ThreadStack { may_grow_to: own.low, ..own.said }, ..own });
            return;
        }
        let own = Own { said, ..own };
        // If the limit fell below the depth already reached, it says nothing. The kernel's mappings
        // then say how deep the stack is.
        let wanted = sp.saturating_sub(bytes).max(if said.low <= sp { said.low } else { 0 });
        let is_first = own.verified == own.high;
        // A stack that grows on demand is mapped as far as it was used so far. Reading at `wanted`
        // makes it grow.
        let is_whole =
            sys::is_one_mapping(wanted, sp) || sys::is_readable(wanted) && sys::is_one_mapping(wanted, sp);
        // A thread's first look at a whole mapping reads no page: reading would touch unused ones.
        // Later looks read each page, since a guard may lie inside the mapping.
        let usable = match is_whole {
            true if is_first => wanted,
            true => readable_down_to(wanted, sp.min(own.verified)),
            false => readable_down_to(wanted, sp),
        };
        let low = if usable > wanted { usable } else { said.low.min(wanted) };
        self.own.set(own.verified_to(low, usable));
    }
}

/// The lowest address, at least `low`, from which every page up to `from` is readable.
fn readable_down_to(low: usize, from: usize) -> usize {
    let page = sys::page_size();
    let mut usable = from & !(page - 1);
    while usable > low && sys::is_readable(usable - page) {
        usable -= page;
    }
    usable.max(low)
}

impl Own {
    /// Cuts the own stack, and the space below for its growth, out of the gap around `sp`.
    fn cut_out_of(&self, gap: Around, sp: usize) -> Around {
        if sp >= self.high {
            Around { low: gap.low.max(self.high), ..gap }
        } else {
            Around { high: gap.high.min(self.said.may_grow_to), ..gap }
        }
    }
}
