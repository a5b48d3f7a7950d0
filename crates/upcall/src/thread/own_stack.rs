//! A thread's own stack: the part usable by upcalls. Also reports upcalls from undescribed stacks.

use std::cell::Cell;
use std::mem::transmute;
use std::ptr;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicPtr, AtomicUsize, compiler_fence};

use stackbounds::StackBounds;
use stackbounds::for_upcall::verify;

use super::ThreadState;
use crate::config::Config;
use crate::messages::warn;
use crate::stack::service;

/// Extra bytes verified further down, so that upcalls from there need no new look.
const LOOKED_AHEAD: usize = 64 << 10;

/// A thread's own stack, as far as it is known.
///
/// Addresses, for upcalls of the default size:
///
/// ```text
/// low      low + margin       verified       floor                     low + size
///  ├──────────────┼──────────────┼──────────────┼──────────────────────────┤
///  │    margin    │ not verified │  min_stack   │           span           │
///                                └ usable_from = max(low + margin, verified)
/// ```
pub(crate) struct OwnStack {
    /// `floor..floor + span` is the part where an upcall of the default size runs in place. Empty
    /// until the thread is attached, and if the stack is too small or not known.
    floor: Cell<usize>,
    span: Cell<usize>,
    /// The whole stack. Empty until it is known.
    low: AtomicUsize,
    size: AtomicUsize,
    /// The lowest address down to which the stack was verified.
    verified: Cell<usize>,
    /// The bytes at the low end not used by upcalls.
    margin: Cell<usize>,
    /// The default number of bytes for an upcall.
    min_stack: Cell<usize>,
    /// Whether the stack was known at the thread's last detach.
    was_known: Cell<bool>,
    /// Names the running coroutine; set if the host copies the stack away and back. See
    /// `coroutines::Host::moves_stacks`.
    moves: Cell<Option<NamesCoroutine>>,
}

/// Returns the address by which the host names the running coroutine; 0 if it names none.
pub(crate) type NamesCoroutine = fn() -> usize;

/// A [`NamesCoroutine`], if the host copies the own stacks of all threads away and back; else null.
static OWN_STACKS_MOVE: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

impl OwnStack {
    pub const fn unknown() -> Self {
        Self {
            floor: Cell::new(0),
            span: Cell::new(0),
            low: AtomicUsize::new(0),
            size: AtomicUsize::new(0),
            verified: Cell::new(0),
            margin: Cell::new(0),
            min_stack: Cell::new(0),
            was_known: Cell::new(false),
            moves: Cell::new(None),
        }
    }

    /// Copies the settings for upcalls in place.
    pub fn set_settings(&self, settings: &Config) {
        self.min_stack.set(settings.min_stack);
        self.margin.set(settings.stack_margin);
    }
}

impl ThreadState {
    /// The default number of bytes for an upcall.
    pub fn min_stack(&self) -> usize {
        self.own.min_stack.get()
    }

    /// Whether an upcall of the default size may run in place at `sp`: on the thread's own stack,
    /// with enough room.
    #[inline(always)]
    pub fn has_room_at(&self, sp: usize) -> bool {
        sp.wrapping_sub(self.own.floor.get()) < self.own.span.get()
    }

    /// Whether `sp` is on the thread's own stack, as far as it is known. Checks both ends. For the
    /// thread itself only.
    #[inline(always)]
    pub fn owns(&self, sp: usize) -> bool {
        // SAFETY: both fields are alive with `self`. Only this thread writes them, so a plain read
        // cannot race with a write. It can be part of the comparison.
        let (low, size) = unsafe { (*self.own.low.as_ptr(), *self.own.size.as_ptr()) };
        sp.wrapping_sub(low) < size
    }

    /// The thread's own stack, `low..high`, if it is known.
    pub fn own_stack(&self) -> Option<(usize, usize)> {
        let (low, size) = (self.own.low.load(Relaxed), self.own.size.load(Relaxed));
        (size != 0).then_some((low, low + size))
    }

    /// Sets the own stack, verified from `verified` up. Rule: **in place only on verified stack,
    /// and outside the margin.**
    pub fn set_own_stack(&self, own: &StackBounds, verified: usize) {
        let high = own.high();
        // If a signal handler interrupts this, its upcalls run elsewhere.
        self.own.span.set(0);
        compiler_fence(SeqCst);
        self.own.low.store(own.low(), Relaxed);
        self.own.size.store(own.size(), Relaxed);
        self.own.verified.set(verified);
        self.own.floor.set(self.usable_from().saturating_add(self.own.min_stack.get()));
        compiler_fence(SeqCst);
        let names = OWN_STACKS_MOVE.load(Relaxed);
        if !names.is_null() {
            // SAFETY: `note_that_stacks_move` stored it, from a pointer of this type.
            self.note_that_own_stack_moves(unsafe { transmute::<*mut (), NamesCoroutine>(names) });
        }
        if self.own.moves.get().is_none() {
            self.own.span.set(high.saturating_sub(self.own.floor.get()));
        }
    }

