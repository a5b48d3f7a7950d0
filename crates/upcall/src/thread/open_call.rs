//! One open downcall: its place, its frame and its pending panic.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;
use std::panic::Location;
use std::ptr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicUsize, fence};

use super::word::Word;
use super::{CurrentUpcall, CurrentUpcallCell, ThreadState};
use crate::function::Function;
use crate::stack::{ThreadId, header_of_thread_at, service, words};

/// The payload of a panic.
pub(crate) type Payload = Box<dyn Any + Send>;

/// The flag in a call's SP if its C code runs on the same stack as the Rust code, whatever stack
/// this is. No stack pointer is odd.
pub(crate) const C_HERE: usize = 1;

/// The flag in a call's SP if `code` has the host's address for the call's coroutine.
const NAMED: usize = 2;

// The states of a place:
//
// | state                   | the place                                                |
// |-------------------------|----------------------------------------------------------|
// | `FREE`                  | is anybody's                                             |
// | odd                     | has an open call, with this number                       |
// | its address             | is taken, without an open call                           |
// | its address + `PINS`    | is taken for a frame that keeps the thread's record      |
// | `NEVER_FREE`            | is the end of the list                                   |
//
// An address is a multiple of 64, so no two rows meet.

const FREE: usize = 0;
/// Added to the place's address.
const PINS: usize = 4;
const NEVER_FREE: usize = 2;

/// A place for one downcall at a time. The numbers are atomic because other threads' snapshots read
/// them.
#[repr(C, align(64))]
pub(crate) struct OpenCall {
    /// One of the states in the table above.
    pub(super) state: Word,
    /// SP of the Rust code that makes the call, with [`C_HERE`] and [`NAMED`].
    pub(super) rust_sp: AtomicUsize,
    /// The upcall of this Rust code.
    pub upcall: CurrentUpcallCell,
    /// An address in the function that makes the call; 0 if not known. With [`NAMED`], the host's
    /// address for the coroutine of the call.
    pub(super) code: AtomicUsize,
    /// The pending panic of an upcall enclosed by this call, raised when C returns. Only the owning
    /// thread reads it.
    payload: UnsafeCell<Option<Payload>>,
    /// The place to try if this one is not free.
    pub(super) next: Cell<*const OpenCall>,
}

/// The end of the list of places. Several threads may read at one time that it is not free.
pub(super) static END: End = End(OpenCall::with_state(NEVER_FREE));

pub(super) struct End(pub OpenCall);

// SAFETY: its state is never `FREE`, so nobody ever takes it. The other fields are accessible only
// to whoever took the place, except `next`, which never changes.
unsafe impl Sync for End {}

/// The part of a downcall in its own frame: its number, unique among all calls of the thread.
///
/// While the number is in memory here, the frame is there. If it is not, the host has copied the
/// stack away, and perhaps other frames to the same addresses.
pub(crate) struct Frame(UnsafeCell<MaybeUninit<usize>>);

impl Frame {
    #[inline(always)]
    pub const fn new() -> Self {
        Self(UnsafeCell::new(MaybeUninit::uninit()))
    }

    #[inline(always)]
    pub(super) fn set(&self, serial: usize) {
        // SAFETY: a frame belongs to one thread, and no reference to its content exists. Volatile,
        // so that the number is in memory.
        unsafe { self.0.get().write_volatile(MaybeUninit::new(serial)) };
    }

    /// Reads the number.
    ///
    /// # Safety
    /// `set` was called before.
    #[inline(always)]
    pub(super) unsafe fn get(&self) -> usize {
        // SAFETY: the caller guarantees that `set` has initialised the number. A frame belongs to
        // one thread, and no reference to its content exists.
        unsafe { self.0.get().read_volatile().assume_init() }
    }
}

impl OpenCall {
    /// A place that is free.
    pub(super) const fn free() -> Self {
        Self::with_state(FREE)
    }

