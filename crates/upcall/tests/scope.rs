//! Scopes: fibers end before the values they borrow.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use upcall::{sleep, wait, yield_now};

// SAFETY: no code on these fibers holds a borrow of a thread-local across a wait, and no
// initialiser of a thread-local waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };

#[test]
fn borrowed_by_many() {
    let count = AtomicUsize::new(0);
    let numbers: Vec<usize> = (0..100).collect();
    let sum: usize = FIBERS.scope(|scope| {
        let fibers: Vec<_> = numbers
            .iter()
            .map(|n| {
                let count = &count;
                scope.spawn(move || {
                    yield_now();
                    count.fetch_add(1, SeqCst);
                    scope.spawn(|| count.fetch_add(1, SeqCst)).join().unwrap();
                    n
                })
            })
            .collect();
        fibers.into_iter().map(|fiber| *fiber.join().unwrap()).sum()
    });
    assert_eq!((sum, count.into_inner()), (4950, 200));
}

#[test]
fn ends_after_those_that_nobody_joins() {
    let count = AtomicUsize::new(0);
    let by_fiber = FIBERS.scope(|scope| {
        let waits = || {
            sleep(Duration::from_millis(20));
            count.fetch_add(1, SeqCst);
        };
        drop(scope.spawn(waits));
        scope.spawn(waits).is_finished()
    });
    assert_eq!((by_fiber, count.into_inner()), (false, 2));
}

#[test]
fn panics_are_told_once_all_have_ended() {
    let count = AtomicUsize::new(0);
    let panics = |joined: bool| {
        let result = std::panic::catch_unwind(|| {
            FIBERS.scope(|scope| {
                let fiber = scope.spawn(|| std::panic::resume_unwind(Box::new("its own")));
                scope.spawn(|| {
                    sleep(Duration::from_millis(5));
                    count.fetch_add(1, SeqCst);
                });
                if joined {
                    let payload = fiber.join().unwrap_err().into_panic().unwrap();
                    assert_eq!(*payload.downcast::<&str>().unwrap(), "its own");
                }
            })
        });
        result.is_err()
    };
    assert!(!panics(true));
    assert!(panics(false));
    assert_eq!(count.into_inner(), 2);
}

/// A fiber inside a scope is dropped. Its drop waits for all borrowers of its stack, on this thread
/// and others.
#[test]
fn dropped_while_it_waits_for_its_scope() {
    let (sender, receiver) = async_channel::bounded::<()>(1);
    let ended = std::sync::Arc::new(AtomicUsize::new(0));
    let (its_ended, its_receiver) = (ended.clone(), receiver.clone());
    let mut fiber = Box::pin(FIBERS.fiber(move || {
        let borrowed = AtomicUsize::new(0);
        FIBERS.scope(|scope| {
            scope.spawn(|| {
                let _ = wait(its_receiver.recv());
                borrowed.store(7, SeqCst);
                its_ended.fetch_add(borrowed.load(SeqCst), SeqCst);
            });
            wait(std::future::pending::<()>());
        });
        unreachable!("it is unwound when its scope has ended");
    }));
    assert!(futures_lite::future::block_on(futures_lite::future::poll_once(&mut fiber)).is_none());
    let waker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        sender.try_send(()).unwrap();
    });
    drop(fiber);
    assert_eq!(ended.load(SeqCst), 7);
    waker.join().unwrap();
}

/// The scope's fibers may be on the same worker as the aborted fiber.
#[test]
fn aborted_while_it_waits_for_its_scope() {
    for _ in 0..200 {
        let count = std::sync::Arc::new(AtomicUsize::new(0));
        let its = count.clone();
        let parent = FIBERS.spawn(move || {
            let borrowed = [1; 8];
            FIBERS.scope(|scope| {
                for n in &borrowed {
                    let its = &its;
                    drop(scope.spawn(move || {
                        (0..10).for_each(|_| yield_now());
                        its.fetch_add(*n, SeqCst);
                    }));
                }
            });
            wait(std::future::pending::<()>());
        });
        yield_now();
        parent.abort();
        assert!(parent.join().unwrap_err().is_aborted());
        let count = count.load(SeqCst);
        assert!(count == 8 || count == 0, "{count} of 8 ended before their scope did");
    }
}

#[test]
fn from_a_local_runtime() {
    let runtime = FIBERS.local_runtime().unwrap();
    let fiber = runtime.spawn_local(|| {
        let borrowed = String::from("borrowed");
        FIBERS.scope(|scope| scope.spawn(|| borrowed.len()).join().unwrap())
    });
    assert_eq!(fiber.join().unwrap(), 8);
}
