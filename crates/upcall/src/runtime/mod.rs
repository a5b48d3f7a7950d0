//! Executors for fibers: built-in workers, and the run queue of a thread that the host drives.

mod blocking;
mod event;
mod handover;
mod local_runtime;
#[cfg(all(test, upcall_loom))]
mod model;
mod queue;
mod scope;
mod shutdown;
mod sys;
mod task;
mod timer;
mod watcher;
mod workers;

use std::panic::Location;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

pub use blocking::blocking;
pub(crate) use local_runtime::drop_at_exit;
pub use local_runtime::{LocalRuntime, LocalRuntimeError, spawn_local};
pub use scope::{Scope, ScopedJoinHandle, scope};
pub use shutdown::{Unfinished, UnfinishedFiber, shutdown};
pub use task::{JoinError, JoinHandle};

use crate::fiber::wait::{suspend, suspends};
use crate::fiber::{Builder, wait};
use crate::function::Function;
use crate::process::fork::Held;
use crate::quiet::quietly;
use crate::stack::coroutine::Polling;
use crate::thread::Hot;
use queue::Queue;
use stackbounds::stack_pointer;

/// Runs `f` as a fiber on one of upcall's workers.
///
/// ```
/// let answer = upcall::spawn(|| {
///     upcall::sleep(std::time::Duration::from_millis(1)); // the fiber sleeps, its worker does not
///     42
/// });
/// assert_eq!(answer.join().unwrap(), 42);
/// ```
///
/// The workers are started as they are needed, up to [the number configured](crate::Config::workers). They serve no signals, which
/// stay the host's. A fiber stays on the worker that began it. While it is stuck, in a blocking C call for instance, the others of its worker are too;
/// those that nobody has begun are not: within about a millisecond, another worker is there for them, of 512 at most.
///
/// After [`shutdown`], and when no thread can be started, `f` is dropped and the handle gives an error.
#[track_caller]
pub fn spawn<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    spawn_as(None, Location::caller(), f)
}

impl Builder {
    /// As [`spawn`], for a fiber with a name and stack of its own.
    ///
    /// ```
    /// let deep = upcall::Fiber::builder().stack_size(4 << 20).name("deep").spawn(|| 42);
    /// assert_eq!(deep.join().unwrap(), 42);
    /// ```
    #[track_caller]
    pub fn spawn<T: Send + 'static>(self, f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        spawn_as(Some(Box::new(self)), Location::caller(), f)
    }
}

fn spawn_as<T: Send + 'static>(
    builder: Option<Box<Builder>>,
    caller: &'static Location<'static>,
    f: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    if shutdown::is_closing() {
        return JoinHandle::refused(task::Refused::Closed);
    }
    // SAFETY: the closure and its result are `Send`.
    let (runnable, handle) = unsafe { task::new(None, builder, caller, f) };
    match workers::add(runnable) {
        Ok(()) => handle,
        Err((runnable, refused)) => {
            drop(handle);
            drop(runnable);
            JoinHandle::refused(refused)
        }
    }
}

/// Lets the other fibers of this thread run that are ready; outside a fiber, one of them, and other threads.
#[inline]
#[track_caller]
pub fn yield_now() {
    let hot = Hot::here();
    match suspends(hot, stack_pointer()) {
        Some(fiber) => {
            // SAFETY: it begins here, and stays.
            let polling = unsafe { Polling::new(fiber) };
            polling.begin().wake_by_ref();
            drop(polling);
            suspend(hot, fiber, Location::caller(), Function(|| "upcall::yield_now"));
        }
        None => {
            hot.run_meanwhile();
            std::thread::yield_now();
        }
    }
}

/// While a frame of this thread waits: its own fibers, if there is room for them below that frame. Says whether it ran one.
fn run_meanwhile() -> bool {
    let Some(queue) = Queue::own().filter(|queue| has_room_for_fibers(queue)) else { return false };
    let next = queue.pop().or_else(|| queue.take_newest());
    next.map(|runnable| quietly(|| queue.run(runnable))).is_some()
}

/// Whether the system stack has room for the C code of fibers that run inside a wait of this thread.
fn has_room_for_fibers(queue: &Queue) -> bool {
    const NEEDED: usize = 32 << 10;
    /// Runs inside each other where nobody knows how much room there is.
    const BLINDLY: usize = 8;
    let (hot, sp) = (Hot::here(), stack_pointer());
    let system_sp = hot.stack_at(sp).map_or(sp, |stack| stack.system_sp.load(Relaxed));
    match stackbounds::at(system_sp).room_below(system_sp) {
        Some(left) => left >= NEEDED,
        None => queue.depth.get() < BLINDLY,
    }
}

/// Waits for `duration`. In a fiber, only the fiber does.
///
/// One thread, started at the first use, wakes all who sleep.
#[track_caller]
pub fn sleep(duration: Duration) {
    wait(timer::Sleep::new(duration));
}

/// Takes the locks of the executors, before a fork.
pub(crate) fn hold_locks(held: &mut Vec<Held>) {
    held.push(Box::new(watcher::hold_lock()));
    held.push(Box::new(workers::lock()));
    held.push(Box::new(blocking::hold_lock()));
    held.push(Box::new(local_runtime::unused()));
    held.push(Box::new(timer::hold_lock()));
    queue::hold_locks(held);
}

/// In the child of a fork.
pub(crate) fn forget_other_threads() {
    queue::forget_others();
    workers::forget_others();
    watcher::forget_thread();
    blocking::forget_threads();
    local_runtime::forget_unused();
    timer::forget_thread();
}
