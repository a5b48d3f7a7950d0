//! Shutdown: the end of the worker threads.

use std::fmt;
use std::panic::Location;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::blocking;
use super::watcher;
use super::workers::{self, State, TURNED_IDLE, Workers};
use crate::fiber::blocked::around_block;
use crate::process::fork;

/// The time for the workers to drop their operations when `shutdown` has run out of time.
const END_OF_OPERATIONS: Duration = Duration::from_millis(100);

static CLOSING: AtomicBool = AtomicBool::new(false);

/// Whether nothing is to be spawned any more.
#[inline]
pub(crate) fn is_closing() -> bool {
    CLOSING.load(Relaxed)
}

/// Ends the worker threads, after giving their fibers and tasks until `timeout` to end.
///
/// Tasks that run out of time are ended: their futures are dropped, where they wait. Fibers are
/// not: their stacks may have frames of C.
///
/// From the call on, nothing is spawned any more. When the existing fibers have ended, the threads
/// are ended and joined. Afterwards,
/// - [`spawn`](crate::Fibers::spawn) returns handles whose [`join`](crate::JoinHandle::join) is an
///   error,
/// - [`start`](crate::start) is an error, except on a `LocalRuntime`,
/// - [`blocking`](crate::blocking) runs its closure on the calling thread,
/// - everything else works as before: upcalls, waits, fibers, and
///   [`LocalRuntime`](crate::LocalRuntime), ended by its own thread.
///
/// ```no_run
/// if let Err(unfinished) = upcall::shutdown(std::time::Duration::from_secs(5)) {
///     eprintln!("{unfinished}"); // which fibers, and where they wait
/// }
/// ```
///
/// # Errors
/// If fibers or blocking calls have not ended by then. Fibers waiting for a fiber of the calling
/// thread are among them, since that one does not run meanwhile. Unfinished fibers continue, the
/// workers stay, and `shutdown` may be called again. A fiber that calls `shutdown` cannot end
/// meanwhile, and is found unfinished.
///
/// # Panics
/// In a copy of the process made by `_Fork` or `clone` (not by `fork`), unless no other thread had
/// used upcall.
pub fn shutdown(timeout: Duration) -> Result<(), Unfinished> {
    if fork::is_untold() {
        fork::panic_untold();
    }
    around_block(|| shut_down(timeout))
}

fn shut_down(timeout: Duration) -> Result<(), Unfinished> {
    CLOSING.store(true, Relaxed);
    let mut deadline = Instant::now().checked_add(timeout);
    let mut ends_operations = false;
    let mut workers = workers::lock();
    if workers.state == State::Open {
        workers.state = State::Closing;
    }
    while !workers.are_done() {
        let remaining = remaining_until(deadline);
        if !remaining.is_zero() {
            workers = workers.wait_for(&TURNED_IDLE, remaining).0;
        } else if !ends_operations && workers.all.iter().any(|worker| worker.queue.has_operations()) {
            // Unlike a fiber, an operation can be dropped at once, wherever it waits.
            workers.all.iter().for_each(|worker| worker.queue.end_operations());
            ends_operations = true;
            deadline = Instant::now().checked_add(END_OF_OPERATIONS);
        } else {
            return Err(Unfinished::of(&workers));
        }
    }
    workers.state = State::Closed;
    // Simultaneous callers also wait here for the threads' ends.
    while workers.ending {
        workers = workers.wait_for(&TURNED_IDLE, Duration::MAX).0;
    }
    workers.ending = true;
    let all = std::mem::take(&mut workers.all);
    drop(workers);
    for worker in &all {
        worker.queue.unpark();
    }
    for worker in all {
        // A worker does not panic.
        let _ = worker.handle.join();
    }
    watcher::end();
    let mut workers = workers::lock();
    while workers.leaving != 0 {
        workers = workers.wait_for(&TURNED_IDLE, Duration::MAX).0;
    }
    workers.ending = false;
    drop(workers);
    TURNED_IDLE.notify_all();
    let blocking_calls = blocking::shutdown(deadline);
    #[cfg(feature = "tokio")]
    crate::fiber::tokio_runtime::shut_down(remaining_until(deadline));
    match blocking_calls {
        0 => Ok(()),
        blocking_calls => Err(Unfinished { fibers: Vec::new(), blocking_calls }),
    }
}

