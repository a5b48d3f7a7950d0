//! Tasks: asynchronous operations started by C, with one completion each.
//!
//! ```text
//! start ── takes a place (`limit`), wraps the future (`run`), and polls it once
//!   ├──── ready: makes the cell and its handle (`cell`), and calls the completion (`completion`)
//!   └──── not: the poll makes them; a worker, the thread's `LocalRuntime` or tokio goes on with it
//!              (`executor`)
//!
//! the end: value, error, panic, deadline ─┐ `Run` drops the operation, then ends the cell:
//!          cancelled, executor gone ──────┘ status and outcome, watchers (`watchers`), completion
//! ```
//!
//! Rule: **the operation's own future makes its end**, in a poll or in its drop. So there is
//! exactly one end, and nothing of the operation runs after it. A cancellation only asks the
//! executor to drop the future. The steps of different threads are in `state`.

mod cell;
mod completion;
mod error;
mod executor;
mod limit;
#[cfg(all(test, upcall_loom))]
mod model;
mod parts;
mod run;
mod state;
pub(crate) mod watchers;

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::os::fd::RawFd;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
#[cfg(feature = "tokio")]
use std::task::{Context, Waker};
use std::time::Duration;

use cell::{Outcome, Seed, TaskCell, TaskHandle};
pub use completion::{Completion, CompletionFn};
pub use error::{StartError, TaskError};
use executor::Executor;
use parts::{AnyParts, Parts};
pub use parts::{NobodyTakes, PartSender};
use run::{Fallible, Limited, Run, Starting};
use watchers::Waiter;

#[cfg(feature = "tokio")]
use crate::fiber::tokio_runtime;
use crate::fiber::wait::wait_for_ours;
use crate::handle::{HandleError, table};
use crate::runtime::operation::{self, FirstPoll, LocalHome, Operation};
use crate::runtime::{Timer, is_closing, timer};
use crate::sync::in_own_code;

/// A task, as C has it: an opaque type behind the pointer returned by [`start`].
///
/// The pointer is a number, like that of a [`Handle`](crate::Handle): a null, stale or foreign one
/// is an error. C has the functions `task_wait`, `task_status`, `task_cancel`, `task_free`,
/// `task_fd` and `task_next` of [`c_api!`](crate::c_api). They work for all tasks of a library.
/// The value of a task has a type, so its author writes the function that takes it:
///
/// ```
/// use std::ffi::c_int;
/// use upcall::Task;
///
/// /// Writes the length to `length`. Returns 0; -1 if the task has none, with a message.
/// ///
/// /// # Safety
/// /// `length` is valid for writing.
/// #[upcall::export(on_panic = -1)]
/// #[unsafe(no_mangle)]
/// pub unsafe extern "C" fn geo_lookup_result(task: *mut Task, length: *mut usize) -> c_int {
///     let value = Task::take::<usize>(task).unwrap();
///     // SAFETY: the caller guarantees that `length` is valid for writing.
///     unsafe { length.write(value) };
///     0
/// }
/// ```
///
/// This type has no values.
pub struct Task(Never);

enum Never {}

