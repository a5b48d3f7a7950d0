//! Stacks owned by upcall: their memory, the pool, and the switch onto a stack and back.

pub(crate) mod alternate;
pub(crate) mod kept;
pub(crate) mod pool;
pub(crate) mod registered;
pub(crate) mod sanitizer;
pub(crate) mod service;
pub(crate) mod switch;

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicPtr, AtomicUsize};

use pool::Purpose;
pub(crate) use sanitizer::words;
use stackbounds::for_upcall::{Around, RangeKind, around, described};

use crate::published::{CurrentUpcallCell, CurrentWait, Published};
use crate::sys::isa::switch::{OsBounds, OsBoundsRef};

/// Identifies one thread among all threads of the process, past and future ones included.
#[derive(Clone, Copy, Default)]
pub(crate) struct ThreadId {
    /// The thread pointer, as `thread_token` returns it. A later thread may have the same.
    pub token: usize,
    /// Unique in the process; 0 before the thread attaches. Needed because a token is reused after
    /// its thread's end.
    ///
    /// Odd if the thread's `ThreadState` is known to be in static TLS, at a fixed distance from the
    /// token.
    pub serial: usize,
}

impl ThreadId {
    /// Makes the identity of the thread with serial `number`. `beside_token`: its `ThreadState` is
    /// in static TLS.
    pub fn new(number: usize, token: usize, beside_token: bool) -> Self {
        Self { token, serial: 2 * number + usize::from(beside_token) }
    }

    /// Whether the thread's `ThreadState` is known to be in static TLS.
    ///
    /// If so, any thread with the same token has its `ThreadState` at the same address.
    #[inline(always)]
    pub fn is_beside_token(self) -> bool {
        self.serial % 2 == 1
    }
}

/// Where C code runs when Rust code on one of our stacks calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CStays {
    /// C runs on the system stack, unless the call says otherwise.
    No,
    /// C stays on the fiber's stack, as the creator of the fiber chose.
    Chosen,
    /// C frames called by the fiber's code are live here. For upcalls from them, this is the system
    /// stack.
    WithC,
}

/// The record at the high end of each of our stacks, above its base.
///
/// ```text
///   slot ─┬───────────────┐ low of the slot
///         │  guard pages  │
///         ├───────────────┤ low           the stack overflows here: SIGSEGV
///         │       ↑       │
///         │    frames     │
///         ├───────────────┤ base          = address of the StackHeader
///         │  StackHeader  │
///         ├───────────────┤
///         │    colour     │               less than a page
///         ├───────────────┤
///         │  SlotTrailer  │               address and user of the StackHeader
///         └───────────────┘ high of the slot, a multiple of the slot's size
/// ```
///
/// Rule: **a StackHeader is valid from when its stack is taken from the pool until it is given
/// back.** The region stays mapped after that. But the pool may return its pages to the system, and
/// the next user writes another StackHeader.
#[repr(C, align(64))]
pub(crate) struct StackHeader {
    /// Lowest usable address.
    pub low: Cell<usize>,
    /// SP at which C continues when Rust code on this stack makes a downcall.
    ///
    /// It is on the system stack, below the frames of whoever entered this stack last. Atomic for
    /// snapshots of other threads.
    pub system_sp: AtomicUsize,
    /// The next `system_sp` of the coroutine on this stack, set at its resumption.
    ///
    /// If the resumer is on a pooled stack itself, this is the `system_sp` of the resumer's stack;
    /// else 0.
    pub beneath_resumer: Cell<usize>,
    /// SP of the resumer of the coroutine running on this stack; 0 if none runs.
    ///
    /// `usize::MAX` if the thread's end has made the coroutine impossible to resume.
    pub resumed_at: AtomicUsize,
    /// The thread owning the stack.
    pub owner: Cell<ThreadId>,
    /// The next stack in the list containing this one.
    pub next: Published<StackHeader>,
    /// The fiber whose code runs or waits on this stack; null if there is none.
    ///
    /// Set on the fiber's own stack and on its extension stacks. On an extension stack, the fiber's
    /// code or C called by it continues without leaving for the system stack.
    pub fiber: Published<()>,
    /// The fiber's name, or null. Other threads read it under the lock of names.
    pub name: Published<Box<str>>,
    /// The current wait of the fiber.
    pub waits: CurrentWait,
    /// One of two upcalls, on the stack on which a fiber began.
    ///
    /// While the fiber is suspended, this is the upcall containing the fiber's code. While it runs,
    /// this is the upcall containing its resumer. The other one of the two is in the thread's
    /// `ThreadState`.
    pub upcall: CurrentUpcallCell,
    /// The index of this stack's region in the pool, and of its slot in the region.
    region: Cell<u32>,
    slot: Cell<u8>,
    /// Where C called by code on this stack runs.
    pub c_stays: Cell<CStays>,
    /// For an extension stack of a fiber: whether its system stack is the resumer's.
    ///
    /// Otherwise its system stack is one of the fiber's own.
    pub tracks_resumer: Cell<bool>,
    /// Whether the stack can become a spare of its thread.
    pub is_spare_size: Cell<bool>,
    /// Whether an executor of ours polls the fiber on this stack.
    pub is_tasks: Cell<bool>,
    /// Whether the fiber's last poll was deferred because the thread was panicking.
    pub poll_deferred: Cell<bool>,
    /// The current use of the stack.
    pub purpose: Cell<Purpose>,
    /// Whether the upcall on this stack seems abandoned by `longjmp`.
    pub seems_abandoned: Cell<bool>,
    /// A number that changes when a fiber ends on this stack, and when the stack is taken from the
    /// pool. What was made before by code on this stack is gone.
    pub epoch: Cell<usize>,
    /// For an upcall made from a pooled stack, its system stack: the `epoch` of that stack then.
    /// Otherwise 0.
    pub system_epoch: Cell<usize>,
    /// The stack's own bounds, while it is left for another one.
    pub os_bounds: OsBounds,
    /// The bounds of the stack with `system_sp`.
    pub system_bounds: OsBoundsRef,
    /// Notes for AddressSanitizer.
    pub told: sanitizer::Told,
}

