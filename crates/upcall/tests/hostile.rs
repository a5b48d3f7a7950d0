//! Hostile programs, each of a different kind.
#![cfg(feature = "runtime")]

mod common;

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use common::{FIBERS, child, part, stderr_of_success, time_limit};
use futures::future::join_all;
use upcall::{FiberLocal, wait, with_stack, yield_now};

/// True in the child process of `test`. Otherwise runs the child, and returns false.
fn alone(test: &str) -> bool {
    if part().is_none() {
        stderr_of_success(&child(test, "alone", &[]));
    }
    part().is_some()
}

/// The process's first wait is in an initialiser, with few frames above it.
#[test]
fn the_first_wait_of_all_is_in_an_initialiser() {
    if !alone("the_first_wait_of_all_is_in_an_initialiser") {
        return;
    }
    let _ends = time_limit("the_first_wait_of_all_is_in_an_initialiser");
    static LAZY: LazyLock<u32> = LazyLock::new(|| {
        yield_now();
        1
    });
    let fibers = [(); 3].map(|()| Box::pin(FIBERS.fiber(|| *LAZY)));
    assert_eq!(wait(join_all(fibers)), [1, 1, 1]);
}

#[test]
fn an_initialiser_waits_on_a_further_stack() {
    let _ends = time_limit("an_initialiser_waits_on_a_further_stack");
    static LAZY: LazyLock<u32> = LazyLock::new(|| {
        with_stack(1 << 20, || {
            yield_now();
            2
        })
    });
    let fibers = [(); 3].map(|()| Box::pin(FIBERS.fiber(|| *LAZY)));
    assert_eq!(wait(join_all(fibers)), [2, 2, 2]);
}

/// A variable used by its own first initialiser.
#[test]
fn an_initialiser_uses_its_own_variable() {
    static INITS: AtomicU32 = AtomicU32::new(0);
    static LOCAL: FiberLocal<(u32, Cell<u32>)> = FiberLocal::new(|| {
        let number = INITS.fetch_add(1, Relaxed);
        if number == 0 {
            LOCAL.with(|(_, kept)| kept.set(7));
        }
        (number, Cell::new(0))
    });
    let use_it = || {
        INITS.store(0, Relaxed);
        let first = LOCAL.with(|(number, kept)| (*number, kept.get()));
        assert_eq!(LOCAL.with(|(number, kept)| (*number, kept.get())), first);
        first
    };
    assert_eq!(use_it(), (1, 7));
    assert_eq!(wait(FIBERS.fiber(use_it)), (1, 7));
}
