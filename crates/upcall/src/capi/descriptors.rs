//! File descriptors that tell an event loop.

use std::ffi::c_int;

use crate::capi::runtime::with_runtime;
use crate::crossing::run_c_api;
use crate::fiber::coroutines;
use crate::sys::raw;
use crate::task::Task;

/// Returns a file descriptor that tells an event loop of a task.
///
/// It is readable (`POLLIN`, level-triggered) when the task has ended, or has a part to be taken.
/// Only poll it: do not read from it, and do not close it. It is valid until the task is freed. In
/// the child of a fork, call this again: the descriptor keeps its number.
///
/// Returns -1 if `task` is no task, or if no file descriptor is available.
pub fn task_fd(task: *mut Task) -> c_int {
    run_c_api(|| Task::event(task).map_err(|error| format!("task_fd: {error}"))).unwrap_or(-1)
}

/// Returns the file descriptor that tells an event loop when a fiber of the calling thread is
/// ready.
///
/// While a fiber of the thread's runtime can run, the descriptor is readable (`POLLIN`,
/// level-triggered). Only poll it: do not read from it, and do not close it. It is valid until
/// `local_end`.
///
/// Returns -1 if the thread has no runtime.
pub fn local_fd() -> c_int {
    with_runtime(|runtime| Ok(raw(runtime.event().event()))).unwrap_or(-1)
}

/// Returns the file descriptor that tells an event loop when a coroutine of the calling thread can
/// go on.
///
/// While one can, the descriptor is readable (`POLLIN`, level-triggered). `coroutines_next_ready`
/// ends that when it returns 0. It may be readable in vain. Only poll it: do not read from it, and
/// do not close it. It is valid until the thread's exit.
///
/// Returns -1 if no file descriptor is available.
pub fn coroutines_fd() -> c_int {
    let fd = || coroutines::event().map_err(|error| format!("coroutines_fd: {error}"));
    run_c_api(|| fd().map(raw)).unwrap_or(-1)
}