impl fmt::Debug for Task {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

/// The state of a task: running, or the kind of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
#[non_exhaustive]
pub enum TaskStatus {
    /// The operation has not ended.
    Running = 0,
    /// It ended with a value.
    Done = 1,
    /// It ended with an error.
    Failed = 2,
    /// It panicked.
    Panicked = 3,
    /// It was cancelled, and its future dropped.
    Cancelled = 4,
    /// Its deadline came first, and its future was dropped.
    DeadlineExceeded = 5,
    /// Its future was dropped by the end of its executor: a [`shutdown`](crate::shutdown), or the
    /// end of its [`LocalRuntime`](crate::LocalRuntime). In the child of a fork, only the parent
    /// runs it.
    Lost = 6,
}

impl TaskStatus {
    fn of(number: usize) -> Self {
        const ALL: [TaskStatus; 7] = [
            TaskStatus::Running,
            TaskStatus::Done,
            TaskStatus::Failed,
            TaskStatus::Panicked,
            TaskStatus::Cancelled,
            TaskStatus::DeadlineExceeded,
            TaskStatus::Lost,
        ];
        ALL[number]
    }
}

/// Starts an asynchronous operation for C, and returns C's handle of it.
///
/// The operation is polled at once, on the calling thread, until it first waits. If it is ready by
/// then, its completion is called before `start` returns. Otherwise it goes on without the caller:
/// on tokio with the feature `tokio`, on one of upcall's workers without it. No fiber is made for
/// it, so no promise of [`Fibers`](crate::Fibers) is needed.
///
/// ```
/// use std::sync::mpsc::channel;
/// use upcall::{Completion, Task, TaskStatus};
///
/// let (sender, receiver) = channel();
/// let done = Completion::call(move |_, status| sender.send(status).unwrap());
/// let operation = async {
///     upcall::timer(std::time::Duration::from_millis(1)).await;
///     Ok::<_, std::io::Error>(42)
/// };
/// let task = upcall::start(operation, done)?;
/// assert_eq!(receiver.recv()?, TaskStatus::Done);
/// assert_eq!(Task::take::<i32>(task)?, 42);
/// Task::free(task, false)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The handle stays until [`Task::free`], C's `task_free`. [`TaskBuilder`] has options: a deadline,
/// the executor, and waiting where too many tasks run.
///
/// An operation that computes for long, or blocks, holds up others on its worker. A wait by
/// [`wait`](crate::wait) inside its poll blocks the worker; operations use `.await`.
///
/// # Errors
/// See [`StartError`]. The future has been dropped then, and the completion is not called.
#[track_caller]
pub fn start<T, E>(
    operation: impl Future<Output = Result<T, E>> + Send + 'static,
    completion: Completion,
) -> Result<*mut Task, StartError>
where
    T: Any + Send,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    TaskBuilder::new().start(operation, completion)
}

/// Options for a task.
///
/// ```
/// use std::time::Duration;
/// use upcall::{Completion, Task, TaskBuilder, TaskStatus};
///
/// let never = std::future::pending::<Result<(), std::io::Error>>(); let task =
/// TaskBuilder::new().deadline(Duration::from_millis(1)).start(never, Completion::none())?;
/// assert_eq!(Task::wait(task, None)?, TaskStatus::DeadlineExceeded); Task::free(task, false)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "it starts nothing by itself"]
pub struct TaskBuilder {
    deadline: Option<Duration>,
    later: bool,
    waits: bool,
    #[cfg_attr(not(feature = "tokio"), allow(dead_code, reason = "there are no others"))]
    on_workers: bool,
}

impl TaskBuilder {
    /// A builder without any option.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the operation after `duration`, as [`TaskStatus::DeadlineExceeded`].
    ///
    /// A `duration` beyond the clock's range, such as `Duration::MAX`, is no deadline.
    pub fn deadline(mut self, duration: Duration) -> Self {
        self.deadline = Some(duration);
        self
    }

    /// Leaves the first poll to the executor.
    ///
    /// So `start` runs nothing of the operation, and calls no completion.
    pub fn later(mut self) -> Self {
        self.later = true;
        self
    }

    /// Runs the operation on upcall's workers, also with the feature `tokio`.
    ///
    /// Futures of tokio work there, too: each poll is in the context of a runtime.
    pub fn on_workers(mut self) -> Self {
        self.on_workers = true;
        self
    }

    /// Waits, as [`wait`](crate::wait) does, while as many tasks run as
    /// [`Config::running_tasks`](crate::Config::running_tasks) allows. Otherwise that is an error.
    pub fn wait_for_place(mut self) -> Self {
        self.waits = true;
        self
    }

