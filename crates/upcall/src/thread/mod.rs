//! Threads: what is kept for each, from its first upcall to its exit.
//!
//! [`Hot`] is the part that every upcall looks at, in a `thread_local!` that is const and without Drop: valid from a
//! thread's first instruction to its last, key destructors included. [`record`] is the rest.

mod calls;
pub(crate) mod left;
mod noted;
pub(crate) mod parker;
pub(crate) mod record;
mod sys;
mod upcall;

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

pub(crate) use calls::{C_HERE, Calls, Closed, Frame, OpenCall, Payload};
use noted::Noted;
pub(crate) use parker::Parker;
pub(crate) use record::{KeptRecord, Record};
use sys::{is_beside_token, thread_token};
pub(crate) use sys::{thread_id, thread_name};
pub(crate) use upcall::{Upcall, UpcallCell};

use crate::function::Function;
use crate::shown::{Shown, Waits};
use crate::stack::coroutine::Running;
use crate::stack::pool::Purpose;
use crate::stack::{Control, Mark, control_at, pool};

/// Stacks that a thread keeps to itself.
const SPARES: usize = 8;

/// The part of a thread's record that is looked at on every upcall.
///
/// Only the owning thread writes it. The fields that snapshots of other threads read are atomic.
pub(crate) struct Hot {
    /// `floor..floor + span`: where on its own stack this thread can run an upcall of the default size in
    /// place. Empty until the thread is attached, and where the stack is too small or not known.
    floor: Cell<usize>,
    span: Cell<usize>,
    /// The thread's own stack. Empty until it is known.
    own_low: AtomicUsize,
    own_size: AtomicUsize,
    /// The process's settings, as far as every upcall away from the thread's own stack looks at them.
    min_stack: Cell<usize>,
    checks_foreign: Cell<bool>,
    /// Whether a spare stack has the size that fibers are to have.
    fibers_on_spares: Cell<bool>,
    /// The upcall that runs now or has made the downcall that runs now, as far as is known: an upcall that C made without a downcall between leaves
    /// none when it returns into the outer one.
    pub upcall: UpcallCell,
    /// The stack of the fiber that runs, or null: of the innermost, if one polls another.
    pub fiber: Cell<*const Control>,
    /// The pooled stack that was entered or returned to last, or null: a hint, to be believed only when SP is on it. Rule: **the hint is a stack
    /// that this thread has**, in use or spare.
    pub pooled: Cell<*const Control>,
    /// The free places for downcalls, and their numbers.
    pub calls: Calls,
    /// A range, not of the own stack, from which upcalls of the default size go to a spare stack, their system stack being the one that
    /// they came from; and one in which they run in place. Where upcalls came from last.
    pub to_spare: Noted,
    pub in_place: Noted,
    /// Idle stacks of the default size.
    spares: Shown<Control>,
    /// How many pooled stacks the thread has, idle or not; and how many of them for upcalls.
    stacks: Cell<usize>,
    upcall_stacks: AtomicUsize,
    /// How many of the latter there are when it is time to look whether some have been left.
    look_at: Cell<usize>,
    /// Where the thread sleeps; from its first wait until it detaches.
    parker: Cell<Option<&'static Parker>>,
    /// How many need the record to stay, though the thread is exiting.
    record_keepers: Cell<usize>,
    /// How many waits that block the thread have not returned; and the innermost.
    pub waits: Cell<usize>,
    pub waits_for: Waits,
    /// See `run_meanwhile`.
    meanwhile: Cell<Option<fn() -> bool>>,
    /// Null until the thread is attached.
    record: Cell<*const Record>,
    /// The thread's exit has been, or will not be noticed: from now on, a record is freed by the last call that needs it.
    exiting: Cell<bool>,
    mark: Cell<Mark>,
}

