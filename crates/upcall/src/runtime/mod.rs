//! Executors for fibers and operations: the built-in workers, and the run queue of a thread driven
//! by the host.

mod behind;
mod blocking;
mod hooks;
mod listed;
mod local_runtime;
mod mailbox;
#[cfg(all(test, upcall_loom))]
mod model;
mod newest;
pub(crate) mod operation;
mod operation_memory;
#[cfg(all(test, upcall_loom))]
mod operation_model;
mod operation_state;
mod queue;
mod runnable;
mod scope;
mod shutdown;
mod spawned;
mod tame_waker;
mod timer;
mod watcher;
mod worker;
mod workers;

use std::panic::Location;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

pub use blocking::blocking;
pub(crate) use local_runtime::drop_at_exit;
pub use local_runtime::{LocalRuntime, LocalRuntimeError, LocalRuntimeHandle};
pub use scope::{Scope, ScopedJoinHandle};
pub(crate) use shutdown::is_closing;
pub use shutdown::{Unfinished, UnfinishedFiber, shutdown};
pub(crate) use spawned::Refused;
pub use spawned::{JoinError, JoinHandle};
pub use timer::{Elapsed, Timer, timeout, timer};

use crate::coroutine::Polling;
use crate::drop_guards::drop_ignoring_panics;
use crate::fiber::initialiser;
use crate::fiber::wait::{self, suspend, suspends, wait_for_ours};
use crate::fiber::{Builder, Fibers};
use crate::function::Function;
use crate::sync::{Whose, Word, in_own_code};
use crate::thread::{ThreadState, waker};
use queue::Queue;
use stackbounds::stack_pointer;

impl Fibers {
    /// Runs `f` as a fiber on one of upcall's workers.
    ///
    /// ```
    /// # const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
    /// let answer = FIBERS.spawn(|| {
    ///     // The fiber sleeps, its worker does not.
    ///     upcall::sleep(std::time::Duration::from_millis(1));
    ///     42
    /// });
    /// assert_eq!(answer.join().unwrap(), 42);
    /// ```
    ///
    /// Workers are started as needed, up to [the number configured](crate::Config::workers). To
    /// signals they are threads like any other, with the signal mask of the thread that started the
    /// first one.
    ///
    /// A fiber stays on the worker that began it. A fiber stuck in a blocking C call, or computing
    /// without waits, holds up the other fibers begun on its worker. A new fiber therefore begins
    /// on an idle worker, if there is one, unless its spawner joins it at once. Fibers not yet
    /// begun are not held up: within about a millisecond, another worker begins them. There are at
    /// most 512 workers.
    ///
    /// After [`shutdown`], or if no thread can be started, `f` is dropped and joining the handle is
    /// an error. The same goes for a signal handler that has interrupted `spawn` itself.
    #[track_caller]
    pub fn spawn<T: Send + 'static>(self, f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        spawn_as(None, Location::caller(), f)
    }
}

impl Builder {
    /// Runs `f` as a fiber like [`Fibers::spawn`], with a name and a stack size of its own.
    ///
    /// ```
    /// # const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
    /// let deep = FIBERS.builder().stack_size(4 << 20).name("deep").spawn(|| 42);
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
    if is_closing() {
        return JoinHandle::refused(Refused::Closed);
    }
    if in_own_code() {
        return JoinHandle::refused(Refused::Interrupts);
    }
    // SAFETY: this function's bounds make the closure and its result `Send`.
    let (runnable, handle) = unsafe { spawned::new(None, builder, caller, f) };
    match workers::add(runnable) {
        Ok(()) => handle,
        Err((runnable, refused)) => {
            drop(handle);
            drop(runnable);
            JoinHandle::refused(refused)
        }
    }
}

