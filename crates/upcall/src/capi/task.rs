//! The C side of tasks, with the conventions of `capi`.

use std::ffi::c_int;
use std::time::Duration;

use crate::capi::status;
use crate::crossing::export::with_sources;
use crate::crossing::{run_c_api, set_last_message};
use crate::handle::HandleError;
use crate::task::{Task, TaskStatus};

/// The time limit that C means: negative for none.
fn limit(milliseconds: c_int) -> Option<Duration> {
    u64::try_from(milliseconds).ok().map(Duration::from_millis)
}

fn named<T>(function: &str, result: Result<T, HandleError>) -> Result<T, String> {
    result.map_err(|error| format!("{function}: {error}"))
}

/// Waits until a task has ended.
///
/// It waits for `milliseconds` at most; if negative, for as long as it takes. Any thread may wait,
/// and several may at the same time. On a fiber, or on a stack of
/// `local_spawn`, only the fiber waits. If the calling thread has a runtime of `local_begin`, its
/// fibers run meanwhile.
///
/// If the task has a completion, this may return before its call has begun, or while it runs. So
/// whoever waits does not free what the completion uses.
///
/// Returns the task's status: `UPCALL_TASK_RUNNING` if time has run out, otherwise the kind of its
/// end. If that is not `UPCALL_TASK_DONE`, `last_message` tells the reason. Returns -1 if `task` is
/// no task, or if the host has ended the wait.
pub fn task_wait(task: *mut Task, milliseconds: c_int) -> c_int {
    answer(task, || named("task_wait", Task::wait(task, limit(milliseconds))))
}

/// Returns the status of a task.
///
/// It is `UPCALL_TASK_RUNNING` or the kind of the task's end. If the task has ended and the status
/// is not `UPCALL_TASK_DONE`, `last_message` tells the reason. Returns -1 if `task` is no task.
pub fn task_status(task: *mut Task) -> c_int {
    answer(task, || named("task_status", Task::status(task)))
}

/// Answers with a status, and keeps the reason of an end without a value as the last message.
fn answer(task: *mut Task, status: impl FnOnce() -> Result<TaskStatus, String>) -> c_int {
    let told = run_c_api(|| {
        let status = status()?;
        if !matches!(status, TaskStatus::Running | TaskStatus::Done) {
            if let Ok(Some(error)) = Task::error(task) {
                set_last_message(with_sources(&error));
            }
        }
        Ok(status)
    });
    told.map_or(-1, |status| status as c_int)
}

/// Asks for the end of a task.
///
/// Its operation is dropped at a point where it waits; then the task ends as
/// `UPCALL_TASK_CANCELLED`. It may have another end before that. This function returns at once;
/// `task_wait` waits for the end. Any thread may call it, also inside the task's own completion.
///
/// Returns 0, also if the task has ended. Returns -1 if `task` is no task.
pub fn task_cancel(task: *mut Task) -> c_int {
    status(run_c_api(|| named("task_cancel", Task::cancel(task))))
}

/// Frees a task.
///
/// If `cancel` is not 0 and the task runs, it is cancelled; otherwise it goes on by itself. In
/// either case its completion is called, if it has not been. A value that nobody has taken is
/// dropped. From now on, the pointer is stale: functions that get it return -1.
///
/// Returns 0. Returns -1 if `task` is no task, as when it was freed already.
pub fn task_free(task: *mut Task, cancel: c_int) -> c_int {
    status(run_c_api(|| named("task_free", Task::free(task, cancel != 0))))
}

/// Waits for the next part of a result that comes in parts.
///
/// It waits for `milliseconds` at most; if negative, for as long as it takes.
///
/// A function of the library's own takes the part.
///
/// Returns 1 if there is a part; 2 if there is none any more, since the task has ended; 0 if time
/// has run out. Returns -1 if `task` is no task, or if its result does not come in parts.
pub fn task_next(task: *mut Task, milliseconds: c_int) -> c_int {
    let next =
        || Task::wait_for_part(task, limit(milliseconds)).map_err(|error| format!("task_next: {error}"));
    match run_c_api(next) {
        Some(Some(true)) => 1,
        Some(Some(false)) => 2,
        Some(None) => 0,
        None => -1,
    }
}