thread_local! {
    static HOT: Hot = const {
        Hot {
            floor: Cell::new(0),
            span: Cell::new(0),
            own_low: AtomicUsize::new(0),
            own_size: AtomicUsize::new(0),
            min_stack: Cell::new(0),
            checks_foreign: Cell::new(false),
            fibers_on_spares: Cell::new(false),
            upcall: UpcallCell::new(),
            fiber: Cell::new(ptr::null()),
            pooled: Cell::new(ptr::null()),
            calls: Calls::new(),
            spares: Shown::null(),
            stacks: Cell::new(0),
            upcall_stacks: AtomicUsize::new(0),
            look_at: Cell::new(left::MANY_STACKS),
            parker: Cell::new(None),
            record_keepers: Cell::new(0),
            waits: Cell::new(0),
            waits_for: Waits::none(),
            meanwhile: Cell::new(None),
            to_spare: Noted::nothing(),
            in_place: Noted::nothing(),
            record: Cell::new(ptr::null()),
            exiting: Cell::new(false),
            mark: Cell::new(Mark { token: 0, serial: 0 }),
        }
    };
}

impl Hot {
    /// The calling thread's.
    #[inline(always)]
    pub fn here() -> &'static Hot {
        // SAFETY: the thread-local has no Drop and lives as long as its thread. The reference stays on the thread (Hot is
        // not Sync), in frames of calls that the thread outlives.
        HOT.with(|hot| unsafe { &*ptr::from_ref(hot) })
    }

    /// Whether an upcall of the default size may run in place at `sp`: on the thread's own stack, with room enough.
    #[inline(always)]
    pub fn has_room_at(&self, sp: usize) -> bool {
        sp.wrapping_sub(self.floor.get()) < self.span.get()
    }

    /// Whether `sp` is on the thread's own stack, as far as that is known. Both ends are checked. Asked by the thread itself.
    #[inline(always)]
    pub fn owns(&self, sp: usize) -> bool {
        // SAFETY: only this thread writes them, so that reading need not be atomic, and can be part of the comparison.
        let (low, size) = unsafe { (*self.own_low.as_ptr(), *self.own_size.as_ptr()) };
        sp.wrapping_sub(low) < size
    }

    /// The thread's own stack, `low..high`, if it is known.
    pub fn own_stack(&self) -> Option<(usize, usize)> {
        let (low, size) = (self.own_low.load(Relaxed), self.own_size.load(Relaxed));
        (size != 0).then_some((low, low + size))
    }

    pub fn set_own_stack(&self, low: usize, high: usize) {
        self.own_low.store(low, Relaxed);
        self.own_size.store(high - low, Relaxed);
        self.floor.set(low.saturating_add(self.min_stack.get()));
        self.span.set(high.saturating_sub(self.floor.get()));
    }

    pub fn forget_own_stack(&self) {
        self.span.set(0);
        self.own_size.store(0, Relaxed);
    }

    /// The default of bytes that an upcall needs.
    pub fn min_stack(&self) -> usize {
        self.min_stack.get()
    }

    /// Whether upcalls from undescribed stacks are to be reported or refused.
    pub fn checks_foreign(&self) -> bool {
        self.checks_foreign.get()
    }

    /// The thread's record, if it is attached.
    #[inline]
    pub fn record(&self) -> Option<&Record> {
        // SAFETY: set by attaching to a record that is freed only after this is null again, both on this thread.
        unsafe { self.record.get().as_ref() }
    }

    /// The pooled stack that `sp` is on.
    #[inline(always)]
    pub fn pooled_at(&self, sp: usize) -> Option<&'static Control> {
        // SAFETY: null, or a stack that this thread has: that is the hint's rule, and its Control is valid.
        match unsafe { self.pooled.get().as_ref() } {
            Some(hint) if hint.contains(sp) => Some(hint),
            _ => None,
        }
    }

    /// The pooled stack that `sp`, where this thread's code runs, is on; none if it is on the thread's own.
    #[inline(always)]
    pub fn stack_at(&self, sp: usize) -> Option<&'static Control> {
        if self.owns(sp) { None } else { self.pooled_at(sp).or_else(|| control_at(sp)) }
    }

    /// The fiber whose code runs at `sp`, if one's does.
    #[inline(always)]
    pub fn fiber_at(&self, sp: usize) -> Option<&'static Running> {
        self.stack_at(sp)?.fiber()
    }

    /// Takes a spare stack, if there is one.
    #[inline(always)]
    pub fn take_spare(&self) -> Option<&'static Control> {
        // SAFETY: the list holds Controls of stacks that belong to this thread.
        let spare = unsafe { self.spares.get().as_ref() }?;
        self.spares.set(spare.next.get());
        Some(spare)
    }

    /// Puts a stack back of the default size that nothing runs on any more.
    #[inline(always)]
    pub fn put_spare(&self, stack: &'static Control) {
        // Mostly the stack was the last one taken, and leads to the rest as it did before: then not writing that again keeps the
        // next upcall from waiting for this one's stores.
        if stack.next.get() == self.spares.get() {
            self.spares.set(stack);
        } else {
            self.put_out_of_order(stack);
        }
    }

    #[cold]
    #[inline(never)]
    fn put_out_of_order(&self, stack: &'static Control) {
        if stack.seems_left.get() {
            left::came_back(self);
        }
        if self.idle().nth(SPARES - 1).is_some() {
            self.give_back(stack);
        } else {
            self.add_spare(stack);
        }
    }

    fn add_spare(&self, stack: &'static Control) {
        stack.next.set(self.spares.get());
        self.spares.set(stack);
    }

    /// Puts any stack back that nothing runs on any more.
    #[inline]
    pub fn put_back(&self, stack: &'static Control) {
        if stack.is_spare_size.get() {
            self.put_spare(stack);
        } else {
            self.give_back(stack);
        }
    }

    /// The idle spares. Of another thread, which cannot detach meanwhile, only their addresses may be looked at, and while the pool is held.
    pub(crate) fn idle(&self) -> impl Iterator<Item = &'static Control> {
        // SAFETY: the list holds Controls of stacks that belong to this thread. Where another looks, one may just have come into use: `next`, which is
        // atomic, is null then or leads to another one. None can be given back and taken by others, which would write it anew.
        let stack = |stack: *const Control| unsafe { stack.as_ref() };
        std::iter::successors(stack(self.spares.get()), move |spare| stack(spare.next.get()))
    }

    /// Takes a spare stack for a fiber of the default size.
    pub fn take_spare_for_fiber(&self) -> Option<&'static Control> {
        if !self.fibers_on_spares.get() {
            return None;
        }
        let spare = self.take_spare()?;
        spare.purpose.set(Purpose::Fiber);
        self.upcall_stacks.store(self.upcall_stacks() - 1, Relaxed);
        Some(spare)
    }

    /// Puts a fiber's stack back.
    pub fn put_back_fibers(&self, stack: &'static Control) {
        let upcall_stacks = self.upcall_stacks();
        if stack.is_spare_size.get() && upcall_stacks < SPARES {
            stack.purpose.set(Purpose::Upcall);
            self.upcall_stacks.store(upcall_stacks + 1, Relaxed);
            self.add_spare(stack);
        } else {
            self.give_back(stack);
        }
    }

    /// How many pooled stacks the thread has for upcalls.
    pub fn upcall_stacks(&self) -> usize {
        self.upcall_stacks.load(Relaxed)
    }

    /// Whether there are so many stacks for upcalls that some may have been left.
    pub fn has_many_stacks(&self) -> bool {
        self.upcall_stacks() >= self.look_at.get()
    }

    /// Notes when to look again, having looked: when those are in use again that were found, and some more if these were few; not later than when
    /// `most` were added.
    pub fn note_looked(&self, most: usize) {
        let stacks = self.upcall_stacks();
        let found_many = self.idle().count() >= stacks / 4;
        self.look_at.set(stacks + if found_many { 0 } else { left::MANY_STACKS.min(most) });
    }

    /// Says what can be run on this thread while one of its frames waits: a function that says whether it ran something.
    #[cfg(feature = "runtime")]
    pub fn set_meanwhile(&self, run_one: Option<fn() -> bool>) {
        self.meanwhile.set(run_one);
    }

    /// Runs something of that, if there is any; says whether it did. Nothing while the thread is panicking: that is a state of
    /// the thread, which others must not see.
    pub fn run_meanwhile(&self) -> bool {
        self.meanwhile.get().is_some_and(|run_one| !std::thread::panicking() && run_one())
    }

    /// Where the thread, which is attached, sleeps.
    pub fn parker(&self) -> &'static Parker {
        self.parker.get().unwrap_or_else(|| {
            let parker = Parker::take();
            self.parker.set(Some(parker));
            parker
        })
    }

    /// Gives the place to sleep back.
    pub fn forget_parker(&self) {
        if let Some(parker) = self.parker.take() {
            parker.give_back();
        }
    }

    /// Notes that the thread has one more stack of the pool.
    pub fn count_stack(&self, purpose: Purpose) {
        self.stacks.set(self.stacks.get() + 1);
        if purpose == Purpose::Upcall {
            self.upcall_stacks.store(self.upcall_stacks() + 1, Relaxed);
        }
    }

    /// Returns a stack to the pool that nothing runs on any more.
    pub fn give_back(&self, stack: &'static Control) {
        if stack.seems_left.get() {
            left::came_back(self);
        }
        self.stacks.set(self.stacks.get() - 1);
        if stack.purpose.get() == Purpose::Upcall {
            self.upcall_stacks.store(self.upcall_stacks() - 1, Relaxed);
        }
        self.pooled.set(ptr::null());
        pool::give_back(stack);
    }

    /// Whether any pooled stack of this thread is in use, or its record needed for something else.
    pub fn is_in_use(&self) -> bool {
        self.is_kept() || self.stacks_in_use() != 0
    }

    /// Whether the record is needed for something else than calls.
    pub fn is_kept(&self) -> bool {
        self.record_keepers.get() != 0
    }

    /// How many pooled stacks of this thread are in use.
    pub fn stacks_in_use(&self) -> usize {
        self.stacks.get() - self.idle().count()
    }

    /// Returns the spares to the pool.
    pub fn give_back_spares(&self) {
        while let Some(spare) = self.take_spare() {
            self.give_back(spare);
        }
    }

    /// Forgets where upcalls came from last. An exiting thread notes nothing, so that its calls take the long way, past the look
    /// whether it can be detached.
    pub fn forget_surroundings(&self) {
        self.to_spare.note(0, 0, 0);
        self.in_place.note(0, 0, 0);
    }

    /// Whether the thread's exit has been.
    pub fn is_exiting(&self) -> bool {
        self.exiting.get()
    }

    /// What a frame keeps to tell, after it let other code run, whether it is still on this thread.
    #[inline(always)]
    pub fn mark(&self) -> Mark {
        self.mark.get()
    }

    /// Stops with a message unless `mark`, which a frame remembers from before it let other code run, is still the calling thread's. The thread that `self` is of
    /// may be gone: it is looked at only if the thread pointer is the same, where this memory goes with that. `what` tells whose frame it is.
    #[inline(always)]
    pub fn check_same_thread(&self, mark: Mark, what: impl FnOnce() -> String) {
        if !mark.is_beside_token() {
            return check_afresh(mark, what);
        }
        if thread_token() != mark.token || self.mark.get().serial != mark.serial {
            record::abort_on_wrong_thread(mark, what);
        }
    }

    /// The same on a thread's own stack, which is gone with its thread: it is enough to look whether the thread is the one that `self` is of.
    #[inline(always)]
    pub fn check_same_token(&self, what: impl FnOnce() -> String) {
        if thread_token() != self.mark.get().token {
            self.wrong_thread(what);
        }
    }

    #[cold]
    #[inline(never)]
    fn wrong_thread(&self, what: impl FnOnce() -> String) -> ! {
        record::abort_on_wrong_thread(self.mark.get(), what)
    }

    /// Whether an upcall runs, or has made the downcall that runs; as far as `upcall` says.
    pub fn is_in_upcall(&self) -> bool {
        self.upcall.sp() != 0
    }

    /// Notes that an upcall runs that C made at `sp`.
    #[inline(always)]
    pub fn begin_upcall(&self, sp: usize, function: Function) {
        self.upcall.set(Upcall { sp, function: Some(function) });
    }

    /// Notes that none runs.
    #[inline(always)]
    pub fn end_upcall(&self) {
        self.upcall.set_sp(0);
    }
}

/// The same where that memory may be elsewhere: the calling thread's `Hot` is looked up anew, in a function of its own, which knows no address of a
/// thread-local from before other code ran.
#[cold]
#[inline(never)]
fn check_afresh(mark: Mark, what: impl FnOnce() -> String) {
    if thread_token() != mark.token || Hot::here().mark.get().serial != mark.serial {
        record::abort_on_wrong_thread(mark, what);
    }
}