    pub(super) const fn with_state(state: usize) -> Self {
        Self {
            state: Word::new(state),
            rust_sp: AtomicUsize::new(0),
            upcall: CurrentUpcallCell::new(),
            code: AtomicUsize::new(0),
            payload: UnsafeCell::new(None),
            next: Cell::new(&raw const END.0),
        }
    }

    /// The state of this place if it is in use without an open call.
    #[inline(always)]
    pub(super) fn taken(&self) -> usize {
        ptr::from_ref(self) as usize
    }

    /// Takes the place if it is free. Returns whether it was.
    #[inline(always)]
    pub(super) fn take(&self) -> bool {
        self.state.swap_if(FREE, self.taken())
    }

    /// The number of the open call; 0 if none is open. Numbers grow in the order of the thread's
    /// calls.
    pub fn serial(&self) -> usize {
        match self.state.get() {
            serial if serial % 2 == 1 => serial,
            _ => 0,
        }
    }

    pub fn is_open(&self) -> bool {
        self.serial() != 0
    }

    /// Frees the place.
    #[inline(always)]
    pub fn make_free(&self) {
        self.state.set(FREE);
    }

    pub fn is_free(&self) -> bool {
        self.state.get() == FREE
    }

    /// Uses the place, which the caller has taken, for a frame that needs the thread's record.
    /// `wait` is the frame's wait, if it waits.
    pub fn pin(&self, sp: usize, number: usize, wait: Option<(&'static Location<'static>, Function)>) {
        self.rust_sp.store(sp, Relaxed);
        self.upcall.set(CurrentUpcall { sp: number, function: wait.map(|(_, future)| future) });
        self.code.store(wait.map_or(0, |(at, _)| ptr::from_ref(at) as usize), Release);
        fence(Release);
        self.state.set(self.taken() + PINS);
    }

    /// The number of the frame pinning the record by this place, if the place is used for one.
    pub fn pinned_by(&self) -> Option<usize> {
        (self.state.get() == self.taken() + PINS).then(|| self.upcall.sp())
    }

    /// Whether this frame waits. Asked about pinned places by the owning thread.
    pub fn is_of_wait(&self) -> bool {
        self.code.load(Relaxed) != 0
    }

