//! A thread's pooled stacks: the idle ones, kept by the thread for itself, and the number of all.

use std::cell::Cell;
use std::mem::offset_of;
use std::ptr;

use stackbounds::stack_pointer;

use super::word::Word;
use super::{ThreadState, abandoned};
use crate::stack::pool::Purpose;
use crate::stack::{StackHeader, ThreadId, pool, service};

/// The number of idle stacks that a thread keeps for itself.
const SPARES: usize = 8;

/// A marker in place of the first spare: stacks put back need a check, and so does the thread's
/// exit.
const CAREFUL: usize = 1;

/// The pooled stacks of a thread.
pub(crate) struct Stacks {
    /// Idle stacks of the default size: pointers to headers, or 0. Rule: **a spare belongs to
    /// whoever took it out**, by one instruction, and is not dereferenced before. The first may be
    /// [`CAREFUL`].
    first: Word,
    more: [Word; SPARES - 1],
    /// One more idle stack, reserved for upcalls from signal handlers on alternate stacks.
    reserve: Word,
    /// The number of the thread's pooled stacks, idle or not; and the number of those for upcalls.
    all: Word,
    of_upcalls: Word,
    /// The value of `of_upcalls` from which a scan for abandoned stacks is due.
    next_scan_at: Cell<usize>,
}

impl Stacks {
    pub const fn none() -> Self {
        Self {
            first: Word::new(0),
            more: [const { Word::new(0) }; SPARES - 1],
            reserve: Word::new(0),
            all: Word::new(0),
            of_upcalls: Word::new(0),
            next_scan_at: Cell::new(abandoned::MANY_STACKS),
        }
    }
}

impl ThreadState {
    const FIRST_SPARE: usize = offset_of!(ThreadState, stacks.first);

    /// Changes the first place for spares from `from` to `to`. Returns whether it was `from`.
    #[inline(always)]
    pub(super) fn swap_spare(&self, from: usize, to: usize) -> bool {
        // SAFETY: `stacks.first` is at this offset in `self`, and only its thread writes it.
        unsafe { Word::swap_if_in::<{ ThreadState::FIRST_SPARE }>(ptr::from_ref(self).cast(), from, to) }
    }

