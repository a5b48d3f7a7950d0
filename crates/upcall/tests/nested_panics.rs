//! Fibers that suspend while they unwind, or run while their thread unwinds.
#![cfg(feature = "runtime")]

mod common;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use common::{FIBERS, poll, time_limit};
use upcall::{Fiber, blocking, sleep, wait, yield_now};

/// Calls its function when it is dropped, once.
struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0.take().unwrap()();
    }
}

fn while_panicking(f: impl FnOnce()) {
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let _f = OnDrop(Some(f));
        panic!("outer");
    }));
    assert!(caught.is_err());
    assert!(!thread::panicking());
}

/// A fiber with `times` rounds of a panic, a wait in its unwinding, and the catch.
fn panics_and_waits(times: usize) -> Pin<Box<Fiber<usize>>> {
    Box::pin(FIBERS.fiber(move || {
        let unwound = Cell::new(0);
        for _ in 0..times {
            let _ = catch_unwind(AssertUnwindSafe(|| {
                let _waits = OnDrop(Some(|| {
                    assert!(thread::panicking());
                    yield_now();
                    sleep(Duration::from_millis(1));
                    assert!(thread::panicking());
                    unwound.set(unwound.get() + 1);
                }));
                panic!("inner");
            }));
            yield_now();
        }
        unwound.get()
    }))
}

#[test]
fn a_fiber_that_unwinds_among_other_panics_leaves_their_count_right() {
    let _ends = time_limit("a_fiber_that_unwinds_among_other_panics_leaves_their_count_right");
    for polls in 1..5 {
        let mut fiber = panics_and_waits(2);
        let mut ended = None;
        while_panicking(|| {
            for _ in 0..polls {
                if let Poll::Ready(unwound) = poll(&mut fiber) {
                    ended = Some(unwound);
                    return;
                }
            }
        });
        let runtime = FIBERS.local_runtime().unwrap();
        assert_eq!(runtime.spawn_local(|| 1).join().unwrap(), 1);
        while ended.is_none() {
            if let Poll::Ready(unwound) = poll(&mut fiber) {
                ended = Some(unwound);
            }
            assert!(!thread::panicking());
        }
        assert_eq!(ended, if polls < 2 { Some(2) } else { ended });
    }
}

#[test]
fn a_destructor_may_run_a_fiber_to_its_end_while_the_thread_panics() {
    let _ends = time_limit("a_destructor_may_run_a_fiber_to_its_end_while_the_thread_panics");
    while_panicking(|| {
        wait(FIBERS.fiber(|| sleep(Duration::from_millis(5))));
        assert_eq!(futures_lite::future::block_on(FIBERS.fiber(|| blocking(|| 4))), 4);
        assert_eq!(FIBERS.spawn(|| 5).join().unwrap(), 5);
    });
}

#[test]
fn a_fiber_suspended_before_a_panic_suspends_again_in_it() {
    let (sender, receiver) = async_channel::bounded(1);
    let mut fiber = Box::pin(FIBERS.fiber(move || {
        let first = wait(receiver.recv()).unwrap();
        assert!(!thread::panicking());
        first
    }));
    assert!(poll(&mut fiber).is_pending());
    while_panicking(|| {
        assert!(poll(&mut fiber).is_pending());
        assert!(poll(&mut fiber).is_pending());
        assert!(poll(&mut fiber).is_pending());
    });
    sender.try_send(3).unwrap();
    assert_eq!(poll(&mut fiber), Poll::Ready(3));
}

#[test]
fn a_local_runtime_runs_nothing_while_the_thread_panics() {
    let runtime = FIBERS.local_runtime().unwrap();
    let fiber = runtime.spawn_local(|| {
        yield_now();
        thread::panicking()
    });
    while_panicking(|| assert_eq!(runtime.run_ready(10), 0));
    assert!(!fiber.join().unwrap());
}
