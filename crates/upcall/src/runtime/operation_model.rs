//! loom's checks of the steps of `operation_state`: who owns an operation's future and its memory.
//!
//! loom runs each model in every order of the threads' steps allowed by the memory model;
//! `ci/loom.sh` runs loom.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::Ordering::Relaxed;
use loom::sync::atomic::{AtomicBool, AtomicUsize};
use loom::thread;

use super::operation_state::{OperationState, Release};

/// An operation with a future, watched by loom, and what has become of it.
struct Operation {
    state: OperationState,
    /// The future: it is ready at the end of so many further polls; `None` after its drop.
    future: UnsafeCell<Option<usize>>,
    /// Set before a wake.
    data: AtomicUsize,
    /// The data seen by the last poll.
    seen: UnsafeCell<usize>,
    /// Whether the operation is ready. It orders nothing: the state does.
    is_ready: AtomicBool,
    /// Whether the memory is freed.
    is_freed: UnsafeCell<bool>,
}

impl Operation {
    fn new(polls: usize) -> Arc<Self> {
        Arc::new(Self {
            state: OperationState::new(),
            future: UnsafeCell::new(Some(polls)),
            data: AtomicUsize::new(0),
            seen: UnsafeCell::new(0),
            is_ready: AtomicBool::new(false),
            is_freed: UnsafeCell::new(false),
        })
    }

    fn schedule(&self) {
        assert!(!self.is_ready.swap(true, Relaxed), "an operation is ready once");
    }

    fn release(&self) {
        match self.state.release() {
            Release::Nothing => {}
            Release::Ready => self.schedule(),
            Release::Free => {
                // SAFETY: loom reports an access that another thread's access comes beside.
                self.future.with(|future| assert!(unsafe { (*future).is_none() }));
                // SAFETY: as above.
                let before = self.is_freed.with_mut(|freed| unsafe { std::mem::replace(&mut *freed, true) });
                assert!(!before, "the memory is freed once");
            }
        }
    }

    fn drop_future(&self) {
        // SAFETY: as in `release`.
        let future = self.future.with_mut(|future| unsafe { (*future).take() });
        assert!(future.is_some(), "the future is dropped once");
        self.release();
    }

    /// Polls the future, for its owner.
    fn poll(&self) {
        let seen = self.data.load(Relaxed);
        // SAFETY: as in `release`.
        self.seen.with_mut(|before| unsafe { *before = seen });
        // SAFETY: as in `release`.
        let polls = self.future.with_mut(|future| unsafe {
            let polls = (*future).as_mut().expect("no poll after the drop");
            *polls = polls.saturating_sub(1);
            *polls
        });
        if polls == 0 {
            self.drop_future();
        } else if self.state.wait() {
            self.schedule();
        } else {
            self.release();
        }
    }

    /// Runs the operation while it is ready.
    fn run_ready(&self) {
        while self.is_ready.swap(false, Relaxed) {
            if self.state.run() { self.drop_future() } else { self.poll() }
        }
    }

    /// Wakes by a waker, and drops it.
    fn wake(&self) {
        self.data.fetch_add(1, Relaxed);
        if self.state.wake() { self.schedule() } else { self.release() }
    }

    /// Cancels by the handle.
    fn cancel(&self) {
        if self.state.cancel() { self.schedule() } else { self.release() }
    }

    fn is_freed(&self) -> bool {
        // SAFETY: as in `release`.
        self.is_freed.with(|freed| unsafe { *freed })
    }
}

/// Runs `f` with the operation on another thread.
fn spawn(operation: &Arc<Operation>, f: fn(&Operation)) -> thread::JoinHandle<()> {
    let operation = operation.clone();
    thread::spawn(move || f(&operation))
}

#[test]
fn what_was_done_before_a_wake_is_seen_by_a_later_poll() {
    loom::model(|| {
        let operation = Operation::new(usize::MAX);
        // The references of the handle and of two wakers.
        (0..3).for_each(|_| operation.state.acquire());
        let wakers = [(); 2].map(|()| spawn(&operation, Operation::wake));
        operation.poll();
        operation.run_ready();
        wakers.into_iter().for_each(|waker| waker.join().unwrap());
        operation.run_ready();
        // SAFETY: as in `release`.
        assert_eq!(operation.seen.with(|seen| unsafe { *seen }), 2);
        operation.cancel();
        operation.run_ready();
        assert!(operation.is_freed());
    });
}

#[test]
fn a_cancelled_operation_is_dropped_and_freed_once() {
    for polls in [1, 2] {
        loom::model(move || {
            let operation = Operation::new(polls);
            (0..2).for_each(|_| operation.state.acquire());
            let waker = spawn(&operation, Operation::wake);
            // Its home may be another thread than the first poller's.
            let canceller = spawn(&operation, |operation| {
                operation.cancel();
                operation.run_ready();
            });
            operation.poll();
            operation.run_ready();
            waker.join().unwrap();
            canceller.join().unwrap();
            operation.run_ready();
            assert!(operation.is_freed());
        });
    }
}

#[test]
fn an_operation_that_nobody_can_wake_is_dropped_by_its_home() {
    loom::model(|| {
        let operation = Operation::new(usize::MAX);
        (0..2).for_each(|_| operation.state.acquire());
        let others = [(); 2].map(|()| spawn(&operation, Operation::release));
        operation.poll();
        operation.run_ready();
        others.into_iter().for_each(|other| other.join().unwrap());
        operation.run_ready();
        assert!(operation.is_freed());
    });
}
