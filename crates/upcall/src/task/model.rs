//! loom's checks of the steps of `state`: who owns each part of a task's cell.
//!
//! loom runs each model in every order of the threads' steps allowed by the memory model;
//! `ci/loom.sh` runs loom.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::TaskStatus;
use super::state::{Claim, State};

/// The parts of a cell, watched by loom, and the number of uses of each.
struct Cell {
    state: State,
    /// The uses of the executor's handle: for a cancellation, and to let go of it.
    executor: UnsafeCell<Option<Uses>>,
    /// The outcome, once it is written.
    outcome: UnsafeCell<usize>,
    completions: UnsafeCell<usize>,
}

/// The uses of an executor's handle.
#[derive(Default)]
struct Uses {
    cancels: std::sync::Arc<std::sync::atomic::AtomicUsize>,
    drops: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl Cell {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            state: State::running(),
            executor: UnsafeCell::new(None),
            outcome: UnsafeCell::new(0),
            completions: UnsafeCell::new(0),
        })
    }

    fn settle(&self, step: Claim) {
        // SAFETY: loom reports an access that another thread's access comes beside.
        let take = || self.executor.with_mut(|executor| unsafe { (*executor).take() });
        let counter = match step {
            Claim::Others => return,
            Claim::ToCancel => take().expect("one owner").cancels,
            Claim::ToDrop => take().expect("one owner").drops,
        };
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn set_executor(&self, uses: Uses) {
        // SAFETY: as in `settle`.
        self.executor.with_mut(|executor| unsafe { *executor = Some(uses) });
        self.settle(self.state.set_executor());
    }

    fn end(&self) {
        // SAFETY: as in `settle`.
        self.outcome.with_mut(|outcome| unsafe { *outcome = 7 });
        let end = self.state.end(TaskStatus::Done);
        self.settle(end.executor);
        self.complete();
    }

    fn complete(&self) {
        if self.state.complete() {
            // SAFETY: as in `settle`.
            self.completions.with_mut(|completions| unsafe { *completions += 1 });
        }
    }

    fn take(&self) -> Option<usize> {
        (self.state.status() == Some(TaskStatus::Done) && self.state.take())
            // SAFETY: as in `settle`.
            .then(|| self.outcome.with_mut(|outcome| unsafe { std::mem::replace(&mut *outcome, 0) }))
    }

    fn completions(&self) -> usize {
        // SAFETY: as in `settle`.
        self.completions.with(|completions| unsafe { *completions })
    }
}

/// The executor's handle is used once, whoever comes first: the starter, a canceller, or the end.
#[test]
fn the_executors_handle_has_one_owner() {
    loom::model(|| {
        let cell = Cell::new();
        let uses = Uses::default();
        let (cancels, drops) = (uses.cancels.clone(), uses.drops.clone());
        let (canceller, ending) = (cell.clone(), cell.clone());
        let canceller = thread::spawn(move || canceller.settle(canceller.state.cancel()));
        let ending = thread::spawn(move || ending.end());
        cell.set_executor(uses);
        canceller.join().unwrap();
        ending.join().unwrap();
        let count = |uses: &std::sync::atomic::AtomicUsize| uses.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(count(&cancels) + count(&drops), 1);
        assert_eq!(cell.completions(), 1);
    });
}

/// Two cancellers and the end: one use of the handle.
#[test]
fn two_cancellers_use_the_handle_once() {
    loom::model(|| {
        let cell = Cell::new();
        let uses = Uses::default();
        let (cancels, drops) = (uses.cancels.clone(), uses.drops.clone());
        cell.set_executor(uses);
        let cancels_too = cell.clone();
        let ending = cell.clone();
        let other = thread::spawn(move || cancels_too.settle(cancels_too.state.cancel()));
        let ending = thread::spawn(move || ending.end());
        cell.settle(cell.state.cancel());
        other.join().unwrap();
        ending.join().unwrap();
        let count = |uses: &std::sync::atomic::AtomicUsize| uses.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(count(&cancels) + count(&drops), 1);
    });
}

/// The end, and a call sent to another thread: one call of the completion.
#[test]
fn the_completion_is_called_once() {
    loom::model(|| {
        let cell = Cell::new();
        let ending = cell.clone();
        let ending = thread::spawn(move || ending.end());
        cell.complete();
        ending.join().unwrap();
        assert_eq!(cell.completions(), 1);
    });
}

/// A waiter either sees the end, or the end sees the waiter.
#[test]
fn a_watcher_is_told_or_sees_the_end() {
    loom::model(|| {
        let cell = Cell::new();
        let ending = cell.clone();
        let ending = thread::spawn(move || ending.state.end(TaskStatus::Done).is_watched);
        let sees = cell.state.watch();
        assert!(ending.join().unwrap() || sees);
    });
}

/// The value goes to one of two takers, or to none before the end.
#[test]
fn the_value_is_taken_once() {
    loom::model(|| {
        let cell = Cell::new();
        let (ending, other) = (cell.clone(), cell.clone());
        let ending = thread::spawn(move || ending.end());
        let other = thread::spawn(move || other.take());
        let here = cell.take();
        ending.join().unwrap();
        let taken = [here, other.join().unwrap(), cell.take()];
        assert_eq!(taken.iter().flatten().collect::<Vec<_>>(), [&7]);
    });
}
