//! `spawn` and its handles; blocking calls, sleeping, yielding.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::FIBERS;
use common::{AtDrop, message, poll, time_limit};
use futures_lite::future::block_on;
use upcall::{JoinHandle, StackChoice, blocking, enter, entry, sleep, wait, yield_now};

/// Waits until `is` holds.
fn until(is: impl Fn() -> bool) {
    while !is() {
        thread::yield_now();
    }
}

/// Spawns a fiber with an endless wait. It has begun, and has reached its wait or soon will.
fn waiting() -> JoinHandle<()> {
    let (sender, receiver) = mpsc::channel();
    let handle = FIBERS.spawn(move || {
        sender.send(()).unwrap();
        wait(std::future::pending::<()>());
    });
    receiver.recv().unwrap();
    handle
}

#[test]
fn joined_from_everywhere() {
    let _limit = time_limit("joined_from_everywhere");
    let answer = || {
        FIBERS.spawn(|| {
            sleep(Duration::from_millis(2));
            42
        })
    };
    let (by_thread, in_context) = (answer(), answer());
    assert_eq!(thread::spawn(move || by_thread.join().unwrap()).join().unwrap(), 42, "a plain thread");
    assert_eq!(block_on(in_context).unwrap(), 42, "another executor");
    assert_eq!(answer().join().unwrap(), 42);
    assert_eq!(wait(FIBERS.fiber(move || answer().join().unwrap())), 42, "a fiber of nobody's");
    assert_eq!(FIBERS.spawn(move || answer().join().unwrap()).join().unwrap(), 42, "a worker's fiber");
    for choice in [StackChoice::Auto, StackChoice::Caller, StackChoice::Pooled] {
        let joined = entry().stack(choice).enter(|| enter(|| answer().join().unwrap()).unwrap());
        assert_eq!(joined.unwrap(), 42, "an upcall");
    }
}

#[test]
fn finished_when_it_says_so() {
    let _limit = time_limit("finished_when_it_says_so");
    let (sender, receiver) = async_channel::bounded::<()>(1);
    let handle = FIBERS.spawn(move || wait(receiver.recv()).unwrap());
    assert!(!handle.is_finished());
    sender.send_blocking(()).unwrap();
    until(|| handle.is_finished());
    assert_eq!(format!("{handle:?}"), "JoinHandle { finished: true }");
    handle.join().unwrap();
}

#[test]
fn a_panic_arrives_with_its_payload() {
    let error = FIBERS.spawn(|| panic_any(7u8)).join().unwrap_err();
    assert!(error.is_panic() && !error.is_aborted() && !error.is_refused());
    assert_eq!(error.to_string(), "the fiber panicked: a panic whose payload is not a string");
    assert_eq!(*error.into_panic().unwrap().downcast::<u8>().unwrap(), 7);
    let error = FIBERS.spawn(|| panic!("at {}", 3)).join().unwrap_err();
    assert_eq!(format!("{error:?}"), "JoinError(the fiber panicked: at 3)");
    assert_eq!(message(error.into_panic().unwrap()), "at 3");
}

#[test]
fn aborted() {
    let _limit = time_limit("aborted");
    let drops = Arc::new(AtomicU32::new(0));
    for aborts in 1..3 {
        let dropped = drops.clone();
        let (sender, receiver) = mpsc::channel();
        let handle = FIBERS.spawn(move || {
            let _count = AtDrop(|| _ = dropped.fetch_add(1, Relaxed));
            sender.send(()).unwrap();
            sleep(Duration::MAX);
        });
        receiver.recv().unwrap();
        (0..aborts).for_each(|_| handle.abort());
        let error = handle.join().unwrap_err();
        assert!(error.is_aborted() && error.to_string() == "the fiber was aborted");
        assert!(error.into_panic().is_err());
        assert_eq!(drops.swap(0, Relaxed), 1, "join returns when the destructors have run");
    }
    let finished = FIBERS.spawn(|| 5);
    until(|| finished.is_finished());
    finished.abort();
    assert_eq!(finished.join().unwrap(), 5, "what had ended has its result");
    let handle = waiting();
    thread::scope(|scope| scope.spawn(|| handle.abort()).join().unwrap());
    assert!(handle.join().unwrap_err().is_aborted(), "from another thread");
}