    /// Starts an operation like [`start`](crate::start).
    ///
    /// # Errors
    /// See [`StartError`].
    ///
    /// # Panics
    /// If no handle is free. With [`wait_for_place`](Self::wait_for_place), like
    /// [`wait`](crate::wait).
    #[track_caller]
    pub fn start<T, E>(
        self,
        operation: impl Future<Output = Result<T, E>> + Send + 'static,
        completion: Completion,
    ) -> Result<*mut Task, StartError>
    where
        T: Any + Send,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.send(operation, completion, None)
    }

    /// Starts an operation whose result comes in parts, through a queue for `capacity` parts.
    ///
    /// `operation` gets the sender. [`Task::next_part`] takes the parts, in order.
    ///
    /// ```
    /// use upcall::{Completion, PartSender, Task, TaskBuilder};
    ///
    /// let rows = |mut sender: PartSender<u32>| async move {
    ///     for row in 0..1000 {
    ///         sender.send(row).await?;
    ///     }
    ///     Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    /// };
    /// let task = TaskBuilder::new().start_parts(16, rows, Completion::none())?;
    /// let mut sum = 0;
    /// while let Some(row) = Task::next_part::<u32>(task, None)? {
    ///     sum += row;
    /// }
    /// assert_eq!(sum, 499_500);
    /// Task::free(task, false)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// See [`StartError`].
    ///
    /// # Panics
    /// Like [`start`](Self::start).
    #[track_caller]
    pub fn start_parts<P, T, E, F>(
        self,
        capacity: usize,
        operation: impl FnOnce(PartSender<P>) -> F,
        completion: Completion,
    ) -> Result<*mut Task, StartError>
    where
        P: Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Any + Send,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let (parts, sender) = Parts::new(capacity);
        self.send(operation(sender), completion, Some(parts))
    }

    /// Starts an operation on the calling thread's [`LocalRuntime`](crate::LocalRuntime). It need
    /// not be `Send`.
    ///
    /// # Errors
    /// See [`StartError`]; [`NoRuntime`](StartError::NoRuntime) without such a runtime.
    ///
    /// # Panics
    /// Like [`start`](Self::start).
    #[track_caller]
    pub fn start_local<T, E>(
        self,
        operation: impl Future<Output = Result<T, E>> + 'static,
        completion: Completion,
    ) -> Result<*mut Task, StartError>
    where
        T: Any + Send,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let home = LocalHome::own().ok_or(StartError::NoRuntime)?;
        let started_at = Location::caller();
        let seed = self.seed(completion, Some(home), None)?;
        match self.timer() {
            None => self.begin_local(started_at, seed, Fallible(operation)),
            Some(timer) => {
                self.begin_local(started_at, seed, Limited { operation: Fallible(operation), timer })
            }
        }
    }

    /// Starts an operation on the workers, or on tokio.
    #[track_caller]
    fn send<T, E>(
        self,
        operation: impl Future<Output = Result<T, E>> + Send + 'static,
        completion: Completion,
        parts: Option<Arc<dyn AnyParts>>,
    ) -> Result<*mut Task, StartError>
    where
        T: Any + Send,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let started_at = Location::caller();
        let seed = self.seed(completion, None, parts)?;
        match self.timer() {
            None => self.begin_sent(started_at, seed, Fallible(operation)),
            Some(timer) => {
                self.begin_sent(started_at, seed, Limited { operation: Fallible(operation), timer })
            }
        }
    }

    fn begin_local<F: Future<Output = Outcome> + 'static>(
        &self,
        started_at: &'static Location<'static>,
        seed: Seed,
        operation: F,
    ) -> Result<*mut Task, StartError> {
        let spawn = |run: Run<F>| {
            operation::local(started_at, run).expect("upcall: the thread has a LocalRuntime, as was checked")
        };
        self.begin(seed, operation, spawn)
    }

    fn begin_sent<F: Future<Output = Outcome> + Send + 'static>(
        &self,
        started_at: &'static Location<'static>,
        seed: Seed,
        operation: F,
    ) -> Result<*mut Task, StartError> {
        #[cfg(feature = "tokio")]
        if let Some(handle) = if self.on_workers { None } else { tokio_runtime::for_tasks() } {
            return Ok(self.begin_on_tokio(&handle, seed, operation));
        }
        self.begin(seed, operation, |run| operation::sent(started_at, run))
    }

    /// Makes the first poll of an operation, or leaves it to the executor.
    fn begin<F>(
        &self,
        seed: Seed,
        operation: F,
        spawn: impl FnOnce(Run<F>) -> (FirstPoll, Operation),
    ) -> Result<*mut Task, StartError> {
        if self.later {
            let cell = seed.running();
            let (poll, operation) = spawn(Run::started(cell.clone(), operation));
            cell.set_executor(Executor::Ours(operation));
            if let Err((poll, refused)) = poll.later() {
                // The caller gets an error, so nobody else is told.
                cell.state().complete();
                drop(poll);
                let _ = Task::free(cell.handle(), false);
                return Err(refused.into());
            }
            return Ok(cell.handle());
        }
        let mut starting = Starting::new(seed);
        // SAFETY: the poll is made here, and has returned before the next use of `starting`.
        let (poll, operation) = spawn(unsafe { Run::starting(&mut starting, operation) });
        poll.now();
        let (cell, has_ended) = starting.cell();
        if has_ended {
            operation.detach();
            cell.deliver();
        } else {
            cell.set_executor(Executor::Ours(operation));
        }
        Ok(cell.handle())
    }

    /// Polls an operation once, unless it begins later, and gives it to tokio if it is not ready.
    ///
    /// tokio polls it again with a waker of its own, so the first poll needs none.
    #[cfg(feature = "tokio")]
    fn begin_on_tokio<F: Future<Output = Outcome> + Send + 'static>(
        &self,
        handle: &tokio::runtime::Handle,
        seed: Seed,
        operation: F,
    ) -> *mut Task {
        let spawn = |cell: &Arc<TaskCell>, run: Pin<Box<Run<F>>>| {
            let started = handle.spawn(run);
            cell.set_executor(Executor::Tokio(started.abort_handle()));
        };
        if self.later {
            let cell = seed.running();
            spawn(&cell, Box::pin(Run::started(cell.clone(), operation)));
            return cell.handle();
        }
        let mut starting = Starting::new(seed);
        // SAFETY: the poll is made here, and has returned before the next use of `starting`.
        let mut run = Box::pin(unsafe { Run::starting(&mut starting, operation) });
        let _ = run.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let (cell, has_ended) = starting.cell();
        if has_ended {
            drop(run);
            cell.deliver();
        } else {
            spawn(&cell, run);
        }
        cell.handle()
    }

    fn timer(&self) -> Option<Timer> {
        self.deadline.map(timer)
    }

    /// Takes a place among the running tasks.
    #[track_caller]
    fn seed(
        &self,
        completion: Completion,
        local: Option<LocalHome>,
        parts: Option<Arc<dyn AnyParts>>,
    ) -> Result<Seed, StartError> {
        if in_own_code() {
            return Err(StartError::Interrupts);
        }
        if local.is_none() && is_closing() {
            return Err(StartError::ShutDown);
        }
        let place = match limit::take() {
            Ok(place) => place,
            Err(_) if self.waits => wait_for_ours(limit::wait()),
            Err(limit) => return Err(StartError::TooMany { limit }),
        };
        Ok(Seed { completion, local, parts, place })
    }
}

