//! Fibers with borrows of thread-locals across a wait, and fibers that outlive their thread.
//!
//! They break the promise of `Fibers`. In the cases tested here, upcall prevents harm all the same.

mod common;

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Waker};
use std::thread;

use common::{FIBERS, child, message, part, stderr_of_success, time_limit};
use upcall::{Fiber, LocalRuntime, wait};

const TEXT: &str = "a value of a thread-local, alive as long as its thread";

static SEEN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static NAME: String = TEXT.to_owned();
    static LATE: String = TEXT.to_owned();
    static RUNTIME: RefCell<Option<LocalRuntime>> = const { RefCell::new(None) };
    static FIBER: RefCell<Option<Pin<Box<Fiber<()>>>>> = const { RefCell::new(None) };
}

/// Asserts in its drop that the borrowed text is unchanged, and counts it.
struct Guard<'a>(&'a str);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let spray: Vec<String> = (0..64).map(|_| "X".repeat(TEXT.len())).collect();
        std::hint::black_box(&spray);
        assert_eq!(self.0.as_bytes(), TEXT.as_bytes());
        SEEN.fetch_add(1, Relaxed);
    }
}

fn borrows_for_ever() {
    NAME.with(|name| {
        let _guard = Guard(name);
        wait(pending::<()>());
    });
}

/// The runtime is used first, so its destructor runs last.
#[test]
fn a_runtime_in_a_thread_local() {
    let _limit = time_limit("a_runtime_in_a_thread_local");
    let before = SEEN.load(Relaxed);
    thread::spawn(|| {
        let runtime = FIBERS.local_runtime().unwrap();
        RUNTIME.with(|_| ());
        drop(runtime.spawn_local(borrows_for_ever));
        runtime.run_ready(10);
        // A second fiber begins much later. It borrows a thread-local made after the first fiber's
        // hook.
        drop(runtime.spawn_local(|| {
            LATE.with(|name| {
                let _guard = Guard(name);
                wait(pending::<()>());
            });
        }));
        runtime.run_ready(10);
        RUNTIME.set(Some(runtime));
    })
    .join()
    .unwrap();
    assert_eq!(SEEN.load(Relaxed) - before, 2, "both were unwound while the text was there");
}

/// Upcall cannot unwind a fiber owned by the program, so it leaks the fiber and prints a message.
#[test]
fn a_fiber_in_a_thread_local() {
    const NAME: &str = "a_fiber_in_a_thread_local";
    if part().is_none() {
        let said = stderr_of_success(&child(NAME, "leaks", &[]));
        assert!(said.contains("it is leaked, with its stack"), "{said}");
        return;
    }
    let before = SEEN.load(Relaxed);
    thread::spawn(|| {
        FIBER.with(|_| ());
        let mut fiber = Box::pin(FIBERS.fiber(borrows_for_ever));
        assert!(fiber.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        FIBER.set(Some(fiber));
    })
    .join()
    .unwrap();
    assert_eq!(SEEN.load(Relaxed), before);
}

/// Polls its fiber in a destructor of a thread-local, after the fiber's borrow has become stale.
struct Polls(Cell<Option<Pin<Box<Fiber<()>>>>>);

impl Drop for Polls {
    fn drop(&mut self) {
        let mut fiber = self.0.take().unwrap();
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let _ = fiber.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }));
        let said = message(polled.unwrap_err());
        assert!(said.contains("was polled after its thread had begun to destroy thread-locals"), "{said}");
        SEEN.fetch_add(1, Relaxed);
    }
}

#[test]
fn a_fiber_that_is_polled_too_late() {
    thread_local!(static POLLS: Polls = const { Polls(Cell::new(None)) });
    const NAME: &str = "a_fiber_that_is_polled_too_late";
    if part().is_none() {
        stderr_of_success(&child(NAME, "polls", &[]));
        return;
    }
    let before = SEEN.load(Relaxed);
    thread::spawn(|| {
        POLLS.with(|_| ());
        let mut fiber = Box::pin(FIBERS.fiber(borrows_for_ever));
        assert!(fiber.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        POLLS.with(|polls| polls.0.set(Some(fiber)));
    })
    .join()
    .unwrap();
    assert_eq!(SEEN.load(Relaxed), before + 1);
}

/// A fiber begins in a destructor of a thread-local, waits and ends there.
#[test]
fn a_fiber_that_begins_late() {
    struct Begins;
    impl Drop for Begins {
        fn drop(&mut self) {
            assert_eq!(wait(FIBERS.fiber(|| (upcall::yield_now(), 7).1)), 7);
            ENDED.fetch_add(1, Relaxed);
        }
    }
    static ENDED: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static BEGINS: Begins = const { Begins });
    let _limit = time_limit("a_fiber_that_begins_late");
    thread::spawn(|| {
        BEGINS.with(|_| ());
        wait(FIBERS.fiber(upcall::yield_now));
    })
    .join()
    .unwrap();
    assert_eq!(ENDED.load(Relaxed), 1);
}

/// Debug builds detect a wait inside `LocalKey::with`, if the variable is set.
///
/// Borrows by the fiber's poller do not count.
#[test]
#[cfg(debug_assertions)]
fn a_wait_inside_with_is_said() {
    const TEST: &str = "a_wait_inside_with_is_said";
    const SAID: &str = "suspends its fiber inside LocalKey::with";
    let Some(part) = part() else {
        let check = [("UPCALL_CHECK_THREAD_LOCALS", "1")];
        assert!(stderr_of_success(&child(TEST, "inside", &check)).contains(SAID));
        for (part, variables) in [("around", &check[..]), ("inside", &[])] {
            let said = stderr_of_success(&child(TEST, part, variables));
            assert!(!said.contains(SAID), "{said}");
        }
        return;
    };
    if part == "inside" {
        wait(FIBERS.fiber(|| NAME.with(|_name| upcall::yield_now())));
    } else {
        NAME.with(|_name| wait(FIBERS.fiber(|| (NAME.with(String::len), upcall::yield_now()).1)));
    }
}

/// The search for a borrow has enough stack, even with the least room it accepts.
#[test]
#[cfg(debug_assertions)]
fn a_wait_deep_in_the_stack_is_looked_at() {
    fn deep() -> usize {
        let frame = std::hint::black_box([0u8; 512]);
        if stackbounds::remaining().unwrap() > 65 << 10 {
            deep() + usize::from(frame[7])
        } else {
            (upcall::yield_now(), 0).1
        }
    }
    const TEST: &str = "a_wait_deep_in_the_stack_is_looked_at";
    if part().is_none() {
        stderr_of_success(&child(TEST, "deep", &[("UPCALL_CHECK_THREAD_LOCALS", "1")]));
        return;
    }
    assert_eq!(wait(FIBERS.fiber(deep)), 0);
}
