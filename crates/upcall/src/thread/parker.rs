//! Parkers: a thread sleeps in one until something happens and it is woken.
//!
//! A parker outlives its thread, and another thread reuses it. If somebody still has an old
//! thread's waker, a wake by it is spurious at worst. Hence rule: **to be woken means to look
//! again.**

use std::mem::ManuallyDrop;
use std::ptr;
use std::task::{RawWaker, RawWakerVTable, Waker};
use std::time::Instant;

use super::deferred_wake;
use crate::process::fork;
use crate::sync::atomic::AtomicU32;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{self, Ended};
use crate::sync::{Held, Lock, Word, hold};

/// Nobody sleeps, and nothing has happened.
const EMPTY: u32 = 0;
/// The thread sleeps, or is about to.
const PARKED: u32 = 1;
/// Something has happened, not yet noticed by the thread.
const NOTIFIED: u32 = 2;

/// The spins before a sleep, if another core could wake the thread meanwhile. They take as long as
/// falling asleep and being woken there: some tens of microseconds.
const LOOKS: u32 = 2000;

/// The number of spins, after `in_vain` failures in a row.
///
/// Halves the spins after each failure, down to a 64th; every eighth time, spins in full. Without
/// this, two threads that wait for each other would not discover that both could be quick.
fn looks_after(in_vain: u32) -> u32 {
    const EVERY: u32 = 8;
    if in_vain % EVERY == 0 { LOOKS } else { LOOKS >> in_vain.min(6) }
}

/// The reason why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parked {
    /// Something has happened.
    Woken,
    TimedOut,
    /// A signal handler has run on the thread.
    Signalled,
}

/// A place for one thread to sleep.
pub(crate) struct Parker {
    state: AtomicU32,
    /// The number of spin phases without success, in a row.
    in_vain: AtomicU32,
}

static FREE: Lock<Vec<&'static Parker>> = Lock::new(Vec::new());

fn free() -> Held<Vec<&'static Parker>> {
    hold(&FREE)
}

/// The lock of the list of free parkers, for forks.
pub(crate) fn lock_word() -> &'static Word {
    FREE.word()
}