#[test]
fn what_was_aborted_is_finished_when_it_has_ended() {
    let handle = waiting();
    handle.abort();
    let deadline = Instant::now() + Duration::from_secs(10);
    until(|| handle.is_finished() || Instant::now() > deadline);
    assert!(handle.is_finished(), "ten seconds after it was aborted");
    assert!(handle.join().unwrap_err().is_aborted());
}

#[test]
fn dropping_the_handle_lets_it_go_on() {
    let _limit = time_limit("dropping_the_handle_lets_it_go_on");
    let (sender, receiver) = mpsc::channel();
    drop(FIBERS.spawn(move || {
        sleep(Duration::from_millis(5));
        sender.send("went on").unwrap();
    }));
    assert_eq!(receiver.recv().unwrap(), "went on");
}

/// Counts its drop, and then panics.
struct PanicsInDrop(Arc<AtomicU32>);

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
        panic!("in drop");
    }
}

#[test]
fn a_result_whose_drop_panics_harms_nobody() {
    let _limit = time_limit("a_result_whose_drop_panics_harms_nobody");
    for _ in 0..20 {
        let drops = Arc::new(AtomicU32::new(0));
        let result = || PanicsInDrop(drops.clone());
        let (detached, kept, payload) = (result(), result(), result());
        let (sender, receiver) = async_channel::bounded::<()>(1);
        drop(FIBERS.spawn(move || (wait(receiver.recv()), detached)));
        drop(sender);
        let kept = FIBERS.spawn(|| kept);
        until(|| kept.is_finished());
        // If this handle is the last owner of the result, its thread may see the panic.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(kept)));
        let _ = catch_unwind(AssertUnwindSafe(|| drop(FIBERS.spawn(|| panic_any(payload)))));
        until(|| drops.load(Relaxed) == 3);
    }
    assert_eq!(FIBERS.spawn(|| 1).join().unwrap(), 1);
}

#[test]
fn a_closure_whose_drop_panics_harms_nobody() {
    let _limit = time_limit("a_closure_whose_drop_panics_harms_nobody");
    let drops = Arc::new(AtomicU32::new(0));
    // Spawned by a fiber, a child usually waits for the spawner's worker. So some are aborted
    // before they begin.
    let closures: Vec<_> = (0..20).map(|_| PanicsInDrop(drops.clone())).collect();
    let spawner = FIBERS.spawn(|| {
        for closure in closures {
            let handle = FIBERS.spawn(move || drop(closure));
            handle.abort();
            assert!(handle.join().is_err());
        }
    });
    spawner.join().unwrap();
    assert_eq!(drops.load(Relaxed), 20);
}

/// A fiber that joins itself waits for ever. So do two fibers that join each other. They hold up no
/// other fiber.
#[test]
fn fibers_that_join_themselves_or_each_other() {
    let _limit = time_limit("fibers_that_join_themselves_or_each_other");
    let joins_what_it_gets = || {
        let (sender, receiver) = async_channel::bounded::<JoinHandle<()>>(1);
        let (began, begins) = mpsc::channel();
        let handle = FIBERS.spawn(move || {
            let other = wait(receiver.recv()).unwrap();
            began.send(()).unwrap();
            other.join().unwrap();
        });
        (sender, begins, handle)
    };
    let (to_itself, begun, itself) = joins_what_it_gets();
    to_itself.try_send(itself).unwrap();
    begun.recv().unwrap();
    let (to_first, first_begun, first) = joins_what_it_gets();
    let (to_second, second_begun, second) = joins_what_it_gets();
    to_first.try_send(second).unwrap();
    to_second.try_send(first).unwrap();
    first_begun.recv().unwrap();
    second_begun.recv().unwrap();
    let others: Vec<_> = (0..100)
        .map(|n| {
            FIBERS.spawn(move || {
                sleep(Duration::from_millis(1));
                n
            })
        })
        .collect();
    assert_eq!(others.into_iter().map(|other| other.join().unwrap()).sum::<i32>(), 4950);
}