    /// The number of this frame and its wait, if the place is used for a frame that waits.
    ///
    /// Any thread may ask. The owner may use the place for a downcall meanwhile, whose `code` is no
    /// location. So the number is read again: if it is the same, so was the use in between.
    pub fn pinned_wait(&self) -> Option<(usize, &'static Location<'static>, Function)> {
        let number = self.pinned_by()?;
        fence(Acquire);
        let (at, future) = (self.code.load(Acquire) as *const Location<'static>, self.upcall.get().function);
        if self.pinned_by() != Some(number) {
            return None;
        }
        // SAFETY: `pin` stored null or a `&'static Location` before it set the state, and released
        // both. A downcall releases its `code` after the state has changed, so whoever reads that
        // finds another state or number.
        Some((number, unsafe { at.as_ref() }?, future?))
    }

    /// SP of the Rust code that makes the call.
    pub fn rust_sp(&self) -> usize {
        self.rust_sp.load(Relaxed) & !(C_HERE | NAMED)
    }

    /// An address in the function that makes the call, if the machine provides it.
    pub fn code(&self) -> Option<usize> {
        Some(self.code.load(Relaxed)).filter(|&code| code != 0 && self.coroutine().is_none())
    }

    /// Notes the host's address for the coroutine of this call, from its own thread.
    #[cold]
    #[inline(never)]
    pub fn set_coroutine(&self, coroutine: usize) {
        // Released, like every `code` of a downcall: `pinned_wait` relies on it.
        self.code.store(coroutine, Release);
        self.rust_sp.store(self.rust_sp.load(Relaxed) | NAMED, Relaxed);
    }

    /// The address noted by `set_coroutine`.
    pub fn coroutine(&self) -> Option<usize> {
        (self.rust_sp.load(Relaxed) & NAMED != 0).then(|| self.code.load(Relaxed))
    }

    /// Whether the call's [`Frame`] is in `from..to`, rather than other content put there by the
    /// host.
    ///
    /// # Safety
    /// `from..to` must be readable, on a stack of the calling thread.
    pub unsafe fn frame_is_in(&self, from: usize, to: usize) -> bool {
        let serial = self.serial();
        // SAFETY: the caller guarantees that `from..to` is readable. Both are aligned because SP
        // is.
        unsafe { words(from, to) }.any(|word| word == serial)
    }

    /// SP at which C began: on the system stack, or on the same stack as the Rust code. `system_sp`
    /// returns a pooled stack's system SP.
    pub fn c_sp(&self, system_sp: impl FnOnce(usize) -> Option<usize>) -> usize {
        let rust_sp = self.rust_sp();
        match self.rust_sp.load(Relaxed) & C_HERE {
            0 => system_sp(rust_sp).unwrap_or(rust_sp),
            _ => rust_sp,
        }
    }

    /// SP at which C began, for a call of the calling thread. `id` is this thread's. C may have
    /// abandoned the call.
    pub fn own_c_sp(&self, id: ThreadId) -> usize {
        self.c_sp(|rust_sp| Some(header_of_thread_at(rust_sp, id)?.system_sp.load(Relaxed)))
    }

    /// Whether a panic is pending here. For the owning thread only.
    #[inline(always)]
    pub fn has_pending_panic(&self) -> bool {
        // SAFETY: only the owning thread accesses `payload`, and no reference to it is alive.
        unsafe { (*self.payload.get()).is_some() }
    }

    pub(super) fn take_pending_panic(&self) -> Option<Payload> {
        // SAFETY: only the owning thread accesses `payload`, and no reference to it is alive.
        unsafe { (*self.payload.get()).take() }
    }
}

/// The identity of a call: its thread and its number. No two calls have the same.
#[derive(Clone, Copy)]
pub(crate) struct CallNumber {
    /// The thread's [serial](ThreadId::serial).
    thread: usize,
    serial: usize,
}

impl CallNumber {
    /// The identity of an open call of the calling thread.
    pub fn of(thread: &ThreadState, call: &OpenCall) -> Self {
        Self { thread: thread.id().serial, serial: call.serial() }
    }

    /// Whether the call is open, and is the calling thread's.
    pub fn is_open(self, thread: &ThreadState) -> bool {
        service::run(|| self.find(thread).is_some())
    }

    /// Finds the open call, if it is the calling thread's. Signals must be blocked: a handler could
    /// add places meanwhile.
    fn find(self, thread: &ThreadState) -> Option<&OpenCall> {
        let record = thread.record().filter(|_| thread.id().serial == self.thread && self.serial != 0)?;
        record.open_calls().find(|call| call.serial() == self.serial)
    }

    /// Leaves a payload with the call, to be raised when it returns.
    ///
    /// The payload comes back if an earlier one is pending there, if the call has returned, or if
    /// it is another thread's.
    pub fn set_pending_panic(self, thread: &ThreadState, payload: Payload) -> PendingPanic {
        // Signals are blocked so that the call cannot return in between.
        service::run(|| {
            let Some(call) = self.find(thread) else { return PendingPanic::CallReturned(payload) };
            // SAFETY: only the owning thread accesses payloads, `find` looks among its own calls
            // only, and no reference to this payload is alive.
            let slot = unsafe { &mut *call.payload.get() };
            if slot.is_some() {
                return PendingPanic::AlreadySet(payload);
            }
            *slot = Some(payload);
            thread.calls.pending_panics.add(1);
            PendingPanic::Set
        })
    }
}

/// The outcome of setting a pending panic.
pub(crate) enum PendingPanic {
    /// The payload will be raised.
    Set,
    /// An earlier payload is pending.
    AlreadySet(Payload),
    /// The call has returned, or is another thread's.
    CallReturned(Payload),
}
