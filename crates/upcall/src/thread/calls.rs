//! The open downcalls of a thread: those that have not returned.
//!
//! Rule: **nothing about a call lives only on a host's stack, and an address alone is no
//! identity.** A downcall's frame has a pointer to a place here, and a number. Everything else is
//! in the place, including the frame's SP. Places never move. They are reused in whatever order
//! calls return, so a thread has at most 32 times as many places as were ever in use at one time.
//!
//! Signal handlers make calls between any two instructions of these functions. They may also switch
//! to other coroutines, suspended in the middle of theirs. Hence rule: **a place belongs to whoever
//! changed its state from free**, by one instruction. The list of free places is a hint: some may
//! be missing.

use std::cell::Cell;
use std::mem::offset_of;
use std::ptr;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicUsize, compiler_fence};

use stackbounds::for_upcall::code_pointer;

use super::open_call::{END, Frame, OpenCall, Payload};
use super::word::Word;
use super::{CurrentUpcall, ThreadState};
use crate::messages::fatal;

/// The state in which a returning downcall found its place.
pub(crate) enum Closed {
    /// No panic is pending. The place is free again.
    WithoutPanic,
    /// A panic is pending. The place still belongs to the caller.
    WithPanic,
    /// The place was given back before, because C seemed to have abandoned the call. It is free, or
    /// another call's.
    Before,
}

/// The free places of a thread, and its counters of downcalls.
pub(crate) struct Calls {
    /// The number of the next call.
    next_serial: Word,
    /// The place used last, or the end of the list. A hint: this place or one of its successors may
    /// be free.
    free: Cell<*const OpenCall>,
    /// The number of calls reclaimed because C seemed to have abandoned them. Atomic because other
    /// threads' snapshots read it.
    reclaimed: AtomicUsize,
    /// Whether a reclaimed call has returned. If so, the host copies the thread's stack.
    copies: Cell<bool>,
    /// The number of pending panics.
    pub(super) pending_panics: Word,
}

impl Calls {
    pub const fn new() -> Self {
        Self {
            free: Cell::new(&raw const END.0),
            // Odd, and unlike any other word on a stack.
            next_serial: Word::new(usize::MAX / 14 * 6 + 1),
            reclaimed: AtomicUsize::new(0),
            copies: Cell::new(false),
            pending_panics: Word::new(0),
        }
    }