impl Task {
    /// Calls `f` with the cell behind a handle.
    fn with<R>(task: *mut Self, f: impl FnOnce(&TaskCell) -> R) -> Result<R, HandleError> {
        table::with_owner::<TaskHandle, R>(task.addr(), |cell| {
            // SAFETY: the cell stays during the call, and is `Sync`.
            let cell = unsafe { cell.as_ref() };
            cell.complete_if_forked();
            f(cell)
        })
    }

    /// A share of the cell behind a handle.
    fn cell(task: *mut Self) -> Result<Arc<TaskCell>, HandleError> {
        let cell = table::with_owner::<TaskHandle, _>(task.addr(), |cell| {
            // SAFETY: the pointer is that of the table's `Arc`, which stays during the call.
            unsafe {
                Arc::increment_strong_count(cell.as_ptr());
                Arc::from_raw(cell.as_ptr())
            }
        })?;
        cell.complete_if_forked();
        Ok(cell)
    }

    /// The status of a task.
    ///
    /// # Errors
    /// If `task` is no handle of a task.
    pub fn status(task: *mut Self) -> Result<TaskStatus, HandleError> {
        Self::with(task, TaskCell::status)
    }

    /// Waits until a task has ended, for `timeout` at most, and returns its status.
    ///
    /// The status is [`Running`](TaskStatus::Running) if time runs out; without a `timeout`, it
    /// never does. Like [`wait`](crate::wait), this suspends a fiber and blocks any other caller.
    ///
    /// This may return before the call of the task's completion has begun, or while it runs.
    ///
    /// # Errors
    /// If `task` is no handle of a task.
    ///
    /// # Panics
    /// Like [`wait`](crate::wait).
    #[track_caller]
    pub fn wait(task: *mut Self, timeout: Option<Duration>) -> Result<TaskStatus, HandleError> {
        let cell = Self::cell(task)?;
        wait_until(&cell, timeout, || cell.has_ended().then_some(()));
        watchers::settle(&cell, || cell.has_ended());
        cell.complete_if_forked();
        Ok(cell.status())
    }

