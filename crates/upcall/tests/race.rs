//! Two fibers race on purpose. The lane `ci/tsan.sh` expects ThreadSanitizer's report.
#![cfg(upcall_tsan)]

use std::hint::spin_loop;
use std::ptr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use upcall::{config, enter, yield_now};

// SAFETY: no code on these fibers holds a borrow of a thread-local across a wait, and no
// initialiser of a thread-local waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };

static mut RACED: usize = 0;
static MET: AtomicUsize = AtomicUsize::new(0);
static FIRST_WROTE: AtomicBool = AtomicBool::new(false);

#[inline(never)]
fn first_racer() {
    // SAFETY: none. No happens-before edge leads to the other fiber's write: the race is the
    // purpose of this test.
    unsafe { ptr::write_volatile(&raw mut RACED, 1) };
    FIRST_WROTE.store(true, Relaxed);
}

/// Writes after the other fiber, without a happens-before edge.
///
/// ThreadSanitizer updates its record of a location without a lock, so it may miss two writes at
/// the same instant.
#[inline(never)]
fn second_racer() {
    while !FIRST_WROTE.load(Relaxed) {
        spin_loop();
    }
    // SAFETY: none. No happens-before edge leads here from the other fiber's write: the race is
    // the purpose of this test.
    unsafe { ptr::write_volatile(&raw mut RACED, 2) };
}

/// Returns after both fibers have called it for the `times`th time.
///
/// A sanitizer sees no order between them, since all operations are relaxed.
fn meet(times: usize) {
    MET.fetch_add(1, Relaxed);
    while MET.load(Relaxed) < 2 * times {
        spin_loop();
    }
}

/// Runs `f` in an upcall of a fiber, after a suspension. Each fiber has a worker of its own.
fn run(f: fn()) {
    meet(1);
    yield_now();
    enter(|| {
        meet(2);
        f();
    })
    .unwrap();
}

#[test]
fn two_fibers_on_two_workers() {
    config().workers(2).install().unwrap();
    let first = FIBERS.spawn(|| run(first_racer));
    let second = FIBERS.spawn(|| run(second_racer));
    first.join().unwrap();
    second.join().unwrap();
}
