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

mod builder;
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

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

pub use builder::{TaskBuilder, start};
use cell::{TaskCell, TaskHandle};
pub use completion::{Completion, CompletionFn};
pub use error::{StartError, TaskError};
use parts::Parts;
pub use parts::{NobodyTakes, PartSender};
use watchers::Waiter;

use crate::fiber::wait::wait_for_ours;
use crate::handle::{HandleError, table};
use crate::runtime::timer;
use crate::sys::RawEvent;

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
    fn of(number: u32) -> Self {
        const ALL: [TaskStatus; 7] = [
            TaskStatus::Running,
            TaskStatus::Done,
            TaskStatus::Failed,
            TaskStatus::Panicked,
            TaskStatus::Cancelled,
            TaskStatus::DeadlineExceeded,
            TaskStatus::Lost,
        ];
        ALL[number as usize]
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
        watchers::update_descriptor(&cell);
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
        watchers::update_descriptor(&cell);
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
        watchers::update_descriptor(&cell);
        Ok(next)
    }

    /// The event of a task, for an event loop: there when the task has ended, or has a part.
    ///
    /// The first call makes it. It is closed when the task has been freed and has ended.
    pub(crate) fn event(task: *mut Self) -> Result<RawEvent, String> {
        let cell = Self::cell(task).map_err(|error| error.to_string())?;
        watchers::descriptor(&cell).map_err(|error| format!("the system gives no event: {error}"))
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
