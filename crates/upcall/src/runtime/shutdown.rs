//! The end of the workers.

use std::fmt;
use std::panic::Location;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::blocking;
use super::watcher;
use super::workers::{self, State, TURNED_IDLE, Workers};

static CLOSING: AtomicBool = AtomicBool::new(false);

/// Whether nothing is to be spawned any more.
#[inline]
pub(super) fn is_closing() -> bool {
    CLOSING.load(Relaxed)
}

/// Ends the worker threads: nothing is spawned any more, from the call on; the fibers that there are have until `timeout` to end; then the
/// threads are ended and joined.
///
/// Afterwards [`spawn`](crate::spawn) gives handles whose [`join`](crate::JoinHandle::join) is an error, [`blocking`](crate::blocking) runs
/// where it is called, and all that needs no worker works as before: upcalls, waits, fibers, [`LocalRuntime`](crate::LocalRuntime), which its thread ends.
///
/// ```no_run
/// if let Err(unfinished) = upcall::shutdown(std::time::Duration::from_secs(5)) {
///     eprintln!("{unfinished}"); // which fibers, and where they wait
/// }
/// ```
///
/// # Errors
/// When fibers or blocking calls have not ended by then, those among them that wait for a fiber of the calling thread: that one does not
/// run meanwhile. They go on; the workers stay, and `shutdown` may be called again. A fiber that calls it cannot end meanwhile, and is
/// found unfinished.
pub fn shutdown(timeout: Duration) -> Result<(), Unfinished> {
    CLOSING.store(true, Relaxed);
    let deadline = Instant::now().checked_add(timeout);
    let mut workers = workers::lock();
    if workers.state == State::Open {
        workers.state = State::Closing;
    }
    while !workers.are_done() {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(Unfinished::of(&workers));
        }
        let left = left.unwrap_or(Duration::MAX);
        workers = TURNED_IDLE.wait_timeout(workers, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    workers.state = State::Closed;
    // Whoever calls at the same time waits here for the threads' ends too.
    while workers.ending {
        workers = TURNED_IDLE.wait(workers).unwrap_or_else(PoisonError::into_inner);
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
    workers::lock().ending = false;
    TURNED_IDLE.notify_all();
    let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
    match blocking::shutdown(left) {
        0 => Ok(()),
        blocking_calls => Err(Unfinished { fibers: Vec::new(), blocking_calls }),
    }
}

/// What had not ended when [`shutdown`] ran out of time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Unfinished {
    /// The fibers.
    pub fibers: Vec<UnfinishedFiber>,
    /// How many threads are in calls of [`blocking`](crate::blocking), if no fiber is left.
    pub blocking_calls: usize,
}

/// A fiber that had not ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UnfinishedFiber {
    /// Its name, if it has one and has waited.
    pub name: Option<String>,
    /// The worker that began it, by the name of its thread.
    pub worker: Option<String>,
    /// Where it was spawned, if that is known: not of one that is just being begun.
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
            // One that has never waited is not listed.
            fibers.extend(runs.map(|at| UnfinishedFiber::new(None, on, Some(at), None)));
        }
        let not_begun = workers.waiting().map(|runnable| runnable.metadata().spawned_at);
        fibers.extend(not_begun.map(|at| UnfinishedFiber::new(None, None, Some(at), None)));
        if fibers.is_empty() {
            // Some worker is just about to begin one, or has just ended one.
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