#[test]
fn a_fiber_that_has_begun_stays_on_its_thread() {
    let _limit = time_limit("a_fiber_that_has_begun_stays_on_its_thread");
    let fibers: Vec<_> = (0..64)
        .map(|n| {
            FIBERS.spawn(move || {
                let here = thread::current().id();
                for turn in 0..100 {
                    match (n + turn) % 4 {
                        0 => sleep(Duration::from_micros(50)),
                        1 => blocking(|| ()),
                        2 => FIBERS.spawn(|| ()).join().unwrap(),
                        _ => yield_now(),
                    }
                    assert_eq!(thread::current().id(), here);
                }
            })
        })
        .collect();
    fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
}

#[test]
fn blocking_gives_values_and_panics() {
    let _limit = time_limit("blocking_gives_values_and_panics");
    let both = || {
        let elsewhere = blocking(|| thread::current().id());
        assert_ne!(elsewhere, thread::current().id());
        assert_eq!(blocking(|| blocking(|| 2) + blocking(|| 3)), 5);
        let raised = catch_unwind(|| blocking(|| panic_any(9u8))).unwrap_err();
        assert_eq!(*raised.downcast::<u8>().unwrap(), 9);
    };
    both();
    wait(FIBERS.fiber(both));
    FIBERS.spawn(both).join().unwrap();
    blocking(|| FIBERS.spawn(|| blocking(|| ())).join().unwrap());
}

#[test]
fn a_blocking_call_goes_on_without_the_fiber_that_waited() {
    let _limit = time_limit("a_blocking_call_goes_on_without_the_fiber_that_waited");
    let (go, goes) = mpsc::channel::<()>();
    let (began, begins) = mpsc::channel();
    let (sender, receiver) = mpsc::channel();
    let mut fiber = Box::pin(FIBERS.fiber(move || {
        blocking(move || {
            began.send(()).unwrap();
            goes.recv().unwrap();
            AtDrop(move || sender.send("the result is dropped").unwrap())
        })
    }));
    assert!(poll(&mut fiber).is_pending());
    begins.recv().unwrap();
    drop(fiber);
    go.send(()).unwrap();
    assert_eq!(receiver.recv().unwrap(), "the result is dropped");
}

#[test]
fn stuck_fibers_do_not_hold_back_those_that_have_not_begun() {
    let _limit = time_limit("stuck_fibers_do_not_hold_back_those_that_have_not_begun");
    let (release, released) = async_channel::bounded::<()>(1);
    let stuck: Vec<_> = (0..16)
        .map(|_| {
            let released = released.clone();
            FIBERS.spawn(move || assert!(released.recv_blocking().is_err()))
        })
        .collect();
    assert_eq!(FIBERS.spawn(|| 1).join().unwrap(), 1);
    drop(release);
    stuck.into_iter().for_each(|fiber| fiber.join().unwrap());
}

#[test]
fn sleeps_of_every_length() {
    let _limit = time_limit("sleeps_of_every_length");
    let sleeps = || {
        sleep(Duration::ZERO);
        let start = Instant::now();
        sleep(Duration::from_millis(15));
        assert!(start.elapsed() >= Duration::from_millis(15));
    };
    sleeps();
    wait(FIBERS.fiber(sleeps));
    FIBERS.spawn(sleeps).join().unwrap();
}

#[test]
fn fibers_that_yield_for_ever_hold_nobody_back() {
    let _limit = time_limit("fibers_that_yield_for_ever_hold_nobody_back");
    let enough = Arc::new(AtomicBool::new(false));
    let yielding: Vec<_> = (0..16)
        .map(|_| {
            let enough = enough.clone();
            FIBERS.spawn(move || {
                while !enough.load(Relaxed) {
                    yield_now()
                }
            })
        })
        .collect();
    let sleeps_between = FIBERS.spawn(|| (0..10).for_each(|_| sleep(Duration::from_millis(1))));
    let spawns = FIBERS.spawn(|| FIBERS.spawn(|| FIBERS.spawn(|| 7).join().unwrap()).join().unwrap());
    sleeps_between.join().unwrap();
    assert_eq!(spawns.join().unwrap(), 7);
    enough.store(true, Relaxed);
    yielding.into_iter().for_each(|fiber| fiber.join().unwrap());
}