    /// Takes a spare stack, if there is one.
    #[inline(always)]
    pub fn take_spare(&self) -> Option<&'static StackHeader> {
        self.take_first_spare().or_else(|| self.take_other_spare())
    }

    /// Takes the spare in the first place, if there is one.
    #[inline(always)]
    pub fn take_first_spare(&self) -> Option<&'static StackHeader> {
        let spare = self.stacks.first.get();
        let is_taken = spare > CAREFUL && self.swap_spare(spare, 0);
        // SAFETY: only a spare of this thread is stored in this place, so its StackHeader is valid.
        // Since `swap_spare` took it out, it is the caller's alone.
        is_taken.then(|| unsafe { &*(spare as *const StackHeader) })
    }

    /// Takes a spare from any place. Looks in the first place last.
    #[inline(never)]
    pub fn take_other_spare(&self) -> Option<&'static StackHeader> {
        let taken = self.stacks.more.iter().chain([&self.stacks.first]).find_map(|place| {
            let spare = place.get();
            (spare > CAREFUL && place.swap_if(spare, 0)).then_some(spare)
        });
        // SAFETY: as in `take_first_spare`, `swap_if` took a spare of this thread out, so it is
        // valid and the caller's alone.
        taken.map(|spare| unsafe { &*(spare as *const StackHeader) })
    }

    /// Puts an unused stack of the default size into the first place. Returns whether the place was
    /// free. If so, nothing else remains to be done.
    #[inline(always)]
    pub fn put_first_spare(&self, stack: &'static StackHeader) -> bool {
        self.swap_spare(0, ptr::from_ref(stack) as usize)
    }

    /// Puts back an unused stack: as a spare, if it has their size and there is a place, or else
    /// into the pool.
    #[inline]
    pub fn put_back(&self, stack: &'static StackHeader) {
        let is_ready = stack.is_spare_size.get() && self.is_for_upcalls(stack);
        if !(is_ready && self.put_first_spare(stack)) {
            self.put_back_carefully(stack);
        }
    }

    /// Puts back an unused stack whose place is not the first one. If the stack seemed abandoned,
    /// notes that it came back.
    #[inline(never)]
    pub fn put_back_carefully(&self, stack: &'static StackHeader) {
        if stack.seems_abandoned.get() {
            abandoned::came_back(self);
        }
        let may_be_spare = stack.is_spare_size.get() && stack.purpose.get() == Purpose::Upcall;
        if !(may_be_spare && self.add_spare(stack)) {
            self.give_back(stack);
        }
    }

    /// Whether the unused stack is one for upcalls. A fiber's becomes one, if there are few.
    fn is_for_upcalls(&self, stack: &StackHeader) -> bool {
        if stack.purpose.get() == Purpose::Upcall {
            return true;
        }
        let few = self.upcall_stacks() < SPARES;
        if few {
            stack.purpose.set(Purpose::Upcall);
            self.stacks.of_upcalls.add(1);
        }
        few
    }

    /// Makes a stack a spare, if there is a place for it. Returns whether there was.
    pub(super) fn add_spare(&self, stack: &'static StackHeader) -> bool {
        let stack = ptr::from_ref(stack) as usize;
        self.stacks.more.iter().chain([&self.stacks.first]).any(|place| place.swap_if(0, stack))
    }

    /// Takes the stack reserved for signal handlers, if it is there.
    pub fn take_reserve(&self) -> Option<&'static StackHeader> {
        let reserve = self.stacks.reserve.get();
        let is_taken = reserve != 0 && self.stacks.reserve.swap_if(reserve, 0);
        // SAFETY: as in `take_first_spare`, `swap_if` took a stack of this thread out, so it is
        // valid and the caller's alone.
        is_taken.then(|| unsafe { &*(reserve as *const StackHeader) })
    }

    pub fn has_reserve(&self) -> bool {
        self.stacks.reserve.get() != 0
    }

    /// Reserves a stack of the default size for signal handlers, if none is reserved. Otherwise
    /// puts it back.
    pub fn put_reserve(&self, stack: &'static StackHeader) {
        if stack.seems_abandoned.get() || !self.stacks.reserve.swap_if(0, ptr::from_ref(stack) as usize) {
            self.put_back(stack);
        }
    }

    /// From now on, checks each stack that is put back.
    pub(super) fn be_careful(&self) {
        loop {
            let spare = self.stacks.first.get();
            if spare == CAREFUL {
                return;
            }
            if self.stacks.first.swap_if(spare, CAREFUL) {
                // SAFETY: null or a spare of this thread. As in `take_first_spare`, `swap_if` took
                // it out, so it is valid and the caller's alone.
                if let Some(stack) = unsafe { (spare as *const StackHeader).as_ref() } {
                    self.put_back_carefully(stack);
                }
                return;
            }
        }
    }

    /// The idle stacks. Another thread may use only their addresses, and only while this thread
    /// cannot detach.
    pub(crate) fn idle(&self) -> impl Iterator<Item = &'static StackHeader> {
        let places = self.stacks.more.iter().chain([&self.stacks.first, &self.stacks.reserve]);
        let spares = places.map(Word::get).filter(|&spare| spare > CAREFUL);
        // SAFETY: stacks stay mapped, so the reference points to mapped memory. Only the thread
        // itself reads the StackHeader: its own idle stacks are not given back, so it is valid.
        // Other callers use the address alone.
        spares.map(|spare| unsafe { &*(spare as *const StackHeader) })
    }

    /// Takes a spare stack for a fiber, if fibers have the default size of spares.
    pub fn take_spare_for_fiber(&self) -> Option<&'static StackHeader> {
        if !self.limits.fibers_on_spares.get() {
            return None;
        }
        let spare = self.take_spare()?;
        spare.purpose.set(Purpose::Fiber);
        self.stacks.of_upcalls.subtract(1);
        Some(spare)
    }

    /// The number of the thread's pooled stacks for upcalls, idle ones included.
    pub fn upcall_stacks(&self) -> usize {
        self.stacks.of_upcalls.get()
    }

    /// Whether there are so many stacks for upcalls that a scan for abandoned ones is due.
    pub fn has_many_stacks(&self) -> bool {
        self.upcall_stacks() >= self.stacks.next_scan_at.get()
    }

    /// Sets when the next scan is due, after one with `found` reusable stacks.
    ///
    /// It is due when these are in use again. If they were fewer than a quarter of the thread's
    /// stacks for upcalls, it is due only after [`abandoned::MANY_STACKS`] more.
    pub fn note_scan(&self, found: usize) {
        let stacks = self.upcall_stacks();
        let found_many = found >= stacks / 4;
        self.stacks.next_scan_at.set(stacks + if found_many { 0 } else { abandoned::MANY_STACKS });
    }

    /// Whether the stacks for upcalls are so many that upcalls from undescribed stacks must be
    /// counted. `SPARES` is the margin for those that take a spare uncounted.
    pub fn is_near_limit(&self) -> bool {
        self.upcall_stacks().saturating_add(SPARES) >= self.limits.open_upcalls.get()
    }

    /// The number of pooled stacks in use by upcalls.
    pub fn upcall_stacks_in_use(&self) -> usize {
        self.upcall_stacks() - self.idle().count()
    }

    /// Counts one more stack taken from the pool.
    pub fn count_stack(&self, purpose: Purpose) {
        self.stacks.all.add(1);
        if purpose == Purpose::Upcall {
            self.stacks.of_upcalls.add(1);
        }
    }

    /// Returns an unused stack to the pool.
    pub fn give_back(&self, stack: &'static StackHeader) {
        self.stacks.all.subtract(1);
        if stack.purpose.get() == Purpose::Upcall {
            self.stacks.of_upcalls.subtract(1);
        }
        self.pooled.set(ptr::null());
        if stack.purpose.get() == Purpose::Fiber || service::contains(stack_pointer()) {
            pool::give_back(stack);
        } else {
            service::run(|| pool::give_back(stack));
        }
    }

    /// Gives up a stack: it stays in use for ever and no longer belongs to this thread.
    pub fn forget_stack(&self, stack: &'static StackHeader) {
        stack.owner.set(ThreadId::default());
        self.stacks.all.subtract(1);
        self.pooled.set(ptr::null());
    }

    /// The number of this thread's pooled stacks in use.
    pub fn stacks_in_use(&self) -> usize {
        self.stacks.all.get() - self.idle().count()
    }

    /// Returns the spares and the reserve to the pool.
    pub fn give_back_spares(&self) {
        while let Some(spare) = self.take_spare().or_else(|| self.take_reserve()) {
            self.give_back(spare);
        }
    }
}