/// Lets other ready fibers of this thread run. Outside a fiber, runs one of them, and lets other
/// threads run.
#[inline]
#[track_caller]
pub fn yield_now() {
    let (thread, sp) = (ThreadState::current(), stack_pointer());
    let caller = Location::caller();
    match suspends(thread, sp) {
        Some(fiber) if initialiser::suspends_inside(fiber, caller, sp) => std::thread::yield_now(),
        Some(fiber) => {
            // SAFETY: `begin` is called on this variable, before the coroutine is suspended and
            // with this function's SP. The variable does not move until its drop.
            let polling = unsafe { Polling::new(fiber) };
            waker::catching(|| polling.begin(sp).wake_by_ref());
            drop(polling);
            suspend(thread, fiber, caller, Function(|| "upcall::yield_now"));
        }
        None => {
            if thread.nested_executor().is_some() && initialiser::blocks_inside(caller, sp).is_none() {
                let slept = thread.sleeps();
                wait::run_nested(thread);
                thread.set_sleeps(slept);
            }
            std::thread::yield_now();
        }
    }
}

/// Runs one of this thread's fibers while a frame of the thread waits; returns whether it did.
///
/// Runs none without enough room below that frame. If none is ready, the thread counts as sleeping
/// from now on.
fn run_one() -> bool {
    let Some(queue) = Queue::own() else { return false };
    worker::worker_blocks(queue);
    if !has_room_for_fibers(queue) {
        return false;
    }
    let thread = ThreadState::current();
    thread.set_sleeps(true);
    let Some(runnable) = queue.pop().or_else(|| queue.take_newest()) else { return false };
    thread.set_sleeps(false);
    drop_ignoring_panics(|| queue.run(runnable));
    true
}

/// Whether the system stack has room for C code called by fibers inside a wait of this thread.
fn has_room_for_fibers(queue: &Queue) -> bool {
    const NEEDED: usize = 32 << 10;
    /// The number of nested runs, where the remaining room is unknown.
    const BLINDLY: usize = 8;
    let (thread, sp) = (ThreadState::current(), stack_pointer());
    let system_sp = thread.stack_at(sp).map_or(sp, |stack| stack.system_sp.load(Relaxed));
    match stackbounds::at(system_sp).room_below(system_sp) {
        Some(remaining) => remaining >= NEEDED,
        None => queue.depth() < BLINDLY,
    }
}

/// Waits for `duration`. In a fiber, only the fiber waits.
///
/// One thread, started at the first use, wakes all sleepers.
#[track_caller]
pub fn sleep(duration: Duration) {
    wait_for_ours(timer(duration));
}

/// Calls `visit` with the executors' locks, for forks.
pub(crate) fn each_lock(visit: &mut dyn FnMut(&'static Word, Whose)) {
    visit(watcher::lock_word(), Whose::All);
    visit(workers::lock_word(), Whose::All);
    visit(blocking::lock_word(), Whose::All);
    visit(local_runtime::lock_word(), Whose::All);
    visit(timer::lock_word(), Whose::All);
    queue::each_lock(visit);
}

/// Whether none of our threads runs, except for workers: those are attached.
pub(crate) fn has_no_threads() -> bool {
    !watcher::has_thread() && !blocking::has_threads() && !timer::has_thread()
}

/// The calling thread's queue, for [`forget_other_threads`].
pub(crate) fn own_queue() -> *const () {
    Queue::own().map_or(std::ptr::null(), |queue| std::ptr::from_ref(queue).cast())
}

/// In the child of a fork: forgets all threads except the calling one, the owner of `own`.
pub(crate) fn forget_other_threads(own: *const ()) {
    // SAFETY: null, or from `own_queue`, and queues are never freed.
    let own = unsafe { own.cast::<Queue>().as_ref() };
    queue::forget_others(own);
    workers::forget_others(own);
    watcher::forget_thread();
    blocking::forget_threads();
    local_runtime::forget_unused();
    timer::forget_thread();
}

/// In the child of a fork, on the thread that forked: starts the timers' thread anew, and wakes the
/// thread's fibers.
pub(crate) fn look_again() {
    timer::renew_thread();
    queue::look_again();
}