    /// Asks for the end of a task: its future is dropped, at a point where it waits.
    ///
    /// This returns at once. The task ends as [`Cancelled`](TaskStatus::Cancelled), unless it has
    /// another end before that. A task that has ended stays as it is.
    ///
    /// # Errors
    /// If `task` is no handle of a task.
    pub fn cancel(task: *mut Self) -> Result<(), HandleError> {
        Self::with(task, TaskCell::cancel)
    }

    /// Frees the handle, and the value if nobody has taken it.
    ///
    /// With `cancel`, a running operation is cancelled; otherwise it goes on. Its completion is
    /// called in either case. The handle is stale from now on. A wait in progress goes on.
    ///
    /// # Errors
    /// If `task` is no handle of a task, as when it was freed already.
    pub fn free(task: *mut Self, cancel: bool) -> Result<(), HandleError> {
        // SAFETY: any thread may have, and drop, a `TaskHandle`: a `TaskCell` is `Send` and `Sync`.
        let cell = match unsafe { table::take_owner::<TaskHandle>(task.addr()) } {
            Ok(TaskHandle(cell)) => cell,
            Err(HandleError::InUse) => {
                let cell = Self::cell(task)?;
                // SAFETY: as above.
                unsafe { table::remove_owner::<TaskHandle>(task.addr()) }?;
                cell
            }
            Err(error) => return Err(error),
        };
        cell.complete_if_forked();
        if cancel {
            cell.cancel();
        }
        if let Some(parts) = cell.parts() {
            parts.close();
        }
        Ok(())
    }