    /// Opens a downcall and writes its number to `frame`. If the place that seemed free is not,
    /// `find` takes another.
    #[inline(always)]
    pub fn open(
        &self,
        frame: &Frame,
        rust_sp: usize,
        upcall: CurrentUpcall,
        find: impl FnOnce() -> &'static OpenCall,
    ) -> &'static OpenCall {
        let place = self.take(find);
        // In one step, so that a number in a frame, even in passing, is no other call's.
        let serial = self.number();
        place.rust_sp.store(rust_sp, Relaxed);
        place.upcall.set(upcall);
        place.code.store(code_pointer(), Release);
        frame.set(serial);
        // The state comes last, after everything known of the call: a signal handler may look.
        compiler_fence(SeqCst);
        place.state.set(serial);
        place
    }

    /// Closes a downcall that returned, and says how its place was found. For the last two results,
    /// the caller goes on with `close_with_panic` or `closed_before`.
    #[inline(always)]
    pub fn close(&self, frame: &Frame, place: &'static OpenCall) -> Closed {
        // SAFETY: `open` has set this frame's number.
        if place.state.get() != unsafe { frame.get() } {
            return Closed::Before;
        }
        place.state.set(place.taken());
        // From here on, a signal handler sets no pending panic on this call.
        compiler_fence(SeqCst);
        if place.has_pending_panic() {
            return Closed::WithPanic;
        }
        self.put(place);
        Closed::WithoutPanic
    }

    /// Takes the pending panic of a call that returned, and frees its place.
    pub fn close_with_panic(&self, place: &'static OpenCall) -> Option<Payload> {
        self.take_pending_panic_and_put(place)
    }

    fn take_pending_panic_and_put(&self, place: &OpenCall) -> Option<Payload> {
        let payload = place.take_pending_panic();
        if payload.is_some() {
            self.pending_panics.subtract(1);
        }
        self.put(place);
        payload
    }

    /// Whether any call of the thread has a pending panic.
    #[inline(always)]
    pub fn has_pending_panics(&self) -> bool {
        self.pending_panics.get() != 0
    }

    /// Takes a place. If the one that seemed free is not, `find` takes another.
    #[inline(always)]
    pub fn take(&self, find: impl FnOnce() -> &'static OpenCall) -> &'static OpenCall {
        // SAFETY: `free` is the end of the list, which is static, or a place in a block.
        // `forget_places` resets it before a record gives up blocks; until then, they stay
        // allocated.
        let hint: &'static OpenCall = unsafe { &*self.free.get() };
        if hint.take() { hint } else { find() }
    }

    /// The next number, unique among the thread's calls and pinned frames.
    #[inline(always)]
    pub fn number(&self) -> usize {
        // SAFETY: `next_serial` is at this offset in the `ThreadState` around `self`, and only its
        // thread writes it.
        unsafe {
            Word::add_in::<{ ThreadState::CALLS + offset_of!(Calls, next_serial) }>(
                ThreadState::around(self),
                2,
            )
        }
    }

    /// Frees a place in use by the caller.
    #[inline(always)]
    pub fn put(&self, place: &OpenCall) {
        place.make_free();
        compiler_fence(SeqCst);
        self.free.set(place);
    }

    /// Takes one of the successors of the place used last.
    pub fn take_next(&self) -> Option<&'static OpenCall> {
        const STEPS: usize = 8;
        // SAFETY: as in `take`, `free` is a valid place or the end of the list. `next` leads from
        // one such place to another.
        let step = |place: *const OpenCall| unsafe { &*(*place).next.get() };
        let last = self.free.get();
        let mut next: &'static OpenCall = step(last);
        for _ in 0..STEPS {
            if next.take() {
                self.use_after(last, next);
                return Some(next);
            }
            next = step(next);
        }
        None
    }

    /// Links `place`, taken because `last` was not free, behind `last`. Makes `place` the one used
    /// last, so calls made inside look behind it.
    fn use_after(&self, last: *const OpenCall, place: &OpenCall) {
        if !ptr::eq(last, &END.0) {
            // SAFETY: `last` was read from `free`, so it is a valid place, as in `take`.
            unsafe { &*last }.next.set(place);
        }
        self.free.set(place);
    }

    /// Makes a block of free places. It must live as long as the thread's record, and as long as
    /// any of its calls is open.
    pub fn block(count: usize) -> Box<[OpenCall]> {
        (0..count).map(|_| OpenCall::free()).collect()
    }

    /// Takes one of `places` that is free, and links the other free ones behind it. Signals must be
    /// blocked.
    pub fn take_of<'a>(&self, places: impl Iterator<Item = &'a OpenCall>) -> Option<&'a OpenCall> {
        let mut free = places.filter(|place| place.is_free());
        let place = free.next().filter(|place| place.take())?;
        self.use_after(self.free.get(), place);
        let last = free.fold(place, |before, next| {
            before.next.set(next);
            next
        });
        last.next.set(&raw const END.0);
        Some(place)
    }

    /// Takes the place of a call abandoned by `longjmp`, and its pending panic. If the call returns
    /// nevertheless, it notices by its number. Signals must be blocked.
    pub fn reclaim(&self, place: &OpenCall) -> Option<Payload> {
        let payload = self.take_pending_panic_and_put(place);
        self.reclaimed.store(self.reclaimed() + 1, Relaxed);
        payload
    }

    /// The number of reclaimed calls.
    pub fn reclaimed(&self) -> usize {
        self.reclaimed.load(Relaxed)
    }

    /// Whether the host copies the thread's stack, as far as observed.
    pub fn copies(&self) -> bool {
        self.copies.get()
    }

    /// Notes that a call or frame came back after it seemed abandoned.
    pub fn note_copies(&self) {
        self.copies.set(true);
    }

    /// Forgets the free places, because their blocks are about to be freed.
    pub fn forget_places(&self) {
        self.free.set(&raw const END.0);
    }

    /// Handles the return of a call whose place was given back before.
    pub fn closed_before(&self) {
        if self.reclaimed() == 0 {
            fatal(
                "a downcall returned twice: the host copied a stack that holds a downcall and resumed both copies",
            );
        }
        self.note_copies();
    }
}
