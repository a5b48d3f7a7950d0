//! The downcalls of a thread that have not returned.
//!
//! Rule: **nothing about a call lives only on a host's stack, and an address alone is no identity.** A downcall's frame holds a pointer to a
//! place here and has a number; the rest is in the place, where the frame is included. Places are never moved, and are used again in whatever
//! order calls return, so there are at most twice as many (but 16) as were in use at one time.

use crate::quiet::fatal;
use crate::stack::{Mark, control_of_thread_at, words};
use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicUsize, compiler_fence};

use stackbounds::code_pointer;

use super::{Upcall, UpcallCell};

/// What a panic carries.
pub(crate) type Payload = Box<dyn Any + Send>;

/// Set in the SP of a call whose C code runs on the stack that Rust is on, whatever stack that is. No stack pointer is odd.
pub(crate) const C_HERE: usize = 1;

/// A place for one downcall at a time. The numbers are atomic for the sake of snapshots of other threads.
#[repr(align(64))]
pub(crate) struct OpenCall {
    /// The number of the call that is open, in the order in which the thread makes them; 0 while none is.
    serial: AtomicUsize,
    /// SP of the Rust code that makes the call, and [`C_HERE`].
    rust_sp: AtomicUsize,
    /// The upcall that the Rust code belongs to.
    pub upcall: UpcallCell,
    /// An address in the function that makes the call; 0 if that is not known.
    code: Cell<usize>,
    /// What an upcall below this call left to be raised when C returns. Only the owning thread looks.
    payload: UnsafeCell<Option<Payload>>,
    /// The next free place; while a call is open, what that was when it began, or the place itself if there is a panic to be raised.
    next: Cell<*const OpenCall>,
}

/// What a downcall keeps in its frame: its number, which no other call of the thread ever has. Only while this is there is the frame there: hosts copy stacks
/// away, and others' frames to the same addresses.
pub(crate) struct Frame(UnsafeCell<MaybeUninit<usize>>);

impl Frame {
    #[inline(always)]
    pub const fn new() -> Self {
        Self(UnsafeCell::new(MaybeUninit::uninit()))
    }

    #[inline(always)]
    fn set(&self, serial: usize) {
        // SAFETY: one thread's, and no reference to it is alive. Volatile, so that it is in memory.
        unsafe { self.0.get().write_volatile(MaybeUninit::new(serial)) };
    }

    /// # Safety
    /// It was set.
    #[inline(always)]
    unsafe fn get(&self) -> usize {
        // SAFETY: the caller's promise; and as in `set`.
        unsafe { self.0.get().read_volatile().assume_init() }
    }
}

impl OpenCall {
    fn free() -> Self {
        Self {
            serial: AtomicUsize::new(0),
            rust_sp: AtomicUsize::new(0),
            upcall: UpcallCell::new(),
            code: Cell::new(0),
            payload: UnsafeCell::new(None),
            next: Cell::new(ptr::null()),
        }
    }

    /// The number of the call that is open, in the order in which the thread makes them; 0 while none is.
    pub fn serial(&self) -> usize {
        self.serial.load(Relaxed)
    }

    pub fn is_open(&self) -> bool {
        self.serial() != 0
    }

    /// SP of the Rust code that makes the call.
    pub fn rust_sp(&self) -> usize {
        self.rust_sp.load(Relaxed) & !C_HERE
    }

    /// An address in the function that makes the call, if the machine tells it.
    pub fn code(&self) -> Option<usize> {
        Some(self.code.get()).filter(|&code| code != 0)
    }

    /// Whether its [`Frame`] is in `from..to`, rather than what the host has put there since.
    ///
    /// # Safety
    /// All of that is on a stack of the calling thread, which can be read there.
    pub unsafe fn frame_is_in(&self, from: usize, to: usize) -> bool {
        let serial = self.serial();
        // SAFETY: readable, says the caller; aligned, as SP is.
        unsafe { words(from, to) }.any(|word| word == serial)
    }

    /// Where C began: on the system stack, or where Rust is. `system_sp` tells which the system stack of a pooled stack is.
    pub fn c_sp(&self, system_sp: impl FnOnce(usize) -> Option<usize>) -> usize {
        match self.rust_sp.load(Relaxed) {
            here if here & C_HERE != 0 => here & !C_HERE,
            rust_sp => system_sp(rust_sp).unwrap_or(rust_sp),
        }
    }

    /// The same of a call of the calling thread, which has `mark`; C may have left the call.
    pub fn own_c_sp(&self, mark: Mark) -> usize {
        self.c_sp(|rust_sp| Some(control_of_thread_at(rust_sp, mark)?.system_sp.load(Relaxed)))
    }

    /// Leaves a payload to be raised when the call returns, unless one waits there already, which came first; then
    /// the new one comes back.
    pub fn leave(&self, payload: Payload) -> Result<(), Payload> {
        // SAFETY: only the owning thread touches payloads, and no reference to this one is alive.
        let slot = unsafe { &mut *self.payload.get() };
        if slot.is_some() {
            return Err(payload);
        }
        *slot = Some(payload);
        // The return looks there.
        self.next.set(self);
        Ok(())
    }