impl Parker {
    /// Takes a parker for the calling thread, until it gives it back.
    pub fn take() -> &'static Parker {
        free().pop().unwrap_or_else(|| Box::leak(Box::new(Parker::new())))
    }

    pub fn give_back(&'static self) {
        free().push(self);
    }

    pub fn new() -> Parker {
        Parker { state: AtomicU32::new(EMPTY), in_vain: AtomicU32::new(0) }
    }

    /// Whether something has happened since the last look.
    #[inline]
    pub fn take_token(&self) -> bool {
        self.state.load(Relaxed) == NOTIFIED && self.state.swap(EMPTY, Acquire) == NOTIFIED
    }

    /// Sleeps until something happens, perhaps before the call, or until `deadline`. Returns
    /// whether something has.
    ///
    /// Aborts the process if it is an untold copy of another one, made without fork handlers:
    /// nobody could wake the thread there.
    #[cfg(feature = "runtime")]
    pub fn park(&self, deadline: Option<Instant>) -> bool {
        self.look() || {
            loop {
                match self.sleep(deadline) {
                    Parked::Woken => break true,
                    Parked::TimedOut => break false,
                    Parked::Signalled => {}
                }
            }
        }
    }

    /// Spins for a while. Returns whether something has happened.
    pub fn look(&self) -> bool {
        // The thread is about to be idle.
        deferred_wake::flush();
        if other_cores() {
            let in_vain = self.in_vain.load(Relaxed);
            for _ in 0..looks_after(in_vain) {
                if self.take_token() {
                    self.in_vain.store(0, Relaxed);
                    return true;
                }
                std::hint::spin_loop();
            }
            self.in_vain.store(in_vain.wrapping_add(1), Relaxed);
        }
        false
    }

    /// Sleeps until something happens, perhaps before the call, until `deadline`, or until a signal
    /// handler has run, if the system tells.
    ///
    /// Aborts an untold copy of a process, as [`park`](Self::park) does.
    pub fn sleep(&self, deadline: Option<Instant>) -> Parked {
        if fork::is_untold() {
            fork::abort_untold();
        }
        fork::resume_in_child();
        // The state may be `PARKED` already, from a wait that C abandoned by `longjmp`.
        if self.state.compare_exchange(EMPTY, PARKED, Acquire, Acquire) == Err(NOTIFIED) {
            return self.end_sleep(Parked::Woken);
        }
        loop {
            let ended = sync::sleep_while(&self.state, PARKED, deadline);
            let parked = match ended {
                _ if self.state.load(Relaxed) == NOTIFIED => Parked::Woken,
                Ended::Changed => continue,
                Ended::TimedOut => Parked::TimedOut,
                Ended::Signalled => Parked::Signalled,
            };
            return self.end_sleep(parked);
        }
    }

    /// Resets the state and returns why the sleep ended.
    ///
    /// This is `Woken` if something has happened. Otherwise it is `parked`, except that `Woken`
    /// becomes `Signalled`.
    fn end_sleep(&self, parked: Parked) -> Parked {
        match self.state.swap(EMPTY, Acquire) {
            NOTIFIED => Parked::Woken,
            _ if parked == Parked::Woken => Parked::Signalled,
            _ => parked,
        }
    }

    /// Whether the thread sleeps here, or is about to.
    #[cfg(feature = "runtime")]
    pub fn is_parked(&self) -> bool {
        self.state.load(Relaxed) == PARKED
    }

    /// Notes that something has happened. The thread returns from [`park`](Self::park) now, or as
    /// soon as it calls it.
    #[inline]
    pub fn unpark(&'static self) {
        if self.state.swap(NOTIFIED, Release) == PARKED && (other_cores() || !deferred_wake::defer(self)) {
            self.wake();
        }
    }

    /// Notes that something has happened, and wakes the thread at once, even where wakes are
    /// deferred.
    #[cfg(feature = "runtime")]
    pub fn unpark_at_once(&self) {
        if self.state.swap(NOTIFIED, Release) == PARKED {
            self.wake();
        }
    }

    /// Wakes the thread, if it sleeps.
    pub fn wake(&self) {
        sync::wake(&self.state);
    }

    /// Whether the waker belongs to a parker.
    #[cfg(feature = "runtime")]
    #[inline]
    pub fn made(waker: &Waker) -> bool {
        ptr::eq(waker.vtable(), &VTABLE)
    }

    /// A waker that unparks the thread. Making and cloning it are free.
    pub fn waker(&'static self) -> ManuallyDrop<Waker> {
        // SAFETY: the functions below uphold the contract of `RawWaker`: any thread may call them
        // at any time, since parkers are never freed.
        ManuallyDrop::new(unsafe { Waker::from_raw(raw(ptr::from_ref(self).cast())) })
    }
}

fn raw(parker: *const ()) -> RawWaker {
    RawWaker::new(parker, &VTABLE)
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(raw, unpark, unpark, |_| ());

fn unpark(parker: *const ()) {
    // SAFETY: `Parker::waker` made the pointer from a `&'static Parker`.
    let parker: &'static Parker = unsafe { &*parker.cast() };
    parker.unpark();
}

/// Whether another core could wake the thread while it spins.
#[cfg(not(upcall_loom))]
pub(crate) fn other_cores() -> bool {
    static CORES: AtomicU32 = AtomicU32::new(0);
    match CORES.load(Relaxed) {
        0 => {
            let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
            CORES.store(cores.try_into().unwrap_or(u32::MAX), Relaxed);
            cores > 1
        }
        cores => cores > 1,
    }
}

#[cfg(upcall_loom)]
pub(crate) fn other_cores() -> bool {
    false
}