impl StackHeader {
    /// Whether `sp` is on this stack. Checks both ends.
    #[inline]
    pub fn contains(&self, sp: usize) -> bool {
        let low = self.low.get();
        sp.wrapping_sub(low) < self.base() - low
    }

    /// The name of the fiber that began on this stack, if it has one. For the thread of the stack,
    /// while the fiber has not ended.
    pub fn fiber_name(&self) -> Option<&str> {
        // SAFETY: null, or the name of this fiber, which lives until the fiber ends.
        unsafe { self.name.get().as_ref() }.map(|name| &**name)
    }

    /// Whether the code on this stack belongs to a fiber.
    pub fn has_fiber(&self) -> bool {
        !self.fiber.get().is_null()
    }

    /// Whether a coroutine on this stack runs, or was running when C abandoned it by `longjmp`.
    ///
    /// Also true of a coroutine that the thread's end has made impossible to resume.
    #[inline(always)]
    pub fn runs(&self) -> bool {
        self.resumed_at.load(Relaxed) != 0
    }

    /// The high end of the stack: its first frame grows downwards from here.
    #[inline]
    pub fn base(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }
}

/// Tells the system the bounds of the stack in use, with `sp`, if it is one of ours and the system
/// has others.
///
/// C on a stack of ours may have switched to another fiber of Windows and back: `SwitchToFiber`
/// restores the bounds from the making of its fiber, though C has left from another stack.
#[inline(always)]
pub(crate) fn mend_os_bounds(sp: usize) {
    if !OsBounds::are_told_at(sp) {
        tell_os_bounds(sp);
    }
}

#[cold]
#[inline(never)]
fn tell_os_bounds(sp: usize) {
    if let Some(stack) = header_at(sp) {
        // SAFETY: the stack around SP is the one in use.
        unsafe { OsBounds::of_stack(stack.low.get(), stack.base()).tell() };
    }
}

/// The pooled stack around `sp`, looked up in the registry of stackbounds.
///
/// Code of the calling thread runs or waits at `sp`.
pub(crate) fn header_at(sp: usize) -> Option<&'static StackHeader> {
    // SAFETY: code runs or waits at `sp`, so the stack is not given back.
    unsafe { header_of(around(sp)?) }
}

/// The pooled stack of thread `id` around `address`, its guard included.
///
/// Nothing need run there: callers are signal handlers, and code that looks at calls possibly
/// abandoned by C. The stack is in use, or is a spare of the thread.
pub(crate) fn header_of_thread_at(address: usize, id: ThreadId) -> Option<&'static StackHeader> {
    let around = match described(address) {
        gap if gap.kind == RangeKind::Gap && gap.high != usize::MAX => described(gap.high),
        stack => stack,
    };
    let end = slot_trailer(around)?;
    // Other threads may own the stack, or take it or give it back at this moment. Then nothing but
    // the trailer's two words `owner` and `user` is read.
    if id.serial == 0 || end.user.load(Relaxed) != id.serial {
        return None;
    }
    // SAFETY: `user` is this thread's serial from when the thread takes the stack until it gives
    // the stack back. Meanwhile, this thread alone changes it. So the header is valid.
    unsafe { end.header.load(Relaxed).as_ref() }
}

/// The pooled stack whose slot `slot` describes, if the slot is one of our pool's.
///
/// # Safety
/// If this is one of our stacks, it is not given back while the result is used.
unsafe fn header_of(slot: Around) -> Option<&'static StackHeader> {
    // SAFETY: the caller guarantees that the stack is not given back, so its StackHeader is valid.
    unsafe { slot_trailer(slot)?.header.load(Relaxed).as_ref() }
}

/// The trailer of a slot of our pool; `None` for any other range.
fn slot_trailer(slot: Around) -> Option<&'static SlotTrailer> {
    if slot.kind != RangeKind::Slot {
        return None;
    }
    // SAFETY: a described slot stays mapped to its end for ever, and all writes to the words there
    // are atomic. They are ours only if `owner` says so, since another version of upcall may share
    // stackbounds.
    let end = unsafe { &*(slot.high as *const SlotTrailer).sub(1) };
    (end.owner.load(Relaxed) == pool::owner()).then_some(end)
}

/// The last words of a slot.
///
/// Atomic, because any thread reads them, of any slot, while other threads take the stack or the
/// pool returns its pages to the system. After the latter they read as 0. Only a thread that owns
/// the stack, or knows it to be in use, follows `header`.
#[repr(C)]
struct SlotTrailer {
    header: AtomicPtr<StackHeader>,
    /// The [serial](ThreadId::serial) of the thread owning the stack; 0 if none does.
    user: AtomicUsize,
    /// [`pool::owner`] of the pool owning the slot.
    owner: AtomicUsize,
}
