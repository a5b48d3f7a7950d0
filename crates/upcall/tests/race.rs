//! Two fibers race on purpose, for the lane `ci/tsan.sh`, which must see ThreadSanitizer report it.
#![cfg(upcall_tsan)]

use std::hint::spin_loop;
use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use upcall::{config, enter, spawn, yield_now};

static mut RACED: usize = 0;
static MET: AtomicUsize = AtomicUsize::new(0);

#[inline(never)]
fn first_racer() {
    // SAFETY: none: the other fiber writes it, too.
    unsafe { ptr::write_volatile(&raw mut RACED, 1) };
}

#[inline(never)]
fn second_racer() {
    // SAFETY: none: as in `first_racer`.
    unsafe { ptr::write_volatile(&raw mut RACED, 2) };
}

/// Returns when both have come for the `times`th time. Nothing orders them that a sanitizer sees.
fn meet(times: usize) {
    MET.fetch_add(1, Relaxed);
    while MET.load(Relaxed) < 2 * times {
        spin_loop();
    }
}

/// Runs `f` in an upcall of a fiber that is on a worker of its own, and has been suspended.
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
    let first = spawn(|| run(first_racer));
    let second = spawn(|| run(second_racer));
    first.join().unwrap();
    second.join().unwrap();
}
