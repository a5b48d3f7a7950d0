//! Stacks of our own: their memory, the pool that keeps them, and the switch onto one and back.

pub(crate) mod alternate;
pub(crate) mod coroutine;
pub(crate) mod locals;
pub(crate) mod names;
pub(crate) mod pool;
pub(crate) mod registered;
mod sanitizer;
pub(crate) mod service;
pub(crate) mod switch;
mod sys;

use std::cell::Cell;
use std::sync::atomic::AtomicUsize;

use coroutine::Running;
use pool::Purpose;
pub(crate) use sanitizer::words;
use stackbounds::Kind;

use crate::shown::{Shown, Waits};

/// What tells one thread from all others, those before and after it included.
#[derive(Clone, Copy, Default)]
pub(crate) struct Mark {
    /// See `thread_token`.
    pub token: usize,
    /// Unique in the process, since a token is used again after a thread's end; 0 before the thread attaches. Odd if the thread's `Hot` is where it is
    /// in every thread with that token.
    pub serial: usize,
}

impl Mark {
    pub fn new(number: usize, token: usize, beside_token: bool) -> Self {
        Self { token, serial: 2 * number + usize::from(beside_token) }
    }

    /// Whether the thread's `Hot`, having the same token, is the same memory.
    #[inline(always)]
    pub fn is_beside_token(self) -> bool {
        self.serial % 2 == 1
    }
}

/// What we keep at the high end of each stack of ours, above its base.
///
/// ```text
///   slot ─┬──────────────┐ low of the slot
///         │ guard pages  │
///         ├──────────────┤ low           the stack overflows here: SIGSEGV
///         │      ↑       │
///         │    frames    │
///         ├──────────────┤ base          = address of the Control
///         │   Control    │
///         ├──────────────┤
///         │    colour    │               less than a page
///         ├──────────────┤
///         │   SlotEnd    │               where the Control is, and whose
///         └──────────────┘ high of the slot, a multiple of the slot's size
/// ```
///
/// Rule: **a Control is valid from when its stack is taken from the pool until it is given back.** The region stays mapped after that,
/// but its pages may be given back, and the next user writes another Control.
#[repr(C, align(64))]
pub(crate) struct Control {
    /// Lowest usable address.
    pub low: Cell<usize>,
    /// Where C goes on when the Rust code on this stack makes a downcall: below the frames of whoever entered it
    /// last, on the system stack. Atomic for the sake of snapshots of other threads.
    pub system_sp: AtomicUsize,
    /// What `system_sp` is to be when a coroutine on this stack is resumed, if its resumer is on a pooled stack itself; else 0.
    pub beneath_resumer: Cell<usize>,
    /// Which thread has it.
    pub mark: Cell<Mark>,
    /// The next stack in the list that this one is in.
    pub next: Shown<Control>,
    /// The fiber whose code this is, if it is one's: on the fiber's own stack, and on stacks that its code or C code called by it
    /// continues on without leaving for the system stack.
    pub fiber: Shown<Running>,
    /// That fiber's name, if it has one. Others look at it under the lock of names.
    pub name: Shown<Box<str>>,
    /// What the fiber waits for.
    pub waits: Waits,
    /// Which region and slot this is.
    region: Cell<u32>,
    slot: Cell<u8>,
    /// Whether C code runs on it, above whatever runs there now, that the fiber's code called without leaving for the system stack: for what C
    /// calls, this is the system stack.
    pub has_c: Cell<bool>,
    /// Whether its system stack, as a further stack of a fiber, is where the fiber is resumed from; else it is one of the fiber's own.
    pub follows: Cell<bool>,
    /// Whether a coroutine on it runs.
    pub runs: Cell<bool>,
    /// Whether it can be a spare of its thread.
    pub is_spare_size: Cell<bool>,
    /// What it is in use for.
    pub purpose: Cell<Purpose>,
    /// The upcall on it seems to have been left by `longjmp`.
    pub seems_left: Cell<bool>,
    told: sanitizer::Told,
}

impl Control {
    /// Whether `sp` is on this stack. Both ends are checked.
    #[inline]
    pub fn contains(&self, sp: usize) -> bool {
        let low = self.low.get();
        sp.wrapping_sub(low) < self.base() - low
    }

    /// The fiber whose code this is. The reference is good for as long as the caller's frame, which is the fiber's own or beneath it.
    #[inline(always)]
    pub fn fiber(&self) -> Option<&'static Running> {
        // SAFETY: null, or a fiber that has not ended: it takes back before its end what it noted, here and on the stacks that its code went on on.
        unsafe { self.fiber.get().as_ref() }
    }

    /// Where the first frame begins, and grows downwards from.
    #[inline]
    pub fn base(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }
}

/// The pooled stack that `sp`, where this thread's code runs or waits, is on, looked up in the registry of stackbounds.
pub(crate) fn control_at(sp: usize) -> Option<&'static Control> {
    // SAFETY: code runs or waits at `sp`, so the stack is not given back.
    unsafe { control_of(stackbounds::around(sp)?) }
}

/// The pooled stack of the thread with `mark` that `address` is on or in the guard of, whether or not anything runs there: of calls that C may have left,
/// and for the handlers of signals. It is in use, or is a spare of the thread, or was its last before it was given back.
pub(crate) fn control_of_thread_at(address: usize, mark: Mark) -> Option<&'static Control> {
    let around = match stackbounds::described(address) {
        gap if gap.kind == Kind::Gap && gap.high != usize::MAX => stackbounds::described(gap.high),
        stack => stack,
    };
    // SAFETY: a slot stays mapped when its stack is given back, and so does the Control that it leads to. That is this thread's if it says so, which only
    // this thread changes then; one that others write at this moment does not say so.
    unsafe { control_of(around) }.filter(|control| control.mark.get().serial == mark.serial)
}

/// # Safety
/// The stack, if this is one of ours, is not given back while the answer is used.
unsafe fn control_of(slot: stackbounds::Around) -> Option<&'static Control> {
    if slot.kind != Kind::Slot {
        return None;
    }
    // SAFETY: a described slot is mapped to its end, and holds two words there. They are ours only if they say so: another version of upcall
    // may share stackbounds. Then the stack was taken from our pool, and its Control stays mapped.
    unsafe {
        let end = (slot.high as *const SlotEnd).sub(1);
        if (*end).owner == pool::owner() { Some(&*(*end).control) } else { None }
    }
}

/// The last two words of a slot.
#[repr(C)]
struct SlotEnd {
    control: *const Control,
    owner: usize,
}