    fn take_payload(&self) -> Option<Payload> {
        // SAFETY: as in `leave`.
        unsafe { (*self.payload.get()).take() }
    }
}

/// How a downcall's return found its place.
pub(crate) enum Closed {
    /// As it left it: calls that began later have ended. There is nothing to be raised.
    InOrder,
    /// Not so; or there is something to be raised.
    OutOfOrder,
    /// Given back before, since C seemed to have left the call. It is free, or another call's.
    Before,
}

/// The free places of a thread, and what its downcalls are counted by.
pub(crate) struct Calls {
    free: Cell<*const OpenCall>,
    /// Between the number of the last call and that of the next. Atomic so that it is counted up by one instruction.
    between: AtomicUsize,
    /// How many were taken from calls that seemed to have been left by `longjmp`. Atomic for the sake of snapshots of other threads.
    reclaimed: AtomicUsize,
    /// One of those returned: the host copies the thread's stack.
    copies: Cell<bool>,
}

impl Calls {
    pub const fn new() -> Self {
        Self {
            free: Cell::new(ptr::null()),
            // Unlike anything else on a stack.
            between: AtomicUsize::new(usize::MAX / 14 * 6),
            reclaimed: AtomicUsize::new(0),
            copies: Cell::new(false),
        }
    }

    /// Notes a downcall, which keeps `frame`. `more` is called when no place is free, and adds some.
    #[inline(always)]
    pub fn open(
        &self,
        frame: &Frame,
        rust_sp: usize,
        upcall: Upcall,
        more: impl FnOnce(),
    ) -> &'static OpenCall {
        if self.free.get().is_null() {
            more();
        }
        // SAFETY: there is a free place, or `more` added some. They are in blocks that live until their thread's record is freed, which it is not while a call is
        // open.
        let place: &'static OpenCall = unsafe { &*self.free.get() };
        self.free.set(place.next.get());
        // Between two numbers, so that what a frame may hold of this in passing is no call's number.
        let serial = self.between.load(Relaxed) + 1;
        self.between.store(self.between.load(Relaxed) + 2, Relaxed);
        place.rust_sp.store(rust_sp, Relaxed);
        place.upcall.set(upcall);
        place.code.set(code_pointer());
        frame.set(serial);
        // The call is there when all that is known of it is: a signal handler may look.
        compiler_fence(SeqCst);
        place.serial.store(serial, Relaxed);
        place
    }

    /// Notes that a downcall returned, and looks how: the rest is to be done then, by `close_out_of_order` or `closed_before`.
    #[inline(always)]
    pub fn close(&self, frame: &Frame, place: &'static OpenCall) -> Closed {
        // SAFETY: only this thread writes it, so that reading need not be atomic, and can be part of the comparison. The frame's was set by `open`.
        if unsafe { *place.serial.as_ptr() != frame.get() } {
            return Closed::Before;
        }
        place.serial.store(0, Relaxed);
        // A signal handler that comes after this leaves nothing here.
        compiler_fence(SeqCst);
        // Calls that end in the reverse order of their beginning leave the list as it was: not writing `next` again keeps the next call from waiting for
        // this one's stores.
        if self.free.get() != place.next.get() {
            return Closed::OutOfOrder;
        }
        self.free.set(place);
        Closed::InOrder
    }

    /// Hands over what is to be raised by a call that returned, if there is something.
    pub fn close_out_of_order(&self, place: &'static OpenCall) -> Option<Payload> {
        let payload = place.take_payload();
        self.put(place);
        payload
    }

    /// Whether a place is free.
    pub fn has_places(&self) -> bool {
        !self.free.get().is_null()
    }

    /// Adds a block of free places, to be kept for as long as the thread's record, or as one of them is open.
    pub fn add(&self, count: usize) -> Box<[OpenCall]> {
        let places: Box<[OpenCall]> = (0..count).map(|_| OpenCall::free()).collect();
        places.iter().for_each(|place| self.put(place));
        places
    }

    fn put(&self, place: &OpenCall) {
        place.next.set(self.free.get());
        self.free.set(place);
    }

    /// Takes the place of a call that was left by `longjmp`, and what was to be raised there. Should the call return all the same, it finds
    /// out by its number.
    pub fn reclaim(&self, place: &OpenCall) -> Option<Payload> {
        place.serial.store(0, Relaxed);
        self.put(place);
        self.reclaimed.store(self.reclaimed() + 1, Relaxed);
        place.take_payload()
    }

    /// How many calls were reclaimed.
    pub fn reclaimed(&self) -> usize {
        self.reclaimed.load(Relaxed)
    }

    /// Whether the host copies the thread's stack, as far as has been seen.
    pub fn copies(&self) -> bool {
        self.copies.get()
    }

    /// Something that had been taken for left has returned.
    pub fn note_copies(&self) {
        self.copies.set(true);
    }

    /// Forgets the free places, whose blocks are about to go.
    pub fn forget_places(&self) {
        self.free.set(ptr::null());
    }

    /// A call returns whose place has been given back.
    pub fn closed_before(&self) {
        if self.reclaimed() == 0 {
            fatal(
                "a downcall returned twice: the host copied a stack that holds a downcall and resumed both copies",
            );
        }
        self.note_copies();
    }
}
