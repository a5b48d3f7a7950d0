//! Service stacks: a few stacks that begin inside our own data segment, for our own cold paths.
//!
//! The first upcall of a thread may come with 1 KiB of stack left. Attaching the thread asks the OS for bounds, allocates
//! and may bind symbols: several times that. So cold paths run here from their first instruction. A
//! service stack is not in the pool because filling the pool is one of those paths.
//!
//! Each is used once, to map the one with a guard that takes its place: collectors read whole data segments, so no guard can be there.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::sanitizer::{self, Left};
use super::{switch, sys};
use crate::config::GuardPages;

/// One service stack: 64 KiB, of which the lowest 16 KiB (a whole page on most machines) are the guard of one that was mapped.
const SIZE: usize = 64 << 10;
const GUARD: usize = 16 << 10;
/// As many threads can attach at one time; others wait for one of them.
const COUNT: usize = 8;

#[repr(C, align(16384))]
struct Memory(UnsafeCell<MaybeUninit<[u8; SIZE]>>);

struct Service {
    memory: Memory,
    /// Where the one begins that was mapped; 0 before. Changed by the thread that has taken it.
    mapped: AtomicUsize,
    taken: AtomicBool,
    /// Has been used, and Valgrind, where it runs, knows it.
    known: AtomicBool,
    left: Left,
}

// SAFETY: the memory and `left` are used only by the thread that set `taken`, until it clears it.
unsafe impl Sync for Service {}

static SERVICES: [Service; COUNT] = [const {
    Service {
        memory: Memory(UnsafeCell::new(MaybeUninit::uninit())),
        mapped: AtomicUsize::new(0),
        taken: AtomicBool::new(false),
        known: AtomicBool::new(false),
        left: Left::new(),
    }
}; COUNT];

/// Runs `f` on a service stack, whatever is left of the caller's. Panics pass through. `f` must not call foreign code that may
/// call back: it would find the stack taken, and it is short.
#[inline(never)]
pub(crate) fn run<R>(f: impl FnOnce() -> R) -> R {
    let service = take();
    let low = service.low();
    let is_new = !service.known.swap(true, Relaxed);
    if is_new {
        // Valgrind is to know a stack before anything runs on it.
        sanitizer::stack_made((low + GUARD) as *mut u8, SIZE - GUARD);
    }
    let mut result = None;
    // SAFETY: `take` gave the memory to this thread alone. Its lowest GUARD bytes are its guard, or hold nothing; then what runs here, which is ours, needs a
    // small part of the rest.
    unsafe {
        switch::on_block(low, low + SIZE, &service.left, || {
            // Here: on the caller's stack there may be no room to call libc.
            if is_new {
                service.map();
            }
            result = Some(catch_unwind(AssertUnwindSafe(f)));
        })
    };
    service.taken.store(false, Release);
    match result.expect("a switch runs what it is given") {
        Ok(value) => value,
        Err(payload) => resume_unwind(payload),
    }
}

/// Whether `sp` is on one of them: of code that interrupts what runs there.
pub(crate) fn contains(sp: usize) -> bool {
    SERVICES
        .iter()
        .any(|service| sp.wrapping_sub(service.low()) < SIZE || sp.wrapping_sub(service.first()) < SIZE)
}

/// In the child of a fork: those that used one are not here.
pub(crate) fn forget_users() {
    SERVICES.iter().for_each(|service| service.taken.store(false, Relaxed));
}

/// The bounds of the service stack whose guard `address` is in.
pub(crate) fn with_guard_at(address: usize) -> Option<(usize, usize)> {
    SERVICES.iter().map(|service| service.mapped.load(Relaxed)).filter(|&low| low != 0).find_map(|low| {
        let guard = low..low + GUARD;
        guard.contains(&address).then_some((low + GUARD, low + SIZE))
    })
}

impl Service {
    /// The lowest address of the one in the data segment.
    fn first(&self) -> usize {
        self.memory.0.get() as usize
    }

    /// That of the one in use.
    fn low(&self) -> usize {
        match self.mapped.load(Relaxed) {
            0 => self.first(),
            mapped => mapped,
        }
    }

    /// Maps the one with a guard. Without memory for it, or where pages are larger than the guard, all stays as it is.
    fn map(&self) {
        if sys::page_size() > GUARD {
            return;
        }
        let Some(low) = sys::reserve(SIZE, SIZE) else { return };
        // SAFETY: the memory was just mapped, in whole pages, and its lowest GUARD bytes will hold nothing.
        unsafe { sys::guard(low, GUARD, GuardPages::Mprotect) };
        sanitizer::stack_made(low.wrapping_add(GUARD), SIZE - GUARD);
        self.mapped.store(low as usize, Relaxed);
    }
}

fn take() -> &'static Service {
    for round in 0.. {
        for service in &SERVICES {
            if !service.taken.swap(true, Acquire) {
                return service;
            }
        }
        // The holders need the core that this thread has; if they have a lower priority, yielding does not give it to them.
        sys::wait_a_little(round);
    }
    unreachable!("rounds do not end")
}