/// The time until `deadline`; without one, the longest `Duration`.
pub(super) fn remaining_until(deadline: Option<Instant>) -> Duration {
    deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()))
}

/// The unfinished work when [`shutdown`] ran out of time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Unfinished {
    /// The unfinished fibers.
    pub fibers: Vec<UnfinishedFiber>,
    /// The number of threads in calls of [`blocking`](crate::blocking), if no fiber remains.
    pub blocking_calls: usize,
}

/// An unfinished fiber, for [`Unfinished`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UnfinishedFiber {
    /// Its name, if it has one and has waited.
    pub name: Option<String>,
    /// The worker that began it, by the name of its thread; `None` if it has not begun.
    pub worker: Option<String>,
    /// Where it was spawned; `None` for a fiber just being begun.
    pub spawned_at: Option<&'static Location<'static>>,
    /// Where it waits; `None` if it runs or has not begun.
    pub waits_at: Option<&'static Location<'static>>,
}

impl Unfinished {
    fn of(workers: &Workers) -> Self {
        let mut fibers = Vec::new();
        for worker in &workers.all {
            let on = Some(&worker.name);
            let mut runs = worker.queue.runs();
            worker.queue.for_each_fiber(|fiber| {
                let (name, waits_at) = (fiber.name.as_deref(), fiber.waits_at());
                if waits_at.is_none() {
                    runs = None;
                }
                fibers.push(UnfinishedFiber::new(name, on, fiber.executor.spawned_at.get(), waits_at));
            });
            // A fiber that has never waited is not in the list.
            fibers.extend(runs.map(|at| UnfinishedFiber::new(None, on, Some(at), None)));
        }
        let not_begun = workers.waiting().map(|runnable| runnable.metadata().spawned_at);
        fibers.extend(not_begun.map(|at| UnfinishedFiber::new(None, None, Some(at), None)));
        if fibers.is_empty() {
            // A worker is just about to begin a fiber, or has just ended one.
            let busy = workers.all.iter().filter(|worker| !workers.is_idle(worker.queue));
            fibers.extend(busy.map(|worker| UnfinishedFiber::new(None, Some(&worker.name), None, None)));
        }
        Unfinished { fibers, blocking_calls: 0 }
    }
}

impl UnfinishedFiber {
    fn new(
        name: Option<&str>,
        worker: Option<&String>,
        spawned_at: Option<&'static Location<'static>>,
        waits_at: Option<&'static Location<'static>>,
    ) -> Self {
        Self { name: name.map(str::to_owned), worker: worker.cloned(), spawned_at, waits_at }
    }
}

impl fmt::Display for Unfinished {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (fibers, calls) = (self.fibers.len(), self.blocking_calls);
        write!(out, "shutdown ran out of time: ")?;
        match (fibers, calls) {
            (0, 1) => write!(out, "a blocking call has not returned")?,
            (0, calls) => write!(out, "{calls} blocking calls have not returned")?,
            (1, _) => write!(out, "a fiber has not ended")?,
            (fibers, _) => write!(out, "{fibers} fibers have not ended")?,
        }
        for fiber in &self.fibers {
            let name = fiber.name.as_deref().unwrap_or("unnamed");
            write!(out, "\n  {name}, ")?;
            if let Some(at) = fiber.spawned_at {
                write!(out, "spawned at {at}, ")?;
            }
            match (&fiber.worker, fiber.waits_at) {
                (Some(worker), Some(at)) => write!(out, "waits at {at} on {worker}")?,
                (Some(worker), None) => write!(out, "runs on {worker}")?,
                (None, _) => write!(out, "has not begun")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Unfinished {}
