//! Where a thread sleeps until something that it waits for has happened, and is woken.
//!
//! A parker outlives its thread: it is used again by another one, so that whoever still has an old thread's waker wakes
//! somebody in vain at worst. Hence rule: **to be woken means to look again.**

use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::{Mutex, MutexGuard};
use std::task::{RawWaker, RawWakerVTable, Waker};
use std::time::Instant;

use crate::sync::atomic::AtomicU32;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{lock, sys};

/// Nobody sleeps, nothing happened.
const EMPTY: u32 = 0;
/// The thread sleeps, or is about to.
const PARKED: u32 = 1;
/// Something happened that the thread has not looked at.
const NOTIFIED: u32 = 2;

/// How often a thread looks before it sleeps, where there is another core that could wake it meanwhile: as long as going to sleep and being woken takes
/// there, some tens of microseconds.
const LOOKS: u32 = 2000;

/// The more often in a row it was in vain, the fewer; but every so often as many as ever: two threads that wait for each other find out
/// only so that both could be quick.
fn looks_after(in_vain: u32) -> u32 {
    const EVERY: u32 = 8;
    if in_vain % EVERY == 0 { LOOKS } else { LOOKS >> in_vain.min(6) }
}

/// One thread's place to sleep.
pub(crate) struct Parker {
    state: AtomicU32,
    /// How often in a row the thread looked in vain.
    in_vain: AtomicU32,
}

static FREE: Mutex<Vec<&'static Parker>> = Mutex::new(Vec::new());

fn free() -> MutexGuard<'static, Vec<&'static Parker>> {
    lock(&FREE)
}

/// Holds the list as it is.
pub(crate) fn hold_lock() -> impl Sized + 'static {
    free()
}

impl Parker {
    /// A parker for the calling thread, until it gives it back.
    pub fn take() -> &'static Parker {
        free().pop().unwrap_or_else(|| Box::leak(Box::new(Parker::new())))
    }

    pub fn give_back(&'static self) {
        free().push(self);
    }

    pub fn new() -> Parker {
        Parker { state: AtomicU32::new(EMPTY), in_vain: AtomicU32::new(0) }
    }

    /// Whether something happened since the last look.
    #[inline]
    pub fn take_token(&self) -> bool {
        self.state.load(Relaxed) == NOTIFIED && self.state.swap(EMPTY, Acquire) == NOTIFIED
    }

    /// Sleeps until something has happened, which may be before the call; or until `deadline`. Says whether something has.
    pub fn park(&self, deadline: Option<Instant>) -> bool {
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
        if self.state.compare_exchange(EMPTY, PARKED, Acquire, Acquire).is_err() {
            return self.state.swap(EMPTY, Acquire) == NOTIFIED;
        }
        loop {
            let in_time = sys::while_is(&self.state, PARKED, deadline);
            if self.state.load(Relaxed) == NOTIFIED || !in_time {
                return self.state.swap(EMPTY, Acquire) == NOTIFIED;
            }
        }
    }

    /// Something happened: the thread returns from [`park`](Self::park), now or when it gets there.
    #[inline]
    pub fn unpark(&self) {
        if self.state.swap(NOTIFIED, Release) == PARKED {
            sys::wake(&self.state);
        }
    }

    /// A waker that unparks the thread. It is free to make, and to clone.
    pub fn waker(&'static self) -> ManuallyDrop<Waker> {
        // SAFETY: the functions below uphold the contract: any thread may call them, at any time, since parkers are never freed.
        ManuallyDrop::new(unsafe { Waker::from_raw(raw(ptr::from_ref(self).cast())) })
    }
}

fn raw(parker: *const ()) -> RawWaker {
    fn unpark(parker: *const ()) {
        // SAFETY: `Parker::waker` made the pointer from a static reference.
        unsafe { &*parker.cast::<Parker>() }.unpark();
    }
    static VTABLE: RawWakerVTable = RawWakerVTable::new(raw, unpark, unpark, |_| ());
    RawWaker::new(parker, &VTABLE)
}

/// Whether there is another core that could wake the thread while it looks.
#[cfg(not(upcall_loom))]
fn other_cores() -> bool {
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
fn other_cores() -> bool {
    false
}