    /// Has upcalls of all threads run on pooled stacks, from their next attachment on; those of the
    /// calling thread at once.
    pub fn note_that_stacks_move(names: NamesCoroutine) {
        OWN_STACKS_MOVE.store(names as *mut (), Relaxed);
        Self::current().note_that_own_stack_moves(names);
    }

    /// Has upcalls from the thread's own stack run on pooled stacks, because the host copies that
    /// stack away and back. Such a stack shows nothing of abandoned calls.
    pub fn note_that_own_stack_moves(&self, names: NamesCoroutine) {
        self.own.moves.set(Some(names));
        self.own.span.set(0);
        self.calls.note_copies();
    }

    /// Whether `sp` is on the own stack, and the host copies that away and back.
    ///
    /// Only the running coroutine's part is in its place. Beyond it are remnants of frames: a walk
    /// that comes to them reads any address.
    #[inline(always)]
    pub fn stack_moves_at(&self, sp: usize) -> bool {
        self.own.moves.get().is_some() && self.owns(sp)
    }

    /// The host's address for the running coroutine, if the host copies the own stack; 0 if the
    /// host names none.
    #[cold]
    #[inline(never)]
    pub fn running_coroutine(&self) -> usize {
        self.own.moves.get().map_or(0, |names| names())
    }

    /// The lowest address of the own stack that upcalls may use, as far as is known.
    pub(super) fn usable_from(&self) -> usize {
        self.own.verified.get().max(self.own.low.load(Relaxed).saturating_add(self.own.margin.get()))
    }

    /// The bytes of own stack usable by upcalls below `sp`. `sp` must be on it.
    pub fn usable_below(&self, sp: usize) -> usize {
        sp.saturating_sub(self.usable_from())
    }

    /// The verified bytes of own stack below `sp`, including the margin. `sp` must be on it.
    pub fn verified_below(&self, sp: usize) -> usize {
        sp.saturating_sub(self.own.verified.get())
    }

    /// Whether a further look might verify `bytes` below `sp` on the own stack.
    pub fn is_to_verify(&self, sp: usize, bytes: usize) -> bool {
        let (low, verified) = (self.own.low.load(Relaxed), self.own.verified.get());
        self.owns(sp) && verified > low && sp.saturating_sub(bytes) < verified
    }

    pub fn forget_own_stack(&self) {
        self.own.span.set(0);
        self.own.was_known.set(self.own_stack().is_some());
        self.own.size.store(0, Relaxed);
    }

    /// Whether the system may be asked for the own stack.
    ///
    /// After the thread's exit, a new question could allocate. So it is asked only if an earlier
    /// answer is known.
    pub(super) fn may_ask_for_own_stack(&self) -> bool {
        !self.has_exited() || self.own.was_known.get()
    }

    /// Learns more of the own stack from `stack`, an exact stack around `sp`.
    ///
    /// It may be the thread's own: unknown when the thread attached, because a signal handler's
    /// stack was in use, or grown since.
    #[inline]
    pub fn learn_own_stack(&self, sp: usize, stack: &StackBounds) {
        if self.own_stack().is_none_or(|(_, high)| high == stack.high()) {
            self.look_below(sp, self.min_stack());
        }
    }

    /// Verifies the own stack for at least `bytes` below `sp`, if `sp` is on it and this was not
    /// done before. Needs next to no stack.
    #[inline]
    pub fn verify_own_stack(&self, sp: usize, bytes: usize) {
        if self.is_to_verify(sp, bytes) {
            service::run(|| self.look_below(sp, bytes));
        }
    }

    /// Verifies the own stack below `sp`. Makes no calls but those allowed in signal handlers.
    pub(super) fn look_below(&self, sp: usize, bytes: usize) {
        if let Some((own, verified)) = verify(sp, bytes.saturating_add(LOOKED_AHEAD)) {
            self.set_own_stack(&own, verified);
        }
    }
}

/// The number of upcalls from undescribed stacks, on all threads. Counted unless they are simply
/// allowed.
pub(crate) static FOREIGN_UPCALLS: AtomicUsize = AtomicUsize::new(0);

/// Counts an upcall from an undescribed stack, and reports the first on each thread.
pub(crate) fn report_foreign(thread: &ThreadState, sp: usize) {
    FOREIGN_UPCALLS.fetch_add(1, Relaxed);
    let Some(record) = thread.record() else { return };
    if !record.reported_foreign.replace(true) {
        let (low, high) = thread.own_stack().unwrap_or_default();
        service::run(|| {
            warn(format_args!(
                "upcall from an undescribed stack: SP {sp:#x} on {} is outside its own stack {low:#x}..{high:#x} and no registered \
                 stack holds it. If the host runs coroutines this is harmless; if not, its stack pointer is corrupt",
                super::wrong_thread::describe(record.os_thread_id)
            ));
        });
    }
}
