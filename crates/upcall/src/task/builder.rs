//! The start of a task: its options, its first poll, and its way to an executor.

use std::any::Any;
use std::error::Error;
use std::future::Future;
use std::panic::Location;
#[cfg(feature = "tokio")]
use std::pin::Pin;
use std::sync::Arc;
#[cfg(feature = "tokio")]
use std::task::{Context, Waker};
use std::time::Duration;

#[cfg(feature = "tokio")]
use super::cell::TaskCell;
use super::cell::{Outcome, Seed};
use super::executor::Executor;
use super::parts::{AnyParts, Parts};
use super::run::{Limited, Polled, Run, Starting, WithOutcome};
use super::{Completion, PartSender, StartError, Task, limit};
#[cfg(feature = "tokio")]
use crate::fiber::tokio_runtime;
use crate::fiber::wait::wait_for_ours;
use crate::runtime::operation::{self, LocalHome, NewOperation};
use crate::runtime::{Timer, is_closing, timer};
use crate::sync::in_own_code;

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
/// let never = std::future::pending::<Result<(), std::io::Error>>();
/// let briefly = TaskBuilder::new().deadline(Duration::from_millis(1));
/// let task = briefly.start(never, Completion::none())?;
/// assert_eq!(Task::wait(task, None)?, TaskStatus::DeadlineExceeded);
/// Task::free(task, false)?;
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

    /// Ends the operation after `duration`, as
    /// [`DeadlineExceeded`](crate::TaskStatus::DeadlineExceeded).
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
            None => self.begin_local(started_at, seed, WithOutcome(operation)),
            Some(timer) => {
                self.begin_local(started_at, seed, Limited { operation: WithOutcome(operation), timer })
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
            None => self.begin_sent(started_at, seed, WithOutcome(operation)),
            Some(timer) => {
                self.begin_sent(started_at, seed, Limited { operation: WithOutcome(operation), timer })
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
        spawn: impl FnOnce(Run<F>) -> NewOperation,
    ) -> Result<*mut Task, StartError> {
        if self.later {
            let cell = seed.running();
            match spawn(Run::started(cell.clone(), operation)).poll_later() {
                Ok(operation) => cell.set_executor(Executor::Ours(operation)),
                Err((operation, refused)) => {
                    // The caller gets an error, so nobody else is told.
                    cell.state().complete();
                    drop(operation);
                    let _ = Task::free(cell.handle(), false);
                    return Err(refused.into());
                }
            }
            return Ok(cell.handle());
        }
        let mut starting = Starting::new(seed);
        // SAFETY: the poll is made here, and has returned before the next use of `starting`.
        let operation = spawn(unsafe { Run::starting(&mut starting, operation) }).poll_now();
        Ok(match starting.polled() {
            Polled::Ended(seed, outcome) => seed.ended(outcome),
            Polled::Waits(cell) => {
                // There is none if the operation has ended since.
                if let Some(operation) = operation {
                    cell.set_executor(Executor::Ours(operation));
                }
                cell.handle()
            }
        })
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
        match starting.polled() {
            Polled::Ended(seed, outcome) => {
                drop(run);
                seed.ended(outcome)
            }
            Polled::Waits(cell) => {
                spawn(&cell, run);
                cell.handle()
            }
        }
    }

    #[inline]
    fn timer(&self) -> Option<Timer> {
        self.deadline.map(timer)
    }

    /// Takes a place among the running tasks.
    #[track_caller]
    #[inline]
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
        Ok(Seed::new(completion, local, parts, place))
    }
}
