//! The downcalls of a thread that have not returned.
//!
//! Rule: **nothing about a call lives only on a host's stack, and SP alone is no identity.** A downcall's frame holds a pointer to a
//! place here and the place's generation; the rest is in the place. Places are never moved, and are used again in whatever
//! order calls return, so there are at most twice as many (but 16) as were in use at one time.

use crate::quiet::report;
use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// What a panic carries.
pub(crate) type Payload = Box<dyn Any + Send>;

/// Set in the SP of a call whose C code runs on the stack that Rust is on, whatever stack that is. No stack pointer is odd.
pub(crate) const C_HERE: usize = 1;

/// A place for one downcall at a time. The numbers are atomic for the sake of snapshots of other threads.
#[repr(align(64))]
pub(crate) struct OpenCall {
    /// Counted up when the place is taken and when it is given back: odd while a call is open.
    generation: AtomicUsize,
    /// SP of the Rust code that makes the call, and [`C_HERE`].
    rust_sp: AtomicUsize,
    /// SP at the entry of the upcall that the Rust code belongs to; 0 if it belongs to none.
    pub upcall_sp: AtomicUsize,
    /// What an upcall below this call left to be raised when C returns. Only the owning thread looks.
    payload: UnsafeCell<Option<Payload>>,
    /// The next free place.
    next: Cell<*const OpenCall>,
}

impl OpenCall {
    fn free() -> Self {
        Self {
            generation: AtomicUsize::new(0),
            rust_sp: AtomicUsize::new(0),
            upcall_sp: AtomicUsize::new(0),
            payload: UnsafeCell::new(None),
            next: Cell::new(ptr::null()),
        }
    }

    pub fn is_open(&self) -> bool {
        self.generation.load(Relaxed) % 2 == 1
    }

    /// SP of the Rust code that makes the call.
    pub fn rust_sp(&self) -> usize {
        self.rust_sp.load(Relaxed) & !C_HERE
    }

    /// Where C began: on the system stack, or where Rust is. `system_sp` tells which the system stack of a pooled stack is.
    pub fn c_sp(&self, system_sp: impl FnOnce(usize) -> Option<usize>) -> usize {
        match self.rust_sp.load(Relaxed) {
            here if here & C_HERE != 0 => here & !C_HERE,
            rust_sp => system_sp(rust_sp).unwrap_or(rust_sp),
        }
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
        Ok(())
    }
}

/// What a downcall's frame keeps: the handle to its place.
#[derive(Clone, Copy)]
pub(crate) struct CallId {
    place: &'static OpenCall,
    generation: usize,
    /// What was free behind the place.
    next: *const OpenCall,
    /// The upcall that the call belongs to.
    pub upcall_sp: usize,
}

/// The free places of a thread.
pub(crate) struct Calls {
    free: Cell<*const OpenCall>,
}

impl Calls {
    pub const fn new() -> Self {
        Self { free: Cell::new(ptr::null()) }
    }

    /// Notes a downcall. `more` is called when no place is free, and adds some.
    #[inline(always)]
    pub fn open(&self, rust_sp: usize, upcall_sp: usize, more: impl FnOnce()) -> CallId {
        if self.free.get().is_null() {
            more();
        }
        // SAFETY: free places are in blocks that live until their thread's record is freed, and longer if a call is open.
        let place: &'static OpenCall = unsafe { &*self.free.get() };
        let next = place.next.get();
        self.free.set(next);
        let generation = place.generation.load(Relaxed) + 1;
        place.generation.store(generation, Relaxed);
        place.rust_sp.store(rust_sp, Relaxed);
        place.upcall_sp.store(upcall_sp, Relaxed);
        CallId { place, generation, next, upcall_sp }
    }

    /// Notes that a downcall returned, and hands over what is to be raised.
    #[inline(always)]
    pub fn close(&self, CallId { place, generation, next, .. }: CallId) -> Option<Payload> {
        if place.generation.load(Relaxed) != generation {
            closed_twice();
        }
        place.generation.store(generation + 1, Relaxed);
        // Calls that end in the reverse order of their beginning leave the chain as it was: not writing it again keeps the
        // next call from waiting for this one's stores.
        if self.free.get() != next {
            place.next.set(self.free.get());
        }
        self.free.set(place);
        // SAFETY: only this thread touches payloads, and no reference to this one is alive.
        let payload = unsafe { &mut *place.payload.get() };
        if payload.is_some() { payload.take() } else { None }
    }

    /// Adds a block of free places, to be kept for as long as the thread's record, or as one of them is open.
    pub fn add(&self, count: usize) -> Box<[OpenCall]> {
        let places: Box<[OpenCall]> = (0..count).map(|_| OpenCall::free()).collect();
        for place in &places {
            place.next.set(self.free.get());
            self.free.set(place);
        }
        places
    }

    /// Forgets the free places, whose blocks are about to go.
    pub fn forget_places(&self) {
        self.free.set(ptr::null());
    }
}

#[cold]
#[inline(never)]
fn closed_twice() -> ! {
    report(format_args!(
        "a downcall returned twice: the host copied a stack that holds a downcall and resumed both copies; \
         the process is stopped"
    ));
    std::process::abort()
}