    /// Takes the value of a task, a `T`. It can be taken once.
    ///
    /// # Errors
    /// If the operation has not ended, or has ended without a value; if the value was taken, or is
    /// no `T`; if `task` is no handle of a task.
    pub fn take<T: Send + 'static>(task: *mut Self) -> Result<T, TaskError> {
        Self::with(task, TaskCell::take)?
    }

    /// Why a task has ended without a value; `None` if it has one.
    ///
    /// # Errors
    /// If `task` is no handle of a task.
    pub fn error(task: *mut Self) -> Result<Option<TaskError>, HandleError> {
        Self::with(task, TaskCell::error)
    }

    /// Takes the next part of a result, a `P`. Waits for it, for `timeout` at most.
    ///
    /// `Ok(None)` means that there are no more parts, and that the operation has ended with its
    /// value. Without a `timeout`, this waits for as long as it takes.
    ///
    /// # Errors
    /// [`NotDone`](TaskError::NotDone) if time runs out. [`NoParts`](TaskError::NoParts) if the
    /// task was not started by [`start_parts`](TaskBuilder::start_parts), and
    /// [`WrongType`](TaskError::WrongType) if its parts are no `P`. After the last part, the error
    /// of the operation.
    ///
    /// # Panics
    /// Like [`wait`](crate::wait).
    #[track_caller]
    pub fn next_part<P: Send + 'static>(
        task: *mut Self,
        timeout: Option<Duration>,
    ) -> Result<Option<P>, TaskError> {
        let cell = Self::cell(task)?;
        let parts = cell.parts().ok_or(TaskError::NoParts)?;
        let Some(parts) = parts.as_any().downcast_ref::<Parts<P>>() else {
            return Err(TaskError::WrongType { expected: std::any::type_name::<P>() });
        };
        // A part comes before the end, so the end is looked at first.
        let next = wait_until(&cell, timeout, || {
            let has_ended = cell.has_ended();
            parts.pop().map(Some).or(has_ended.then_some(None))
        });
        watchers::settle(&cell, || !parts.is_empty() || cell.has_ended());
        match next {
            Some(Some(part)) => Ok(Some(part)),
            Some(None) => cell.error().map_or(Ok(None), Err),
            None => Err(TaskError::NotDone),
        }
    }

    /// Waits for the next part, for `timeout` at most, and leaves it there.
    ///
    /// Returns whether there is a part: `Some(true)`; whether there is none any more:
    /// `Some(false)`; `None` if time runs out.
    #[track_caller]
    pub(crate) fn wait_for_part(
        task: *mut Self,
        timeout: Option<Duration>,
    ) -> Result<Option<bool>, TaskError> {
        let cell = Self::cell(task)?;
        let parts = cell.parts().ok_or(TaskError::NoParts)?;
        let next = wait_until(&cell, timeout, || {
            let has_ended = cell.has_ended();
            if parts.is_empty() { has_ended.then_some(false) } else { Some(true) }
        });
        watchers::settle(&cell, || !parts.is_empty() || cell.has_ended());
        Ok(next)
    }

    /// The descriptor of a task, for an event loop: readable (`POLLIN`, level-triggered) when the
    /// task has ended, or has a part.
    ///
    /// The first call makes it. It is closed when the task has been freed and has ended.
    pub(crate) fn fd(task: *mut Self) -> Result<RawFd, String> {
        let cell = Self::cell(task).map_err(|error| error.to_string())?;
        let ready = || cell.has_ended() || cell.parts().is_some_and(|parts| !parts.is_empty());
        watchers::descriptor(&cell, ready).map_err(|error| format!("there is no file descriptor: {error}"))
    }

    /// The number of tasks that run: started, and not ended.
    pub fn running() -> usize {
        limit::running()
    }
}

/// Waits until `ready` returns something, for `timeout` at most.
#[track_caller]
fn wait_until<R>(
    cell: &Arc<TaskCell>,
    timeout: Option<Duration>,
    mut ready: impl FnMut() -> Option<R>,
) -> Option<R> {
    if let Some(result) = ready() {
        return Some(result);
    }
    if timeout == Some(Duration::ZERO) {
        return None;
    }
    let mut waiter = Waiter::new(cell);
    let mut timer = timeout.map(timer);
    wait_for_ours(poll_fn(|context| match waiter.poll(context, &mut ready) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => match &mut timer {
            Some(timer) => Pin::new(timer).poll(context).map(|()| None),
            None => Poll::Pending,
        },
    }))
}

/// In the child of a fork: forgets the tasks of the parent's other threads.
pub(crate) fn forget_others() {
    watchers::forget();
    limit::forget();
}
